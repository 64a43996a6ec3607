//! `GET sessions/{id}/logs`: what a session printed, through a tunnel, as one long body.

use std::{
    io,
    pin::Pin,
    task::{Context as Poller, Poll},
    time::Duration,
};

use actix_web::{HttpResponse, http::header::ContentType, web::Data};
use bytes::Bytes;
use futures_util::{Sink, Stream, stream};
use tidegate_hub::{CloseCode, Frame, TransportError};
use tidegate_model::{Fields, FromFields, SessionId, StreamMode};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::PollSender;

use super::viewer::{self, Wanted};
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Query, Segment, parsed},
};

/// The header with the absolute offset of the first byte.
const OFFSET: &str = "Tidegate-Offset";
/// How long the head waits for the first frame, which may say the offset.
const FIRST: Duration = Duration::from_millis(500);
/// Pieces between tunnel and socket; the tunnel's own queue is bounded in bytes.
const PIECES: usize = 2;

/// What the query may say.
#[derive(Debug)]
pub(crate) struct Part {
    after: u64,
    follow: bool,
}

impl FromFields for Part {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let after = parsed(fields, "after", "must be a number of bytes").unwrap_or(0);
        let follow = parsed(fields, "follow", "must be true or false").unwrap_or(false);
        Some(Self { after, follow })
    }
}

/// What the session printed after its first `after` bytes, as far as it is kept. A body that breaks off without its
/// end can be asked for again where it broke.
#[utoipa::path(get, path = "/api/v1/sessions/{id}/logs", tag = "sessions", params(
    ("id" = String, Path),
    ("after" = Option<u64>, Query, description = "bytes to leave out"),
    ("follow" = Option<bool>, Query, description = "whether to stay until the program ends"),
), responses(
    (status = 200, description = "the bytes; `Tidegate-Offset` is the offset of the first", content_type = "application/octet-stream"),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
    (status = 409, description = "its agent has nothing of it", body = ErrorAnswer),
    (status = 503, description = "its agent is offline", body = ErrorAnswer),
    (status = 504, description = "its agent did not answer", body = ErrorAnswer),
))]
pub(crate) async fn logs(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
    part: Query<Part>,
) -> Result<HttpResponse, Problem> {
    let Part { after, follow } = part.0;
    let opened = context.services.streams.open_any(caller.0, id.0, StreamMode::View).await?;
    let end = viewer::tunnel(&context, &opened, Wanted::Logs { after, follow }).await?;
    let (sender, mut pieces) = mpsc::channel(PIECES);
    let gone = sender.clone();
    // Nothing comes from a reader but its leaving.
    let inbound = stream::once(async move {
        gone.closed().await;
        Err(TransportError::Lost(None))
    });
    viewer::serve(&context, opened.viewing(), end, inbound, Pieces(PollSender::new(sender)));
    let first = timeout(FIRST, pieces.recv()).await.ok().flatten();
    let (offset, first) = match first {
        Some(Piece::Offset(offset)) => (offset, None),
        other => (after, other),
    };
    Ok(HttpResponse::Ok()
        .content_type(ContentType::octet_stream())
        .insert_header((OFFSET, offset.to_string()))
        .streaming(body(first, pieces)))
}

/// Something on its way to the body.
#[derive(Debug)]
enum Piece {
    Offset(u64),
    Bytes(Bytes),
    /// All there is was said.
    End,
}

/// The body. It breaks off where the tunnel did, so that nobody takes half of it for the whole.
fn body(first: Option<Piece>, pieces: mpsc::Receiver<Piece>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold((first, Some(pieces)), |(first, pieces)| async move {
        let mut pieces = pieces?;
        let mut next = first;
        loop {
            let piece = match next.take() {
                Some(piece) => Some(piece),
                None => pieces.recv().await,
            };
            return match piece {
                Some(Piece::Bytes(bytes)) => Some((Ok(bytes), (None, Some(pieces)))),
                Some(Piece::Offset(_)) => continue,
                Some(Piece::End) => None,
                None => Some((Err(io::Error::other("the tunnel was lost")), (None, None))),
            };
        }
    })
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
            Frame::Text(text) => match offset(&text) {
                Some(offset) => Piece::Offset(offset),
                None => return Ok(()),
            },
            Frame::Close(CloseCode::NORMAL, _) => Piece::End,
            Frame::Close(..) => {
                self.0.close();
                return Ok(());
            }
            Frame::Ping(_) | Frame::Pong(_) => return Ok(()),
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

/// The offset that a text frame `{"type":"offset","offset":N}` says.
fn offset(text: &str) -> Option<u64> {
    let frame: serde_json::Value = serde_json::from_str(text).ok()?;
    (frame["type"] == "offset").then(|| frame["offset"].as_u64()).flatten()
}
