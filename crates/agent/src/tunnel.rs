//! Tunnels: a socket of its own for everybody who watches. Bytes go both ways untouched; the control link is not
//! involved, so losing it ends none.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tidegate_model::StreamMode;
use tidegate_protocol::{TerminalFrame, TunnelFailedMessage, TunnelOpenMessage, TunnelTarget};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
};

use crate::{
    Error, SessionStream, StreamFrame, StreamRequest,
    server::{Dial, Refusal, Socket, address},
    sessions::Sessions,
};

/// Longest message taken from a viewer.
const MAX_INPUT: usize = 512 * 1024;
/// A tunnel's id dies after ten seconds: a dial that takes longer is lost anyway.
const DIAL: Duration = Duration::from_secs(10);
/// How long the other side may take to answer a close.
const CLOSE: Duration = Duration::from_secs(5);

/// Dials a tunnel and carries it to its end; says so if it cannot be made.
pub(crate) async fn run(sessions: Arc<Sessions>, to: &Dial, open: TunnelOpenMessage) {
    let tunnel_id = open.tunnel_id.to_string();
    let stream = match session_stream(&sessions, &open).await {
        Ok(stream) => stream,
        Err(error) => {
            let error = error.chain();
            sessions.outbox.push(TunnelFailedMessage { tunnel_id, error }.into(), None).await;
            return;
        }
    };
    match dial(to, &tunnel_id).await {
        Ok(socket) => carry(socket, stream, open.target, open.mode).await,
        // Whoever waits for the tunnel is told by its own clock: the socket that failed was the way to say so.
        Err(error) => tracing::warn!(tunnel = ?open.tunnel_id, error = error.chain(), "tunnel was not made"),
    }
}

async fn session_stream(sessions: &Sessions, open: &TunnelOpenMessage) -> Result<SessionStream, Error> {
    let request = match open.target {
        TunnelTarget::Terminal => StreamRequest::Terminal(open.mode),
        TunnelTarget::Logs => {
            StreamRequest::Logs { after: open.after.unwrap_or(0), follow: open.follow.unwrap_or(false) }
        }
        TunnelTarget::Stream => StreamRequest::Stream,
        TunnelTarget::Port => {
            let port = open.port.ok_or_else(|| Error::Refused("the tunnel names no port".into()))?;
            StreamRequest::Port(port)
        }
    };
    let current = sessions
        .current(&open.session_id)
        .ok_or_else(|| Error::Refused(format!("session {} is not on this agent", open.session_id)))?;
    if open.generation != 0 && open.generation != current.generation {
        return Err(Error::Refused(format!("session {} has been started anew", open.session_id)));
    }
    sessions.platform.open(&current, request).await
}

async fn dial(to: &Dial, tunnel_id: &str) -> Result<Socket, Error> {
    let Dial { options, keys, .. } = to;
    let mut url = address(&options.server, &format!("agents/tunnels/{tunnel_id}"), ["ws", "wss"])?;
    // Whose key it is: the server need not try it against every agent that is asked to dial.
    url.query_pairs_mut().append_pair("agent_id", options.agent_id.as_str());
    let key = keys.key()?.ok_or_else(|| Error::Link("the agent's key is gone".into()))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_INPUT))
        .max_frame_size(Some(MAX_INPUT))
        .read_buffer_size(32 * 1024)
        .write_buffer_size(0);
    timeout(DIAL, to.socket(&url, &key, config))
        .await
        .unwrap_or_else(|_| Err(Refusal::Unreachable("no answer in time".into())))
        .map_err(|refusal| Error::Link(refusal.to_string()))
}

/// Whether nothing that this viewer sends may reach the session.
fn watches(target: TunnelTarget, mode: StreamMode) -> bool {
    match target {
        TunnelTarget::Logs => true,
        TunnelTarget::Terminal | TunnelTarget::Port => mode == StreamMode::View,
        TunnelTarget::Stream => false,
    }
}

/// Moves frames both ways until the session's side or the viewer's ends.
async fn carry(socket: Socket, stream: SessionStream, target: TunnelTarget, mode: StreamMode) {
    let (mut to_viewer, mut from_viewer) = socket.split();
    let SessionStream { mut output, mut input } = stream;
    let outward = async {
        while let Some(frame) = output.next().await {
            let message = match frame {
                Ok(StreamFrame::Bytes(bytes)) => Message::Binary(bytes),
                Ok(StreamFrame::Text(text)) => Message::text(text),
                Err(_) => return CloseCode::Error,
            };
            if to_viewer.send(message).await.is_err() {
                return CloseCode::Away;
            }
        }
        CloseCode::Normal
    };
    let inward = async {
        while let Some(Ok(message)) = from_viewer.next().await {
            let frame = match message {
                // Input of those who only watch ends here, and again in the shim. What the viewer of a desktop or of a web
                // application says is no input alone: there the control plane takes out what is.
                Message::Binary(_) | Message::Text(_) if watches(target, mode) => continue,
                Message::Binary(bytes) => StreamFrame::Bytes(bytes),
                Message::Text(text) if TerminalFrame::decode(&text).is_some() => {
                    StreamFrame::Text(text.to_string())
                }
                Message::Close(_) => return,
                _ => continue,
            };
            // The session takes no more input; what it still says goes on.
            if input.send(frame).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let code = tokio::select! {
        code = outward => code,
        () = inward => return,
    };
    let close = CloseFrame { code, reason: "".into() };
    let goodbye = async {
        let _ = to_viewer.send(Message::Close(Some(close))).await;
        // Hanging up before the other side has read everything would take the last bytes with it.
        while let Some(Ok(_)) = from_viewer.next().await {}
    };
    let _ = timeout(CLOSE, goodbye).await;
}
