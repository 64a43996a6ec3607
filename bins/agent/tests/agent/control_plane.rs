//! A control plane in the test's hands: it accepts, remembers what it heard, and says what it is told.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use tidegate_model::{CommandAction, SessionState, StreamMode};
use tidegate_protocol::{
    CommandMessage, Decoded, FromAgent, StatusMessage, TerminalFrame, ToAgent, TunnelId, TunnelOpenMessage,
    TunnelTarget, WelcomeMessage,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

use crate::support::{ends_with_text, soon};

/// Listens for one agent.
pub(crate) struct ControlPlane {
    listener: TcpListener,
}

impl ControlPlane {
    pub(crate) async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection and the head of its request.
    async fn accept(&self) -> (TcpStream, String) {
        let (stream, _) = soon("a connection", self.listener.accept()).await.unwrap();
        let mut head = vec![0; 64 * 1024];
        let length = soon("a request", async {
            loop {
                let length = stream.peek(&mut head).await.unwrap();
                if head[..length].windows(4).any(|window| window == b"\r\n\r\n") {
                    break length;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        (stream, String::from_utf8_lossy(&head[..length]).into_owned())
    }

    /// The next connection as an agent's link, after its hello. Those of an agent that has gone meanwhile are passed over.
    pub(crate) async fn link(&self) -> Link {
        loop {
            let (stream, head) = self.accept().await;
            assert!(head.starts_with("GET /api/v1/agents/connect?agent_id=agent-1 "), "{head}");
            assert!(head.to_lowercase().contains(&format!("x-agent-api-key: {}", "ab".repeat(32))), "{head}");
            let Ok(socket) = accept_async(stream).await else { continue };
            let mut link = Link { socket, heard: VecDeque::new() };
            let Some(hello @ FromAgent::Hello(_)) = soon("hello", link.hear()).await else { continue };
            let welcome = WelcomeMessage { protocol_version: 1, epoch: 1, heartbeat_seconds: 1 };
            if link.try_say(welcome.into()).await.is_ok() {
                link.heard.push_front(hello);
                return link;
            }
        }
    }

    /// The next connection as a tunnel.
    pub(crate) async fn tunnel(&self) -> Tunnel {
        let (stream, head) = self.accept().await;
        assert!(head.starts_with("GET /api/v1/agents/tunnels/"), "{head}");
        Tunnel { socket: accept_async(stream).await.unwrap() }
    }

    /// Answers the next connection, a plain request, and gives back what it said in full.
    pub(crate) async fn answer(&self, status: u16, body: &Value) -> String {
        let (mut stream, head) = self.accept().await;
        let lower = head.to_lowercase();
        let length = lower
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        let start = head.find("\r\n\r\n").unwrap() + 4;
        let mut request = vec![0; start + length];
        soon("a body", stream.read_exact(&mut request)).await.unwrap();
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(request).unwrap()
    }
}

/// One connected agent.
pub(crate) struct Link {
    socket: WebSocketStream<TcpStream>,
    heard: VecDeque<FromAgent>,
}

impl Link {
    pub(crate) async fn say(&mut self, message: ToAgent) {
        self.try_say(message).await.unwrap();
    }

    async fn try_say(&mut self, message: ToAgent) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        self.socket.send(Message::text(message.encode(chrono::DateTime::UNIX_EPOCH))).await
    }

    /// Sends a command for a session.
    pub(crate) async fn command(&mut self, id: &str, action: CommandAction, payload: Value) {
        let Value::Object(payload) = payload else { panic!("a payload is an object") };
        self.say(CommandMessage { command_id: id.into(), action, payload }.into()).await;
    }

    /// The next message; `None` when the link is closed.
    async fn hear(&mut self) -> Option<FromAgent> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => match FromAgent::decode(&text).unwrap() {
                    Decoded::Message(message) => return Some(message),
                    Decoded::Unknown(kind) => panic!("unknown message {kind}"),
                },
                Message::Ping(_) => self.socket.flush().await.ok()?,
                _ => {}
            }
        }
    }

    /// The first message that fits; the others stay for later.
    pub(crate) async fn wait_for(&mut self, what: &str, fits: impl Fn(&FromAgent) -> bool) -> FromAgent {
        if let Some(index) = self.heard.iter().position(&fits) {
            return self.heard.remove(index).unwrap();
        }
        soon(what, async {
            loop {
                let message = self.hear().await.expect("the link is open");
                if fits(&message) {
                    return message;
                }
                self.heard.push_back(message);
            }
        })
        .await
    }

    /// Waits for a status of a session.
    pub(crate) async fn status(&mut self, session: &str, state: SessionState) -> StatusMessage {
        let fits = |message: &FromAgent| matches!(message, FromAgent::Status(status) if status.session_id == session && status.state == state);
        let FromAgent::Status(status) = self.wait_for(&format!("{session} to be {state}"), fits).await else {
            unreachable!()
        };
        status
    }

    /// Waits until a command completed.
    pub(crate) async fn completed(&mut self, id: &str) -> Map<String, Value> {
        let fits = |message: &FromAgent| match message {
            FromAgent::Complete(complete) => complete.command_id == id,
            FromAgent::Failed(failed) => failed.command_id == id,
            _ => false,
        };
        match self.wait_for(&format!("the end of {id}"), fits).await {
            FromAgent::Complete(complete) => complete.result.unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a command failed, and why.
    pub(crate) async fn failed(&mut self, id: &str) -> String {
        let fits =
            |message: &FromAgent| matches!(message, FromAgent::Failed(failed) if failed.command_id == id);
        let FromAgent::Failed(failed) = self.wait_for(&format!("{id} to fail"), fits).await else {
            unreachable!()
        };
        failed.error
    }

    /// Starts a session that runs a shell script, and waits until it runs.
    pub(crate) async fn start(&mut self, session: &str, script: &str) {
        self.command(
            &format!("cmd-start-{session}"),
            CommandAction::StartSession,
            start_payload(session, script),
        )
        .await;
        self.completed(&format!("cmd-start-{session}")).await;
    }

    /// Asks for a tunnel.
    pub(crate) async fn open_tunnel(&mut self, session: &str, target: TunnelTarget, mode: StreamMode) {
        let open = TunnelOpenMessage {
            tunnel_id: TunnelId::from_random([7; 16]),
            session_id: session.into(),
            generation: 1,
            target,
            port: None,
            mode,
            after: None,
            follow: Some(true),
        };
        self.say(open.into()).await;
    }
}

/// A start command's payload.
pub(crate) fn start_payload(session: &str, script: &str) -> Value {
    json!({
        "sessionId": session, "user": "alice", "userId": "user-1", "orgId": "org-1", "generation": 1,
        "template": "command", "command": ["sh", "-c", script], "persistentHome": false,
        "resources": {"cpu": "1000m", "memory": "256Mi"}, "environment": {"GREETING": "hello"},
    })
}

/// One dialled tunnel.
pub(crate) struct Tunnel {
    socket: WebSocketStream<TcpStream>,
}

impl Tunnel {
    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next frame that is no ping.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match soon("a frame of the tunnel", self.socket.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return other.and_then(Result::ok),
            }
        }
    }

    /// Reads until the bytes hold this text.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while !ends_with_text(&seen, text) {
            match self.next().await {
                Some(Message::Binary(bytes)) => seen.extend_from_slice(&bytes),
                Some(Message::Text(_)) => {}
                other => panic!("{other:?} before {text:?}, after {:?}", String::from_utf8_lossy(&seen)),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads to the end: bytes and terminal frames.
    pub(crate) async fn read_all(&mut self) -> (Vec<u8>, Vec<TerminalFrame>) {
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        loop {
            match self.next().await {
                Some(Message::Binary(more)) => bytes.extend_from_slice(&more),
                Some(Message::Text(text)) => frames.push(TerminalFrame::decode(&text).unwrap()),
                Some(Message::Close(frame)) => {
                    assert_eq!(u16::from(frame.unwrap().code), 1000);
                    return (bytes, frames);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
