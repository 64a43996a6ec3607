//! Messages of a pipe as they are stored, as server-sent events.

use std::{convert::Infallible, time::Duration};

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    rt,
    web::Data,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream;
use tidegate_model::{Clock, SystemClock};
use tidegate_service::{MessagesPage, MessagesRead, MessagesWanted};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::messages::InPipe;
use crate::http::{
    Context, Problem,
    events::{Ending, watch},
    gate::Identified,
};

/// The media type of server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";
/// How long one look waits for a message: the longest silence of the stream.
const LOOK: Duration = Duration::from_secs(15);
/// Messages of one look at most.
const TOGETHER: usize = 100;
/// Pieces between the pipe and the socket.
const PIECES: usize = 2;
/// How long a client may take nothing while something waits for it. It can come back with what it had last.
const STALLED: Duration = Duration::from_mins(1);
/// The wait after the broker or the database did not answer.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Answers with what is in the pipe from a place on, and with what comes, until the client, its login or its right to read
/// is gone.
pub(super) async fn follow(
    context: &Data<Context>,
    caller: Identified,
    handle: String,
    pipe: String,
    wanted: MessagesWanted,
) -> Result<HttpResponse, Problem> {
    let from = match wanted.read {
        // What confirms was refused before.
        MessagesRead::Next | MessagesRead::Confirmed(_) => MessagesRead::Since(SystemClock::new().now()),
        from @ (MessagesRead::After(_) | MessagesRead::Since(_)) => from,
    };
    let mut following = Following { context: context.clone(), caller, handle, pipe, from, incarnation: None };
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
}

impl Following {
    /// The next messages, and where to go on after them; the caller's right to read is asked for again.
    async fn look(&mut self, wait: Option<Duration>) -> Result<MessagesPage, Problem> {
        let wanted = MessagesWanted { read: self.from, limit: Some(TOGETHER), wait };
        let (messages, org) = (&self.context.services.messages, self.caller.org()?);
        Ok(messages.read(org, &self.handle, &self.pipe, wanted).await?)
    }

    /// What is written of some messages. In a pipe that was made anew, sequences mean other messages: it is begun with its
    /// first one.
    fn written(&mut self, page: MessagesPage) -> Bytes {
        let known = self.incarnation;
        self.incarnation = page.incarnation.or(known);
        if known.is_some() && known != self.incarnation {
            self.from = MessagesRead::After(0);
            return Bytes::from_static(b"id: 0\nevent: reset\ndata: {}\n\n");
        }
        if let Some(last) = page.last {
            self.from = MessagesRead::After(last);
        }
        if page.messages.is_empty() {
            return Bytes::from_static(b":\n\n");
        }
        page.messages.into_iter().map(|message| block(&InPipe::from(message))).collect::<String>().into()
    }

    /// Writes until the client leaves, or until `stopped` says why it ends.
    async fn serve(
        mut self,
        first: MessagesPage,
        client: mpsc::Sender<Bytes>,
        mut stopped: oneshot::Receiver<Ending>,
    ) {
        let mut piece = [&b"retry: 2000\n"[..], &self.written(first)].concat().into();
        loop {
            tokio::select! {
                why = &mut stopped => return goodbye(&client, why.unwrap_or(Ending::Left).sentence()),
                sent = timeout(STALLED, client.send(piece)) => match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => return goodbye(&client, Ending::Stalled.sentence()),
                },
            }
            // Nothing moves by a look: one that is given up loses nothing.
            let looked = tokio::select! {
                why = &mut stopped => return goodbye(&client, why.unwrap_or(Ending::Left).sentence()),
                () = client.closed() => return,
                looked = self.look(Some(LOOK)) => looked,
            };
            piece = match looked {
                Ok(page) => self.written(page),
                Err(problem) if problem.status.is_server_error() => {
                    tracing::debug!(error = %problem, "messages were not read, tried again");
                    sleep(AFTER_FAILURE).await;
                    Bytes::from_static(b":\n\n")
                }
                Err(problem) => return goodbye(&client, &problem.to_string()),
            };
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
fn block(message: &InPipe) -> String {
    // JSON has no line breaks of its own.
    let data = serde_json::to_string(message).unwrap_or_default();
    format!("id: {}\nevent: message\ndata: {data}\n\n", message.sequence)
}
