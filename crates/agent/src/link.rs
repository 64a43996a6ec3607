//! The control link: one WebSocket that carries commands one way and reports the other. Nothing of a session hangs on
//! it: it may break at any time and is made anew.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tidegate_model::{AgentReportedStatus, Platform};
use tidegate_protocol::{
    CommandMessage, Decoded, FromAgent, HeartbeatMessage, HelloMessage, MAX_FRAME_BYTES, PROTOCOL_VERSION,
    PongMessage, ToAgent, TunnelOpenMessage,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval, interval_at, timeout},
};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    register::capacity,
    server::{Dial, Refusal, Socket, address},
    sessions::Sessions,
};

/// Heartbeats until `welcome` says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Without anything from the other side for so long it is taken for dead; it pings every 25 s.
const SILENCE: Duration = Duration::from_secs(80);
/// How long one write, or the handshake, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of reports written at once.
const BATCH: usize = 256 * 1024;

/// Why a link ended.
#[derive(Debug)]
pub(crate) enum Parted {
    /// The agent is to go: it was cancelled.
    Cancelled,
    /// The connection broke or never came to be, the sentence says how.
    Lost(String),
    /// The key is not, or no more, this agent's.
    KeyRefused,
    /// The agent is not approved, or no more.
    NotApproved,
}

/// What a link needs.
pub(crate) struct Link {
    pub(crate) dial: Dial,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) boot_id: String,
    pub(crate) platform: Platform,
    /// Commands that arrived.
    pub(crate) commands: mpsc::Sender<CommandMessage>,
    /// Cancelled when the control plane asks the agent to drain and exit.
    pub(crate) asked: CancellationToken,
    /// Tunnels that are wanted.
    pub(crate) tunnels: mpsc::Sender<TunnelOpenMessage>,
}

impl Link {
    /// Connects once and stays until the connection ends. `connected` is told whether it ever began.
    pub(crate) async fn run(
        &self,
        key: &str,
        cancel: &CancellationToken,
        connected: &mut bool,
    ) -> Result<Parted, Error> {
        let mut url = address(&self.dial.options.server, "agents/connect", ["ws", "wss"])?;
        url.query_pairs_mut().append_pair("agent_id", self.dial.options.agent_id.as_str());
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES));
        let dial = timeout(PATIENCE, self.dial.socket(&url, key, config));
        let opened = tokio::select! {
            opened = dial => opened.unwrap_or_else(|_| Err(Refusal::Unreachable("no answer in time".into()))),
            () = cancel.cancelled() => return Ok(Parted::Cancelled),
        };
        let socket = match opened {
            Ok(socket) => socket,
            Err(Refusal::Status(401)) => return Ok(Parted::KeyRefused),
            Err(Refusal::Status(403)) => return Ok(Parted::NotApproved),
            Err(refusal) => return Ok(Parted::Lost(refusal.to_string())),
        };
        *connected = true;
        tracing::info!(server = %self.dial.options.server, "connected");
        let parted = self.talk(socket, cancel).await;
        self.sessions.outbox.send_again();
        Ok(parted)
    }

    async fn talk(&self, socket: Socket, cancel: &CancellationToken) -> Parted {
        let mut talk =
            Talk { link: self, socket, pinged: None, heartbeats: ticks(HEARTBEAT), heard: Instant::now() };
        let hello = HelloMessage {
            protocol_versions: vec![PROTOCOL_VERSION],
            boot_id: self.boot_id.clone(),
            sessions: self.sessions.inventory(),
        };
        if let Err(parted) = talk.say(hello.into()).await {
            return parted;
        }
        // Beside the link: with a full outbox it would wait for the link itself.
        let sessions = Arc::clone(&self.sessions);
        let reporting = tokio::spawn(async move { sessions.report_all().await });
        let parted = talk.run(cancel).await;
        reporting.abort();
        parted
    }

    fn heartbeat(&self) -> FromAgent {
        let status = if self.sessions.is_draining() {
            AgentReportedStatus::Draining
        } else {
            AgentReportedStatus::Online
        };
        let active = self.sessions.records.active_beside("");
        HeartbeatMessage {
            status,
            active_sessions: u32::try_from(active).unwrap_or(u32::MAX),
            capacity: Some(capacity(&self.dial.options)),
        }
        .into()
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// One connection.
struct Talk<'a> {
    link: &'a Link,
    socket: Socket,
    /// The number of the last report before the ping that is on its way.
    pinged: Option<u64>,
    heartbeats: Interval,
    heard: Instant,
}

