//! Messages of a pipe as they are stored, as server-sent events.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    rt,
    web::Data,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream;
use tidegate_service::{MessagesPage, MessagesRead, MessagesWanted};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{followers::Counted, last_event::LastEvent, messages::InPipe};
use crate::http::{
    Context, Problem,
    events::{Ending, watch},
    gate::Identified,
};

/// The media type of server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";
/// How long one look waits for a message, which nothing cuts short: so long whoever left is not missed.
const LOOK: Duration = Duration::from_secs(2);
/// The longest silence of the stream.
const SILENCE: Duration = Duration::from_secs(15);
/// Messages of one look at most.
const TOGETHER: usize = 100;
/// Bytes of one piece at most, but for one message that has more.
const PIECE: usize = 256 * 1_024;
/// Pieces between the pipe and the socket.
const PIECES: usize = 1;
/// How long a client may take nothing while something waits for it. It can come back with what it had last.
const STALLED: Duration = Duration::from_mins(1);
/// The wait after the broker or the database did not answer.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// What is said to be heard of.
const BEAT: &str = ":\n\n";

/// Answers with what is in the pipe from a place on, and with what comes, until the client, its login or its right to read
/// is gone. What the client had last wins over what it asks for.
pub(super) async fn follow(
    context: &Data<Context>,
    caller: Identified,
    handle: String,
    pipe: String,
    wanted: MessagesWanted,
    last: Option<LastEvent>,
) -> Result<HttpResponse, Problem> {
    let counted = context.followers.one_more(caller.org()?.user_id())?;
    let (from, incarnation) = match (last, wanted.read) {
        (Some(last), _) => (MessagesRead::After(last.sequence), last.incarnation),
        // What confirms was refused before.
        (None, MessagesRead::Next | MessagesRead::Confirmed(_)) => {
            let end = context.services.messages.end(caller.org()?, &handle, &pipe).await?;
            (MessagesRead::After(end.last), end.incarnation)
        }
        (None, from @ (MessagesRead::After(_) | MessagesRead::Since(_))) => (from, None),
    };
    let mut following = Following {
        context: context.clone(),
        caller,
        handle,
        pipe,
        from,
        incarnation,
        together: TOGETHER,
        _counted: counted,
    };
    // What is refused is refused before the stream begins.
    let first = following.look(None).await?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let (over, (stop, stopped)) = (CancellationToken::new(), oneshot::channel());
    let watched = watch(context.as_ref().clone(), following.caller.0.clone(), stop, over.clone());
    rt::spawn(context.tasks.track_future(watched));
    let served = async move {
        let _over = over.drop_guard();
        following.serve(first, sender, stopped).await;
    };
    rt::spawn(context.tasks.track_future(served));
    let body = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (Ok::<Bytes, Infallible>(piece), receiver))
    });
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, EVENT_STREAM))
        .insert_header((CACHE_CONTROL, "no-store"))
        // Proxies that gather answers would hold messages back.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body))
}

/// A client that follows a pipe.
struct Following {
    context: Data<Context>,
    caller: Identified,
    handle: String,
    pipe: String,
    from: MessagesRead,
    incarnation: Option<DateTime<Utc>>,
    /// Messages that the next look asks for: about as many as fit into one piece.
    together: usize,
    _counted: Counted,
}

impl Following {
    /// The next messages, and where to go on after them; the caller's right to read is asked for again.
    async fn look(&mut self, wait: Option<Duration>) -> Result<MessagesPage, Problem> {
        let wanted = MessagesWanted { read: self.from, limit: Some(self.together), wait };
        let (messages, org) = (&self.context.services.messages, self.caller.org()?);
        Ok(messages.read(org, &self.handle, &self.pipe, wanted).await?)
    }

