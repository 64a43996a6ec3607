//! A session's terminal: a WebSocket as a stream of what the session says and a sink of what is typed.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use reqwest::{
    StatusCode, Upgraded,
    header::{
        CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use tidegate_model::{SessionId, StreamMode};
use tidegate_protocol::TerminalFrame;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{Client, Error, call::Call};

/// Largest message taken: a repaint and the scrollback behind it are far smaller.
const MESSAGE: usize = 4 << 20;

/// What a session's terminal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalEvent {
    /// Bytes for the screen.
    Bytes(Bytes),
    /// A control frame: the mode, or the program's end.
    Frame(TerminalFrame),
    /// The stream is over; nothing follows.
    Closed(CloseReason),
}

/// What a viewer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalInput {
    /// Bytes for the program.
    Bytes(Bytes),
    /// A control frame: the window's size.
    Frame(TerminalFrame),
}

/// Why a terminal stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The WebSocket's close code; 1006 where the connection was lost without one.
    pub code: u16,
    /// The server's words.
    pub reason: String,
}

impl CloseReason {
    /// The program ended, or there is nothing more to see.
    pub const NORMAL: u16 = 1000;
    /// The connection was lost without a word.
    pub const LOST: u16 = 1006;

    /// Whether the stream may be opened again: the connection was lost, or either end restarted.
    pub const fn may_reattach(&self) -> bool {
        matches!(self.code, 1001 | Self::LOST | 1011..=1014)
    }
}

/// The terminal of a session. Made by [`Client::terminal`].
pub struct TerminalStream {
    socket: WebSocketStream<Upgraded>,
    over: bool,
}

impl fmt::Debug for TerminalStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalStream").field("over", &self.over).finish_non_exhaustive()
    }
}

impl Client {
    /// `GET sessions/{id}/terminal`, upgraded: opens the session's terminal. Refused with 409 when it does not run, 503
    /// when its agent is offline, 504 when the agent did not answer.
    pub async fn terminal(&self, id: SessionId, mode: StreamMode) -> Result<TerminalStream, Error> {
        let call = Call::get(&["sessions", &id.to_string(), "terminal"])
            .query_if("mode", (mode == StreamMode::View).then_some(mode));
        Ok(TerminalStream { socket: self.socket(call).await?, over: false })
    }

    /// Upgrades a call to a WebSocket.
    pub(crate) async fn socket(&self, call: Call) -> Result<WebSocketStream<Upgraded>, Error> {
        let key = generate_key();
        let key_header = HeaderValue::from_str(&key)
            .map_err(|_| Error::Setting("no key for the WebSocket could be made".to_owned()))?;
        let call = call
            .header(CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(UPGRADE, HeaderValue::from_static("websocket"))
            .header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
            .header(SEC_WEBSOCKET_KEY, key_header)
            .streaming();
        let response = self.send(&call).await?;
        let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if response.status() != StatusCode::SWITCHING_PROTOCOLS
            || accept != Some(derive_accept_key(key.as_bytes()).as_bytes())
        {
            return Err(Error::Protocol("the stream is no WebSocket".to_owned()));
        }
        let upgraded = response.upgrade().await.map_err(|error| self.transport(error))?;
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE)).max_frame_size(Some(MESSAGE));
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
    }
}

impl TerminalStream {
    fn closed(&mut self, code: u16, reason: String) -> Poll<Option<Result<TerminalEvent, Error>>> {
        self.over = true;
        Poll::Ready(Some(Ok(TerminalEvent::Closed(CloseReason { code, reason }))))
    }
}

impl Stream for TerminalStream {
    type Item = Result<TerminalEvent, Error>;

    /// Ends after [`TerminalEvent::Closed`] or an error.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.over {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => {
                    return Poll::Ready(Some(Ok(TerminalEvent::Bytes(bytes))));
                }
                Some(Ok(Message::Text(text))) => {
                    // Frames of a later version are none of ours.
                    if let Some(frame) = TerminalFrame::decode(&text) {
                        return Poll::Ready(Some(Ok(TerminalEvent::Frame(frame))));
                    }
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return self.closed(close.code.into(), close.reason.to_string());
                }
                Some(Ok(Message::Close(None))) => return self.closed(CloseReason::NORMAL, String::new()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) if is_loss(&error) => {
                    return self.closed(CloseReason::LOST, error.to_string());
                }
                Some(Err(error)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => return self.closed(CloseReason::LOST, String::new()),
            }
        }
    }
}

/// Whether the connection was lost, as opposed to misused.
fn is_loss(error: &tungstenite::Error) -> bool {
    use tungstenite::{Error as E, error::ProtocolError};
    matches!(
        error,
        E::Io(_)
            | E::ConnectionClosed
            | E::AlreadyClosed
            | E::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing)
    )
}

impl Sink<TerminalInput> for TerminalStream {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.socket).poll_ready(cx).map_err(Error::from)
    }

    fn start_send(mut self: Pin<&mut Self>, input: TerminalInput) -> Result<(), Error> {
        let message = match input {
            TerminalInput::Bytes(bytes) => Message::Binary(bytes),
            TerminalInput::Frame(frame) => Message::text(frame.encode()),
        };
        Pin::new(&mut self.socket).start_send(message).map_err(Error::from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(Error::from)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(Error::from)
    }
}
