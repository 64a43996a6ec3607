//! Records sessions' terminals: one tunnel to the agent for each, which reads what the session printed from where the
//! recording is, whoever watches or nobody. Of several control planes the one that the agent is connected to does it.
//!
//! What is on its way is bounded: a terminal whose only reader is the recorder is slowed down with it, as by any reader. As
//! soon as something cannot be stored, the tunnel is given back, so that NATS holds nobody's program up; the agent keeps
//! the last MiB meanwhile. What it kept no longer is marked as a gap.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context as Poller, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::TimeDelta;
use futures_util::{Sink, stream};
use metrics::{counter, gauge};
use tidegate_hub::{CloseCode, Frame, Hub, TransportError, TunnelError, TunnelRequest, relay};
use tidegate_model::{Clock, SessionId, StreamKind, StreamMode, TerminalSize};
use tidegate_protocol::{TerminalFrame, TunnelTarget};
use tidegate_service::{Error, FreeRecording, Nudge, Recorded, Recorder, Recording};
use tokio::{
    sync::{broadcast::Receiver, mpsc},
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::{sync::CancellationToken, sync::PollSender, task::TaskTracker};

/// How often one looks for recordings without a hint: for what other control planes were told of, or died at.
const PERIOD: Duration = Duration::from_secs(1);
/// Terminals that one control plane records at one time.
const MOST: usize = 2_000;
/// How long after a session's end what its agent has of it is waited for.
const GIVEN_UP: TimeDelta = TimeDelta::seconds(60);
/// How long a recording that broke off is counted without another try, which comes within seconds.
const REMEMBERED: Duration = Duration::from_mins(2);
/// Most bytes of a message: with base64 and the envelope it stays below what a message may have.
const MESSAGE: usize = 32 * 1024;
/// How long little output waits for more.
const LINGER: Duration = Duration::from_millis(10);
/// Frames between the tunnel and the recorder; the tunnel's own queue is bounded in bytes.
const PIECES: usize = 2;

/// Who records.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) recorder: Recorder,
    pub(crate) hub: Hub,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) broken: Arc<Broken>,
}

/// Recordings that break off each time they are tried: told once each, and counted for as long as they do.
#[derive(Debug, Default)]
pub(crate) struct Broken(Mutex<HashMap<SessionId, Instant>>);

impl Broken {
    /// Notes that a recording broke off. True where it was not broken before.
    fn add(&self, session: SessionId) -> bool {
        self.change(|broken| broken.insert(session, Instant::now()).is_none())
    }

    /// Notes that a recording goes on.
    fn remove(&self, session: SessionId) {
        self.change(|broken| broken.remove(&session));
    }

    /// Forgets those that were not tried any more: ended, or another control plane's by now.
    fn forget_old(&self) {
        self.change(|broken| broken.retain(|_, at| at.elapsed() < REMEMBERED));
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<SessionId, Instant>) -> T) -> T {
        let mut broken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut broken);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        gauge!("tidegate_recordings_broken").set(broken.len() as f64);
        changed
    }
}

