//! Writing: in order, each message once, with the same key for as long as its answer is not known. One message is on its way
//! at a time, and what comes meanwhile is put together for the next: that keeps the order without a window to repair.

use std::{sync::Arc, time::Duration};

use tidegate_model::{Handle, Payload};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, sleep, timeout_at},
};

use super::queue::{Piece, Queue};
use crate::{Client, Error, IdempotencyKey, MessageQuery, MessageToSend, StatusCode};

/// Messages of one look for what may be stored already.
const LOOK: usize = 100;

/// How a pipe is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeWriting {
    /// How long the first byte waits for others before they are sent; 4 ms.
    pub batch: Duration,
    /// Bytes of one message at most; 32 KiB, which is 44 KiB in its envelope.
    pub largest: usize,
    /// Bytes that wait at most, those on their way included; 8 MiB. Whoever writes more waits.
    pub waiting: usize,
    /// For how long a message is sent again under its key, once it may be stored; 80 s. The broker knows the key for ten
    /// minutes, or for as long as the pipe keeps messages where that is less; one call takes up to half a minute.
    pub key_lasts: Duration,
    /// What is done about a message whose answer was lost for longer.
    pub lost_answer: LostAnswer,
}

/// What is done about a message of which nobody knows whether it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostAnswer {
    /// The pipe is read behind this sequence, which the writer's own messages follow: one with the same bytes from the same
    /// sender is this one. For those who may read the pipe and write to it alone.
    Look {
        /// The sequence behind which the messages are.
        after: u64,
    },
    /// It is given up, as a keystroke is that nobody waits for any more, and the carrier ends with the last error; so is
    /// one that could not be sent at all for as long.
    GiveUp,
}

impl Default for PipeWriting {
    fn default() -> Self {
        Self {
            batch: Duration::from_millis(4),
            largest: 32 * 1_024,
            waiting: 8 * 1_024 * 1_024,
            key_lasts: Duration::from_secs(80),
            lost_answer: LostAnswer::GiveUp,
        }
    }
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipeFlow {
    /// Messages are stored as they come.
    Flowing,
    /// They wait: the sentence says what for. They are sent when that is over.
    Waiting(String),
}

/// Nothing is carried any more: [`PipeCarrier::run`] tells why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing is sent to the pipe any more")]
pub struct WriterClosed;

type Queued = (Piece, OwnedSemaphorePermit);

/// The end of a pipe that is written to. Clones share order and room.
#[derive(Debug, Clone)]
pub struct PipeWriter {
    pieces: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
    waiting: usize,
    flow: watch::Receiver<PipeFlow>,
}

impl PipeWriter {
    /// Takes bytes on their way, after it waited for room for them. Dropped while it waits, the rest of them is not taken.
    pub async fn bytes(&self, bytes: &[u8]) -> Result<(), WriterClosed> {
        for part in bytes.chunks(self.waiting) {
            self.take(Piece::Bytes(part.to_vec())).await?;
        }
        Ok(())
    }

    /// Takes a text on its way, which is a message of its own between the bytes before and behind it.
    pub async fn text(&self, text: impl Into<String>) -> Result<(), WriterClosed> {
        self.take(Piece::Text(text.into())).await
    }

    /// How it goes, now and whenever that changes.
    pub fn flow(&self) -> watch::Receiver<PipeFlow> {
        self.flow.clone()
    }

    async fn take(&self, piece: Piece) -> Result<(), WriterClosed> {
        let size = u32::try_from(piece.len().min(self.waiting)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(size).await.map_err(|_| WriterClosed)?;
        self.pieces.send((piece, room)).map_err(|_| WriterClosed)
    }
}

/// What carries bytes to a pipe while it runs.
#[derive(Debug)]
pub struct PipeCarrier {
    client: Client,
    handle: Handle,
    pipe: String,
    options: PipeWriting,
    pieces: mpsc::UnboundedReceiver<Queued>,
    room: Arc<Semaphore>,
    flow: watch::Sender<PipeFlow>,
    queue: Queue,
    /// The room of what is in the queue.
    taken: Option<OwnedSemaphorePermit>,
    /// Where this writer's messages that are known to be stored end.
    stored: u64,
}

impl Client {
    /// Writes bytes to a pipe, in order and each once. Nothing is sent before the carrier runs.
    pub fn write_pipe(&self, handle: &Handle, pipe: &str, options: PipeWriting) -> (PipeWriter, PipeCarrier) {
        let waiting = options.waiting.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let largest = options.largest.clamp(1, 44 * 1_024);
        let options = PipeWriting { largest, waiting, ..options };
        let (send, pieces) = mpsc::unbounded_channel();
        let (flow, flows) = watch::channel(PipeFlow::Flowing);
        let room = Arc::new(Semaphore::new(waiting));
        let writer = PipeWriter { pieces: send, room: Arc::clone(&room), waiting, flow: flows };
        let stored = match options.lost_answer {
            LostAnswer::Look { after } => after,
            LostAnswer::GiveUp => 0,
        };
        let carrier = PipeCarrier {
            client: self.clone(),
            handle: handle.clone(),
            pipe: pipe.to_owned(),
            options,
            pieces,
            room,
            flow,
            queue: Queue::new(largest),
            taken: None,
            stored,
        };
        (writer, carrier)
    }
}

impl Drop for PipeCarrier {
    fn drop(&mut self) {
        // Whoever waits for room waits for nothing.
        self.room.close();
    }
}

impl PipeCarrier {
    /// Carries until every writer is dropped and all they gave is stored, or until something is refused for good. What is
    /// away for now is waited for.
    pub async fn run(mut self) -> Result<(), Error> {
        while self.gather().await {
            let Some(payload) = self.queue.take() else { continue };
            let size = payload.as_bytes().len();
            self.store(payload).await?;
            if let Some(taken) = &mut self.taken {
                drop(taken.split(size));
            }
        }
        Ok(())
    }