impl Talk<'_> {
    async fn run(&mut self, cancel: &CancellationToken) -> Parted {
        let mut last_sent = 0;
        loop {
            let step = tokio::select! {
                () = cancel.cancelled() => {
                    let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
                    return Parted::Cancelled;
                }
                message = self.socket.next() => self.hear(message).await,
                (frames, number) = self.link.sessions.outbox.take(BATCH) => {
                    last_sent = number;
                    self.send(frames.into_iter().map(Message::text).collect()).await
                }
                _ = self.heartbeats.tick() => self.beat().await,
            };
            if let Err(parted) = step {
                return parted;
            }
            // A pong proves that everything before its ping was read.
            if self.pinged.is_none() && last_sent > 0 {
                let ping = Message::Ping(Bytes::copy_from_slice(&last_sent.to_be_bytes()));
                self.pinged = Some(last_sent);
                last_sent = 0;
                if let Err(parted) = self.send(vec![ping]).await {
                    return parted;
                }
            }
        }
    }

    async fn beat(&mut self) -> Result<(), Parted> {
        if self.heard.elapsed() > SILENCE {
            return Err(Parted::Lost("nothing was heard for 80 seconds".into()));
        }
        self.say(self.link.heartbeat()).await
    }

    async fn say(&mut self, message: FromAgent) -> Result<(), Parted> {
        let frame = message.encode(self.link.sessions.clock.now());
        self.send(vec![Message::text(frame)]).await
    }

    async fn send(&mut self, messages: Vec<Message>) -> Result<(), Parted> {
        let write = async {
            for message in messages {
                self.socket.feed(message).await?;
            }
            self.socket.flush().await
        };
        match timeout(PATIENCE, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Parted::Lost(error.to_string())),
            Err(_) => Err(Parted::Lost("the control plane does not read".into())),
        }
    }

    async fn hear(
        &mut self,
        message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
    ) -> Result<(), Parted> {
        self.heard = Instant::now();
        match message {
            None => Err(Parted::Lost("the connection was closed".into())),
            Some(Err(error)) => Err(Parted::Lost(error.to_string())),
            Some(Ok(Message::Close(frame))) => {
                let why = frame.map_or_else(String::new, |frame| format!(" with {}", frame.code));
                Err(Parted::Lost(format!("the control plane closed the connection{why}")))
            }
            Some(Ok(Message::Pong(payload))) => {
                self.confirm(&payload).await;
                Ok(())
            }
            Some(Ok(Message::Text(text))) => self.obey(&text).await,
            Some(Ok(_)) => Ok(()),
        }
    }

    async fn confirm(&mut self, payload: &[u8]) {
        let number = payload.try_into().ok().map(u64::from_be_bytes);
        if number.is_some() && number == self.pinged {
            self.pinged = None;
            let ended = self.link.sessions.outbox.confirm(number.unwrap_or(0));
            self.link.sessions.records.end_known(ended).await;
        }
    }

    async fn obey(&mut self, text: &str) -> Result<(), Parted> {
        let message = match ToAgent::decode(text) {
            Ok(Decoded::Message(message)) => message,
            Ok(Decoded::Unknown(kind)) => {
                tracing::debug!(kind, "message of an unknown type is ignored");
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(%error, "message is ignored");
                return Ok(());
            }
        };
        match message {
            ToAgent::Command(command) => {
                if let Err(refused) = self.link.commands.try_send(command) {
                    // Not acknowledged, so it comes again.
                    tracing::warn!(command_id = refused.into_inner().command_id, "too many commands at once");
                }
            }
            ToAgent::Ping(_) => {
                let pong = PongMessage { timestamp: Some(self.link.sessions.clock.now()) };
                return self.say(pong.into()).await;
            }
            ToAgent::Shutdown(shutdown) => {
                tracing::info!(
                    reason = shutdown.reason,
                    "the control plane asks this agent to drain and exit"
                );
                self.link.sessions.drain();
                self.link.asked.cancel();
                return self.say(self.link.heartbeat()).await;
            }
            ToAgent::TunnelOpen(open) => {
                if let Err(refused) = self.link.tunnels.try_send(open) {
                    tracing::warn!(tunnel = ?refused.into_inner().tunnel_id, "too many tunnels at once");
                }
            }
            ToAgent::Welcome(welcome) => {
                let period = Duration::from_secs(welcome.heartbeat_seconds.clamp(1, 60).into());
                self.heartbeats = interval_at(Instant::now() + period, period);
                self.heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
                tracing::debug!(epoch = welcome.epoch, "welcome");
            }
        }
        Ok(())
    }
}
