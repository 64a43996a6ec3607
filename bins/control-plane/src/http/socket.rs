//! Between actix's WebSockets and the hub's frames. Both directions are bounded in bytes: actix alone counts messages.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context as Poller, Poll, Waker, ready},
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::StatusCode,
    web::{Bytes, Payload},
};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseReason, Message, ProtocolError, Session};
use futures_util::{Sink, Stream};
use tidegate_hub::{CloseCode, Frame, TransportError};

use super::Problem;

/// Largest message of an agent's control connection.
pub(crate) const AGENT_FRAME: usize = tidegate_protocol::MAX_FRAME_BYTES;
/// Largest message of a tunnel, on either end.
pub(crate) const TUNNEL_FRAME: usize = 1024 * 1024;
/// Bytes that may wait for a socket to take them, before the last message.
const WAITING: usize = 256 * 1024;

/// An upgraded connection: the answer to send, what arrives, what is sent.
pub(crate) type Upgraded = (HttpResponse, Inbound, Outbound);

/// Upgrades a request. `protocols` are the subprotocols known here; the first one asked for is answered.
pub(crate) fn upgrade(
    request: &HttpRequest,
    payload: Payload,
    protocols: &[&str],
    largest: usize,
) -> Result<Upgraded, Problem> {
    let opened = actix_ws::handle_with_protocols(request, payload, protocols);
    let (response, session, messages) = opened.map_err(|_| {
        let message = "this path is a WebSocket, open it as one";
        Problem::new(StatusCode::BAD_REQUEST, "E_NOT_A_WEBSOCKET", message)
    })?;
    let gate = Rc::new(Gate::default());
    let metered = Rc::clone(&gate);
    let response = response.map_body(move |_, body| BoxBody::new(Metered { body, gate: metered }));
    let messages = messages.max_frame_size(largest).aggregate_continuations().max_continuation_size(largest);
    Ok((response, Inbound { messages, over: false }, Outbound { session, gate }))
}

/// What arrives, as frames of the hub. Ends after the first fault.
pub(crate) struct Inbound {
    messages: AggregatedMessageStream,
    over: bool,
}

impl Stream for Inbound {
    type Item = Result<Frame, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let item = match ready!(Pin::new(&mut self.messages).poll_next(cx)) {
            Some(Ok(message)) => Ok(frame(message)),
            Some(Err(error)) => Err(fault(error)),
            None => {
                self.over = true;
                return Poll::Ready(None);
            }
        };
        self.over = item.is_err();
        Poll::Ready(Some(item))
    }
}

fn frame(message: AggregatedMessage) -> Frame {
    match message {
        AggregatedMessage::Text(text) => Frame::Text(text),
        AggregatedMessage::Binary(bytes) => Frame::Binary(bytes),
        AggregatedMessage::Ping(bytes) => Frame::Ping(bytes),
        AggregatedMessage::Pong(bytes) => Frame::Pong(bytes),
        AggregatedMessage::Close(None) => Frame::Close(CloseCode::NO_STATUS, "".into()),
        AggregatedMessage::Close(Some(reason)) => {
            let said = reason.description.unwrap_or_default();
            Frame::Close(CloseCode(reason.code.into()), said.into())
        }
    }
}

fn fault(error: ProtocolError) -> TransportError {
    match error {
        ProtocolError::Overflow => TransportError::TooLarge,
        ProtocolError::Io(error) if error.kind() == io::ErrorKind::InvalidData => TransportError::InvalidUtf8,
        // The library has no kind of its own for a message whose parts are too large together.
        ProtocolError::Io(error) if error.to_string().contains("continuation size") => {
            TransportError::TooLarge
        }
        ProtocolError::Io(error) => TransportError::Lost(Some(error)),
        _ => TransportError::Protocol,
    }
}

/// What is sent. It takes no more while [`WAITING`] bytes wait for the socket.
pub(crate) struct Outbound {
    session: Session,
    gate: Rc<Gate>,
}

/// Nobody is left to send to.
#[derive(Debug)]
pub(crate) struct Gone;

impl Sink<Frame> for Outbound {
    type Error = Gone;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<(), Gone>> {
        if self.gate.is_full(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.session).poll_ready(cx).map_err(|_| Gone)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), Gone> {
        self.gate.add(frame.weight());
        Pin::new(&mut self.session).start_send(message(frame)).map_err(|_| Gone)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.session).poll_flush(cx).map_err(|_| Gone)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Result<(), Gone>> {
        Pin::new(&mut self.session).poll_close(cx).map_err(|_| Gone)
    }
}

fn message(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => Message::Text(text),
        Frame::Binary(bytes) => Message::Binary(bytes),
        Frame::Ping(bytes) => Message::Ping(bytes),
        Frame::Pong(bytes) => Message::Pong(bytes),
        Frame::Close(code, reason) => {
            let description = (!reason.is_empty()).then(|| reason.into_owned());
            Message::Close(Some(CloseReason { code: code.0.into(), description }))
        }
    }
}

/// Counts the bytes between [`Outbound`] and the socket. Both live on one thread.
#[derive(Debug, Default)]
struct Gate {
    waiting: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Gate {
    fn is_full(&self, cx: &Poller<'_>) -> bool {
        let full = self.waiting.get() >= WAITING;
        if full {
            self.waker.replace(Some(cx.waker().clone()));
        }
        full
    }

    fn add(&self, bytes: usize) {
        self.waiting.set(self.waiting.get() + bytes);
    }

    fn drained(&self) {
        self.waiting.set(0);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The answer's body: whenever the socket takes something from it, it takes everything that waits.
struct Metered {
    body: BoxBody,
    gate: Rc<Gate>,
}

impl MessageBody for Metered {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        let next = Pin::new(&mut this.body).poll_next(cx);
        this.gate.drained();
        next
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        // Whoever waits for room learns from the session that nobody is left.
        self.gate.drained();
    }
}