    /// Waits for something to send, and a moment for more of it; false where nothing comes any more.
    async fn gather(&mut self) -> bool {
        while let Ok(queued) = self.pieces.try_recv() {
            self.note(queued);
        }
        if self.queue.is_empty() {
            let Some(queued) = self.pieces.recv().await else { return false };
            self.note(queued);
        }
        let until = Instant::now() + self.options.batch;
        while !self.queue.is_ripe() {
            match timeout_at(until, self.pieces.recv()).await {
                Ok(Some(queued)) => self.note(queued),
                Ok(None) | Err(_) => break,
            }
        }
        true
    }

    fn note(&mut self, (piece, room): Queued) {
        self.queue.push(piece);
        match &mut self.taken {
            Some(taken) => taken.merge(room),
            None => self.taken = Some(room),
        }
    }

    /// Sends one message until it is stored.
    async fn store(&mut self, payload: Payload) -> Result<(), Error> {
        let message = MessageToSend { payload, in_reply_to: None, ack_requested: false };
        let mut key = IdempotencyKey::random();
        let (mut doubtful, mut failing): (Option<Instant>, Option<Instant>) = (None, None);
        let mut attempt = 0;
        loop {
            let began = Instant::now();
            let sent = self.client.send_message_once(&self.handle, &self.pipe, &message, key.clone()).await;
            let error = match sent {
                Ok(sent) => {
                    self.stored = sent.sequence;
                    self.flow.send_if_modified(|flow| {
                        std::mem::replace(flow, PipeFlow::Flowing) != PipeFlow::Flowing
                    });
                    return Ok(());
                }
                Err(error) => error,
            };
            if !waits(&error) {
                return Err(error);
            }
            let since = *failing.get_or_insert(began);
            if is_doubtful(&error) {
                doubtful.get_or_insert(began);
            }
            self.flow.send_replace(PipeFlow::Waiting(error.to_string()));
            attempt += 1;
            let asked = error.api().and_then(|refusal| refusal.retry_after);
            sleep(asked.unwrap_or_else(|| self.client.wait_before(attempt))).await;
            let lasts = self.options.key_lasts;
            if self.options.lost_answer == LostAnswer::GiveUp && since.elapsed() >= lasts {
                return Err(error);
            }
            if doubtful.is_some_and(|since| since.elapsed() >= lasts) {
                match self.look_for(&message.payload).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => (doubtful, key) = (None, IdempotencyKey::random()),
                    Err(error) if waits(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Whether a message is among those behind what is known to be stored.
    async fn look_for(&mut self, payload: &Payload) -> Result<bool, Error> {
        let mut after = self.stored;
        loop {
            let query = MessageQuery { after: Some(after), limit: Some(LOOK), ..MessageQuery::default() };
            let page = self.client.messages(&self.handle, &self.pipe, &query).await?;
            // Written to by this writer alone: the first that is equal is the one.
            if let Some(found) = page.messages.iter().find(|message| message.payload == *payload) {
                self.stored = found.sequence;
                return Ok(true);
            }
            match page.last {
                Some(last) if last > after => after = last,
                _ => return Ok(false),
            }
        }
    }
}

/// Whether the same message is to be sent later: something is away, too busy or full for now.
fn waits(error: &Error) -> bool {
    let now = |status: StatusCode| {
        matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::INSUFFICIENT_STORAGE)
    };
    error.is_passing() || error.status().is_some_and(now)
}

/// Whether the message may be stored all the same.
fn is_doubtful(error: &Error) -> bool {
    match error {
        Error::Transport { source, .. } => !source.is_connect(),
        Error::Timeout { .. } => true,
        _ => error.status().is_some_and(|status| status.is_server_error() && !is_full(status)),
    }
}

fn is_full(status: StatusCode) -> bool {
    status == StatusCode::INSUFFICIENT_STORAGE
}
