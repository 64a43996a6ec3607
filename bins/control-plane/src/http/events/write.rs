//! The two ways a client is written to: server-sent events, and the frames of a WebSocket.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context as Poller, Poll},
};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::{Sink, SinkExt, Stream, StreamExt, stream};
use serde_json::json;
use tidegate_hub::{CloseCode, Frame};
use tidegate_model::{Event, EventId};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::pump::{Client, Ending};
use crate::http::socket::{Inbound, Outbound};

/// The media type of server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";
/// Pieces between the stream and the socket. One holds what is read at a time, which is bounded.
const PIECES: usize = 2;
/// Events in one piece at most: some 30 KiB.
const TOGETHER: usize = 64;
/// Beats that a WebSocket's client may leave unanswered.
const UNANSWERED: u32 = 2;

/// A client of server-sent events.
pub(super) struct Lines {
    pieces: PollSender<Bytes>,
    gone: mpsc::Sender<Bytes>,
    said: Option<EventId>,
}

impl Lines {
    /// The client, and the answer's body, which ends when the client is dropped.
    pub(super) fn new() -> (Self, impl Stream<Item = Result<Bytes, Infallible>>) {
        let (sender, receiver) = mpsc::channel(PIECES);
        let body = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (Ok(piece), receiver))
        });
        (Self { gone: sender.clone(), pieces: PollSender::new(sender), said: None }, body)
    }
}

impl Client for Lines {
    type Written = Bytes;

    fn events(&self, events: &[Event]) -> Vec<Bytes> {
        events.chunks(TOGETHER).map(|events| events.iter().map(block).collect::<String>().into()).collect()
    }

    fn beat(&mut self, place: EventId) -> Vec<Bytes> {
        let first = if self.said.is_none() { "retry: 2000\n" } else { "" };
        let piece = if self.said == Some(place) {
            ":\n\n".to_owned()
        } else {
            // An id without data is remembered by the client, and is no event.
            format!("{first}:\nid: {place}\n\n")
        };
        self.said = Some(place);
        vec![piece.into()]
    }

    fn ending(&self, ending: Ending) -> Vec<Bytes> {
        let sentence = ending.sentence();
        if sentence.is_empty() { Vec::new() } else { vec![format!(": {sentence}\n\n").into()] }
    }

    async fn heard(&mut self) -> Option<Vec<Bytes>> {
        // Nothing comes from a reader but its leaving.
        self.gone.closed().await;
        None
    }

    fn is_there(&self) -> bool {
        true
    }
}

/// One event in the form of a server-sent event.
fn block(event: &Event) -> String {
    // JSON has no line breaks of its own.
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.change.as_str())
}

impl Sink<Bytes> for Lines {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        self.pieces.poll_reserve(cx).map_err(io::Error::other)
    }

    fn start_send(mut self: Pin<&mut Self>, piece: Bytes) -> io::Result<()> {
        self.pieces.send_item(piece).map_err(io::Error::other)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        self.pieces.close();
        Poll::Ready(Ok(()))
    }
}

/// A client at a WebSocket.
pub(super) struct Frames {
    outbound: Outbound,
    inbound: Inbound,
    said: Option<EventId>,
    unanswered: u32,
}

impl Frames {
    /// A client at an upgraded connection.
    pub(super) fn new(outbound: Outbound, inbound: Inbound) -> Self {
        Self { outbound, inbound, said: None, unanswered: 0 }
    }
}

impl Client for Frames {
    type Written = Frame;

    fn events(&self, events: &[Event]) -> Vec<Frame> {
        let text = |event| Frame::Text(ByteString::from(serde_json::to_string(event).unwrap_or_default()));
        events.iter().map(text).collect()
    }

    fn beat(&mut self, place: EventId) -> Vec<Frame> {
        self.unanswered += 1;
        let mut frames = vec![Frame::Ping(Bytes::new())];
        if self.said != Some(place) {
            let text = json!({"kind": "position", "id": place}).to_string();
            frames.insert(0, Frame::Text(text.into()));
        }
        self.said = Some(place);
        frames
    }

    fn ending(&self, ending: Ending) -> Vec<Frame> {
        let code = match ending {
            Ending::Left => CloseCode::NORMAL,
            Ending::LoginEnded | Ending::Stalled => CloseCode::POLICY,
            Ending::Shutdown => CloseCode::RESTART,
        };
        vec![Frame::Close(code, ending.sentence().into())]
    }

    async fn heard(&mut self) -> Option<Vec<Frame>> {
        let frame = self.inbound.next().await?.ok()?;
        self.unanswered = 0;
        match frame {
            Frame::Ping(bytes) => Some(vec![Frame::Pong(bytes)]),
            Frame::Close(..) => None,
            // A client has nothing to say here.
            Frame::Text(_) | Frame::Binary(_) | Frame::Pong(_) => Some(Vec::new()),
        }
    }

    fn is_there(&self) -> bool {
        self.unanswered < UNANSWERED
    }
}

impl Sink<Frame> for Frames {
    type Error = crate::http::socket::Gone;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<(), Self::Error>> {
        self.outbound.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), Self::Error> {
        self.outbound.start_send_unpin(frame)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<(), Self::Error>> {
        self.outbound.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<(), Self::Error>> {
        self.outbound.poll_close_unpin(cx)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::{Change, Reset};

    use super::*;

    fn text(pieces: &[Bytes]) -> String {
        pieces.iter().map(|piece| std::str::from_utf8(piece).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_sign_of_life_says_the_place_where_it_is_another_one() {
        let (mut lines, _body) = Lines::new();
        assert_eq!(text(&lines.beat(EventId::new(5, 1))), "retry: 2000\n:\nid: 5-1\n\n");
        assert_eq!(text(&lines.beat(EventId::new(5, 1))), ":\n\n");
        assert_eq!(text(&lines.beat(EventId::new(6, 2))), ":\nid: 6-2\n\n");
    }

    #[tokio::test]
    async fn an_event_is_one_block_whatever_its_words_are() {
        let change = Change::Reset(Reset { reason: "two\nlines\r\n\nid: 9-9".into() });
        let event = Event { id: EventId::new(7, 3), at: chrono::DateTime::UNIX_EPOCH, change };
        let (lines, _body) = Lines::new();
        let block = text(&lines.events(std::slice::from_ref(&event)));
        let said: Vec<&str> = block.lines().collect();
        assert_eq!((said.len(), said[0], said[1], said[3]), (4, "id: 7-3", "event: reset", ""));
        let data = said[2].strip_prefix("data: ").unwrap();
        assert_eq!(serde_json::from_str::<Event>(data).unwrap(), event);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_takes_two_pieces_and_no_more() {
        let (mut lines, body) = Lines::new();
        let mut sent = 0;
        while let Some(Ok(())) = futures_util::FutureExt::now_or_never(lines.send(Bytes::from_static(b"x"))) {
            sent += 1;
        }
        assert_eq!(sent, PIECES);
        drop(body);
        assert!(lines.heard().await.is_none(), "it left");
        lines.send(Bytes::from_static(b"x")).await.unwrap_err();
    }
}