impl Keeper {
    /// Records until `shutdown`; what is recorded then is gone on with by whoever comes.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let (mut ticks, recordings) = (interval(PERIOD), TaskTracker::new());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.recorder.woken() => {}
                () = shutdown.cancelled() => break,
            }
            // Outside of the select: work on the database is never cut half-way.
            match self.take(&recordings, &shutdown).await {
                Ok(()) => failing = false,
                // Once an outage, and not every time.
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(error = crate::chain(&error), "terminals are not recorded, tried again");
                }
                Err(_) => {}
            }
        }
        recordings.close();
        recordings.wait().await;
    }

    /// Takes what nobody records and this process can.
    async fn take(&self, recordings: &TaskTracker, shutdown: &CancellationToken) -> Result<(), Error> {
        self.broken.forget_old();
        for free in self.recorder.free(self.hub.agents(), GIVEN_UP).await? {
            let reached = free.agent.is_some_and(|agent| self.hub.is_connected(agent));
            if recordings.len() >= MOST || shutdown.is_cancelled() {
                return Ok(());
            }
            if !reached && !self.is_given_up(&free) {
                continue;
            }
            if let Some(recording) = self.recorder.claim(&free).await? {
                let keeper = self.clone();
                let given_up = self.is_given_up(&free);
                recordings.spawn(keeper.record(recording, given_up, shutdown.clone()));
            }
        }
        Ok(())
    }

    /// Whether nothing more is waited for: the session ended long ago.
    fn is_given_up(&self, free: &FreeRecording) -> bool {
        free.is_final && self.clock.now() - free.since > GIVEN_UP
    }

    async fn record(self, mut recording: Recording, given_up: bool, shutdown: CancellationToken) {
        let session = recording.session();
        let followed = self.follow(&mut recording, given_up, &shutdown).await;
        match &followed {
            // Ended meanwhile, or another one's by now.
            Ok(_) | Err(Error::NotFound(_)) => self.broken.remove(session),
            Err(error) => {
                counter!("tidegate_recording_breaks_total").increment(1);
                let error = crate::chain(error);
                if self.broken.add(session) {
                    tracing::warn!(%session, error, "a recording broke off, tried again");
                } else {
                    tracing::debug!(%session, error, "a recording broke off once more");
                }
            }
        }
        let let_go = match followed {
            Ok(Left::Ended(to, exit_code)) => recording.finish(&to, exit_code).await,
            Ok(Left::Nothing) => recording.forget().await,
            Ok(Left::Stopped) | Err(_) => recording.release().await,
        };
        if let Err(error) = let_go {
            // Its lease is over in a moment, and whoever comes goes on.
            tracing::debug!(%session, error = crate::chain(&error), "a recording was not let go");
        }
    }

    /// Records from where the recording is to the end of what there is.
    async fn follow(
        &self,
        recording: &mut Recording,
        given_up: bool,
        shutdown: &CancellationToken,
    ) -> Result<Left, Error> {
        let agent = recording.agent().filter(|agent| self.hub.is_connected(*agent));
        if agent.is_none() && given_up && !recording.has_begun() {
            return Ok(Left::Nothing);
        }
        let to = Box::new(recording.open().await?);
        let Some(agent_id) = agent else {
            return Ok(if given_up { Left::Ended(to, None) } else { Left::Stopped });
        };
        let request = TunnelRequest {
            agent_id,
            session_id: recording.session(),
            generation: recording.generation(),
            target: TunnelTarget::Logs,
            protocol: StreamKind::Terminal,
            mode: StreamMode::View,
            viewer: recording.user(),
            port: None,
            after: Some(recording.recorded()),
            follow: Some(true),
        };
        let end = match self.hub.open_tunnel(request).await {
            Ok(end) => end,
            Err(TunnelError::AgentRefused(_)) if given_up => return Ok(Left::Ended(to, None)),
            Err(error) => {
                tracing::debug!(session = %recording.session(), %error, "no tunnel to record through");
                return Ok(Left::Stopped);
            }
        };
        let (sender, pieces) = mpsc::channel(PIECES);
        let gone = sender.clone();
        // Nothing comes from this reader but its leaving.
        let inbound = stream::once(async move {
            gone.closed().await;
            Err(TransportError::Lost(None))
        });
        let moves = Box::pin(relay(inbound, Pieces(PollSender::new(sender)), end));
        let reading = Reading {
            recording,
            broken: &self.broken,
            to,
            pieces,
            nudges: self.hub.subscribe(),
            waiting: Vec::new(),
            flush_at: None,
            is_first: true,
        };
        let (_, left) = tokio::join!(moves, reading.run(shutdown));
        left
    }
}

/// How a recording was left.
enum Left {
    /// The program ended, with this code where anybody knows.
    Ended(Box<Recorded>, Option<i32>),
    /// There never was anything to record.
    Nothing,
    /// It goes on later.
    Stopped,
}

/// What of a session is on its way to its source.
struct Reading<'a> {
    recording: &'a mut Recording,
    broken: &'a Broken,
    to: Box<Recorded>,
    pieces: mpsc::Receiver<Piece>,
    nudges: Receiver<Nudge>,
    waiting: Vec<u8>,
    flush_at: Option<Instant>,
    is_first: bool,
}

/// What happens next.
enum Turn {
    Piece(Option<Piece>),
    Flush,
    Look,
    Stop,
}

