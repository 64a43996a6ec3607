//! Upgraded connections, WebSockets above all: bytes both ways. Of those who only watch, what they say goes no further.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    rt,
    web::Payload,
};
use bytes::Bytes;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tidegate_model::StreamMode;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::{
    pool::Pool,
    proxy::{Asked, marked, not_answered, onward, with_headers},
    request_id,
    watcher::Watcher,
};
use crate::{
    departure,
    http::{Context, Problem},
};

/// Bytes of one piece.
const CHUNK: usize = 64 * 1024;

/// Passes an upgrade on, and afterwards its bytes.
pub(super) async fn pass_on(
    request: HttpRequest,
    payload: Payload,
    context: &Context,
    pool: &Pool,
    asked: Asked,
) -> Result<HttpResponse, Problem> {
    let wanted = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    let wanted = wanted.unwrap_or_default().to_owned();
    if asked.opened.mode == StreamMode::View && !wanted.eq_ignore_ascii_case("websocket") {
        return Err(Problem::forbidden("you may watch this session, and not open other connections into it"));
    }
    let mut lent = pool.lend(context, &asked.opened, asked.key.clone(), departure::of(&request)).await?;
    let mut onward = onward(&request, &asked, None, context)?;
    let headers = onward.headers_mut();
    headers.insert(hyper::header::CONNECTION, hyper::header::HeaderValue::from_static("upgrade"));
    if let Ok(value) = hyper::header::HeaderValue::from_str(&wanted) {
        headers.insert(hyper::header::UPGRADE, value);
    }
    let mut answer = match lent.connection.send_request(onward).await {
        Ok(answer) => answer,
        Err(error) => return Err(not_answered(error, &lent)),
    };
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = with_headers(status, answer.headers(), &asked, &request_id(&request));
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = http_body_util::BodyDataStream::new(answer.into_body());
        return Ok(marked(response.streaming(body.map(|piece| piece.map_err(std::io::Error::other)))));
    }
    let upgraded = hyper::upgrade::on(&mut answer)
        .await
        .map_err(|error| Problem::bad_gateway("the session's application did not switch protocols", error))?;
    let (from_session, to_session) = tokio::io::split(TokioIo::new(upgraded));
    let mode = asked.opened.mode;
    let typed = (context.hub.clone(), asked.opened.session, asked.opened.caller.user().user_id());
    rt::spawn(context.tasks.track_future(async move {
        let (hub, session, user) = typed;
        say(payload, to_session, mode, || hub.note_activity(session, user)).await;
        // The connection is this viewer's for as long as either side speaks.
        drop(lent);
    }));
    let heard = ReaderStream::with_capacity(from_session, CHUNK);
    Ok(marked(response.upgrade(wanted).streaming(heard)))
}

/// Moves what the viewer says to the session until one of them ends.
async fn say(
    mut payload: Payload,
    mut to_session: impl AsyncWrite + Unpin,
    mode: StreamMode,
    said: impl Fn(),
) {
    let mut watcher = (mode == StreamMode::View).then(Watcher::default);
    while let Some(Ok(bytes)) = payload.next().await {
        let bytes: Bytes = match &mut watcher {
            None => {
                said();
                bytes
            }
            Some(watcher) => match watcher.take(&bytes) {
                Ok(kept) => kept,
                Err(()) => break,
            },
        };
        if !bytes.is_empty() && to_session.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to_session.shutdown().await;
}
