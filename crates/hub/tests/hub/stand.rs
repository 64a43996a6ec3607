//! A running hub on a database of its own, and the agent's end of connections without a socket.

use std::time::Duration;

use futures_util::stream;
use serde_json::{Value, json};
use tidegate_hub::{CloseReason, Frame, Hub, Options, TransportError};
use tidegate_model::{AgentHandle, Session};
use tidegate_protocol::{CommandMessage, Decoded, ToAgent};
use tidegate_service::AgentIdentity;
use tidegate_test_support::{DEADLINE, TestDb, TestOrg, eventually, new_key_of};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, PollSender};

/// A hub that runs.
pub(crate) struct Stand {
    pub(crate) test: TestDb,
    pub(crate) hub: Hub,
    pub(crate) org: TestOrg,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), tidegate_hub::Error>>,
}

impl Stand {
    /// With the defaults, but without a grace for `hello`: agents of seed A never say it.
    pub(crate) async fn new() -> Self {
        Self::with(Options { hello_grace: Duration::ZERO, ..Options::default() }).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let clock = test.manual_clock().clone();
        let hub = Hub::new(test.services().links.clone(), options, clock);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (hub, shutdown) = (hub.clone(), shutdown.clone());
            async move { hub.run(shutdown).await }
        });
        Self { test, hub, org, shutdown, running }
    }

    /// An agent that was let in and proved who it is.
    pub(crate) async fn agent(&self, handle: &str) -> AgentIdentity {
        let services = self.test.services();
        let key = new_key_of(services, handle, 10).await;
        let handle: AgentHandle = handle.parse().unwrap();
        services.agents.authenticate(&handle, Some(&key), None).await.unwrap()
    }

    /// A connection of this agent; its first answer says that it counts.
    pub(crate) async fn connect(&self, identity: &AgentIdentity) -> Wire {
        let mut wire = self.dial(identity);
        wire.settle().await;
        wire
    }

    /// A connection of this agent, whatever becomes of it.
    pub(crate) fn dial(&self, identity: &AgentIdentity) -> Wire {
        let (say, heard) = mpsc::channel(WAITING);
        let (outbound, hear) = mpsc::channel(WAITING);
        let inbound = stream::unfold(heard, async |mut heard: mpsc::Receiver<_>| {
            heard.recv().await.map(|frame| (frame, heard))
        });
        let (hub, identity) = (self.hub.clone(), identity.clone());
        let serving = async move { hub.serve_agent(identity, inbound, PollSender::new(outbound)).await };
        Wire { say, hear, serving: tokio::spawn(serving) }
    }

    /// A session somebody asks for.
    pub(crate) async fn ask(&self) -> Session {
        self.test.pending_session(&self.org.admin).await
    }

    /// Where a session stands.
    pub(crate) async fn state(&self, session: &Session) -> &'static str {
        let scope = self.org.admin.org().unwrap();
        self.test.services().sessions.get(scope, session.id).await.unwrap().state.as_str()
    }

    /// Waits until a session runs.
    pub(crate) async fn until_running(&self, session: &Session) {
        eventually("the session runs", async || self.state(session).await == "running").await;
    }
}

/// Frames that wait at either end.
const WAITING: usize = 64;

/// The agent's end of a connection. Dropping it cuts the connection.
pub(crate) struct Wire {
    say: mpsc::Sender<Result<Frame, TransportError>>,
    hear: mpsc::Receiver<Frame>,
    serving: JoinHandle<CloseReason>,
}

impl Wire {
    /// What the transport hands in.
    pub(crate) async fn frame(&self, frame: Result<Frame, TransportError>) {
        // Nobody listens to a connection that is closed.
        let _ = timeout(DEADLINE, self.say.send(frame)).await.expect("the hub reads");
    }

    /// A message as seed A's agent writes it.
    pub(crate) async fn say(&self, kind: &str, payload: Value) {
        let message = json!({"type": kind, "timestamp": "2026-01-01T00:00:00.000Z", "payload": payload});
        self.text(&message.to_string()).await;
    }

    pub(crate) async fn text(&self, text: &str) {
        self.frame(Ok(Frame::Text(text.into()))).await;
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Frame {
        timeout(DEADLINE, self.hear.recv()).await.expect("the hub writes").expect("it is connected")
    }

    /// Whether nothing waits to be read.
    pub(crate) fn is_quiet(&self) -> bool {
        self.hear.is_empty()
    }

    /// The next frame, which is a message.
    pub(crate) async fn message(&mut self) -> ToAgent {
        match self.next().await {
            Frame::Text(text) => match ToAgent::decode(&text).unwrap() {
                Decoded::Message(message) => message,
                Decoded::Unknown(kind) => panic!("{kind} is no message of ours"),
            },
            other => panic!("{other:?} is no message"),
        }
    }

    /// The next frame, which is a command.
    pub(crate) async fn command(&mut self) -> CommandMessage {
        match self.message().await {
            ToAgent::Command(command) => command,
            other => panic!("{other:?} is no command"),
        }
    }

    pub(crate) async fn ping(&self) {
        self.frame(Ok(Frame::Ping("all written?".into()))).await;
    }

    pub(crate) async fn pong(&mut self) {
        assert_eq!(self.next().await, Frame::Pong("all written?".into()));
    }

    /// Waits until everything said so far is written, as a ping's answer promises.
    pub(crate) async fn settle(&mut self) {
        self.ping().await;
        self.pong().await;
    }

    /// Carries a command out, as seed A's agent does.
    pub(crate) async fn carry_out(&self, command: &CommandMessage) {
        self.say("ack", json!({"commandId": command.command_id})).await;
        self.start(command).await;
        self.say("complete", json!({"commandId": command.command_id, "result": {}})).await;
    }

    /// Says that a command's session runs.
    pub(crate) async fn start(&self, command: &CommandMessage) {
        let session = &command.payload["sessionId"];
        let status = json!({"sessionId": session, "state": "running", "vncReady": true, "vncPort": 5901});
        self.say("status", status).await;
    }

    /// Waits for the end: why it came, and the code the agent read last.
    pub(crate) async fn end(mut self) -> (CloseReason, Option<u16>) {
        let drained = async {
            let mut code = None;
            while let Some(frame) = self.hear.recv().await {
                if let Frame::Close(said, _) = frame {
                    code = Some(said.0);
                }
            }
            (self.serving.await.unwrap(), code)
        };
        timeout(DEADLINE, drained).await.expect("the connection ends")
    }
}