impl Reading<'_> {
    async fn run(mut self, shutdown: &CancellationToken) -> Result<Left, Error> {
        loop {
            let renewal = self.recording.renewal();
            let turn =
                if Instant::now() >= renewal { Turn::Look } else { self.next(renewal, shutdown).await };
            // Outside of the select: nothing that is stored or written down is cut half-way.
            match turn {
                Turn::Look => self.recording.renew().await?,
                Turn::Flush => self.flush().await?,
                Turn::Piece(Some(Piece::Offset(offset))) => {
                    if !self.place(offset).await? {
                        return Ok(Left::Stopped);
                    }
                }
                Turn::Piece(Some(Piece::Size(size))) => {
                    self.flush().await?;
                    self.recording.resize(&self.to, size).await?;
                }
                Turn::Piece(Some(Piece::Bytes(bytes))) => self.take(&bytes).await?,
                Turn::Piece(Some(Piece::Exit(code))) => {
                    self.flush().await?;
                    return Ok(Left::Ended(self.to, Some(code)));
                }
                Turn::Stop | Turn::Piece(None) => {
                    self.flush().await?;
                    return Ok(Left::Stopped);
                }
            }
        }
    }

    async fn next(&mut self, renewal: Instant, shutdown: &CancellationToken) -> Turn {
        let flush_at = self.flush_at;
        let flush = async {
            match flush_at {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            piece = self.pieces.recv() => Turn::Piece(piece),
            () = flush => Turn::Flush,
            () = sleep_until(renewal.into()) => Turn::Look,
            () = Nudge::revalidation(&mut self.nudges) => Turn::Look,
            () = shutdown.cancelled() => Turn::Stop,
        }
    }

    /// Takes what the terminal printed: a little waits for more.
    async fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.is_first = false;
        while self.waiting.len() + bytes.len() >= MESSAGE {
            let (now, later) = bytes.split_at(MESSAGE - self.waiting.len());
            self.waiting.extend_from_slice(now);
            self.flush().await?;
            bytes = later;
        }
        if !bytes.is_empty() {
            self.waiting.extend_from_slice(bytes);
            self.flush_at.get_or_insert_with(|| Instant::now() + LINGER);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.flush_at = None;
        if self.waiting.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.waiting);
        self.recording.store(&self.to, &bytes).await?;
        self.broken.remove(self.recording.session());
        Ok(())
    }

    /// What follows stands there in the session's output. False where the tunnel is to be opened anew.
    async fn place(&mut self, offset: u64) -> Result<bool, Error> {
        self.flush().await?;
        let expected = self.recording.recorded();
        let is_first = std::mem::replace(&mut self.is_first, false);
        if offset > expected {
            self.recording.miss(&self.to, offset - expected).await?;
        } else if offset < expected {
            if is_first {
                // It has printed less than is recorded: another program runs, and is recorded from its beginning on.
                self.recording.begin_anew(&self.to).await?;
                self.recording.renew().await?;
            }
            return Ok(is_first && offset == 0);
        }
        Ok(true)
    }
}

/// Something that the session said.
#[derive(Debug)]
enum Piece {
    Offset(u64),
    Size(TerminalSize),
    Bytes(Bytes),
    Exit(i32),
}

/// Takes the tunnel's frames apart.
struct Pieces(PollSender<Piece>);

impl Sink<Frame> for Pieces {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        self.0.poll_reserve(cx).map_err(io::Error::other)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> io::Result<()> {
        let piece = match frame {
            Frame::Binary(bytes) => Piece::Bytes(bytes),
            Frame::Text(text) => match TerminalFrame::decode(&text) {
                Some(TerminalFrame::Offset { offset }) => Piece::Offset(offset),
                Some(TerminalFrame::Resize { cols, rows }) => Piece::Size(TerminalSize { cols, rows }),
                Some(TerminalFrame::Exit { code, .. }) => Piece::Exit(code),
                Some(TerminalFrame::Mode { .. }) | None => return Ok(()),
            },
            Frame::Close(CloseCode::NORMAL, _) | Frame::Ping(_) | Frame::Pong(_) => return Ok(()),
            Frame::Close(..) => {
                self.0.close();
                return Ok(());
            }
        };
        self.0.send_item(piece).map_err(io::Error::other)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        self.0.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_that_breaks_off_again_and_again_is_told_once_until_it_goes_on() {
        let (broken, session) = (Broken::default(), SessionId::new());
        assert!(broken.add(session));
        assert!(!broken.add(session));
        broken.forget_old();
        assert!(!broken.add(session), "it was tried a moment ago");
        broken.remove(session);
        assert!(broken.add(session));
    }
}