    /// How the stream begins. Whoever is cut off before the first message comes back to where it began.
    fn hello(&mut self, first: MessagesPage) -> String {
        let (from, known) = (self.from, self.incarnation);
        let written = self.written(first).unwrap_or_default();
        let place = match from {
            MessagesRead::After(sequence) if known.is_none() || known == self.incarnation => {
                format!("id: {}\n", LastEvent { incarnation: self.incarnation, sequence })
            }
            _ => String::new(),
        };
        format!("retry: 2000\n{place}{BEAT}{written}")
    }

    /// What is written of some messages: as many as fit, the rest is looked for again. In a pipe that was made anew, sequences
    /// mean other messages: it is begun with its first one.
    fn written(&mut self, page: MessagesPage) -> Option<String> {
        let known = self.incarnation;
        self.incarnation = page.incarnation.or(known);
        let incarnation = self.incarnation;
        if known.is_some() && known != incarnation {
            self.from = MessagesRead::After(0);
            let first = LastEvent { incarnation, sequence: 0 };
            return Some(format!("id: {first}\nevent: reset\ndata: {{}}\n\n"));
        }
        let mut piece = String::new();
        for (index, message) in page.messages.into_iter().enumerate() {
            let sequence = message.sequence;
            let block = block(incarnation, &InPipe::from(message));
            if !piece.is_empty() && piece.len() + block.len() > PIECE {
                self.together = index;
                return Some(piece);
            }
            self.from = MessagesRead::After(sequence);
            piece.push_str(&block);
        }
        self.together = self.together.saturating_mul(2).min(TOGETHER);
        if let Some(last) = page.last {
            self.from = MessagesRead::After(last);
        }
        (!piece.is_empty()).then_some(piece)
    }

    /// Writes until the client leaves, or until `stopped` says why it ends.
    async fn serve(
        mut self,
        first: MessagesPage,
        client: mpsc::Sender<Bytes>,
        mut stopped: oneshot::Receiver<Ending>,
    ) {
        let mut piece = Some(self.hello(first));
        let (mut said, mut failed) = (Instant::now(), false);
        loop {
            let silent = said.elapsed() >= SILENCE;
            let next = piece.take().or_else(|| silent.then(|| BEAT.to_owned()));
            let wait = if std::mem::take(&mut failed) { AFTER_FAILURE } else { Duration::ZERO };
            let taken = async {
                if let Some(piece) = next {
                    said = Instant::now();
                    // Until there is room for another one: what was not asked for does not wait.
                    client.send(piece.into()).await.map_err(drop)?;
                    client.reserve().await.map(drop).map_err(drop)?;
                }
                sleep(wait).await;
                Ok::<(), ()>(())
            };
            tokio::select! {
                biased;
                why = &mut stopped => return goodbye(&client, why.unwrap_or(Ending::Left).sentence()),
                () = client.closed() => return,
                taken = timeout(STALLED, taken) => match taken {
                    Ok(Ok(())) => {}
                    Ok(Err(())) => return,
                    Err(_) => return goodbye(&client, Ending::Stalled.sentence()),
                },
            }
            // Outside of the select: work on the database is never cut half-way.
            match self.look(Some(LOOK)).await {
                Ok(page) => piece = self.written(page),
                Err(problem) if problem.status.is_server_error() => {
                    tracing::debug!(error = %problem, "messages were not read, tried again");
                    failed = true;
                }
                Err(problem) => return goodbye(&client, &problem.to_string()),
            }
        }
    }
}

/// The last words, where the client takes them.
fn goodbye(client: &mpsc::Sender<Bytes>, sentence: &str) {
    if !sentence.is_empty() {
        let line: String = sentence.chars().filter(|c| !c.is_control()).collect();
        drop(client.try_send(format!(": {line}\n\n").into()));
    }
}

/// One message in the form of a server-sent event.
fn block(incarnation: Option<DateTime<Utc>>, message: &InPipe) -> String {
    let id = LastEvent { incarnation, sequence: message.sequence };
    // JSON has no line breaks of its own.
    let data = serde_json::to_string(message).unwrap_or_default();
    format!("id: {id}\nevent: message\ndata: {data}\n\n")
}
