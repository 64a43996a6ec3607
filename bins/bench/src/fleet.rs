//! Simulated agents on real WebSockets: they acknowledge and complete what they are told, and do nothing.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use tidegate_model::{AgentCapacity, AgentRegistrationRequest, Platform, Secret};
use tidegate_service::{Decision, Operator, Registered, Registration};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use crate::{progress, stage::Stage};

/// Sessions a simulated agent says it holds: no measurement is about full agents.
const ROOM: u32 = 100_000;
/// Agents that are made or connected at one time.
const ABREAST: usize = 16;
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A plain WebSocket.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// An agent that may connect.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    handle: String,
    pub(crate) key: Secret<String>,
}

/// When each session's start arrived at its agent.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<Vec<(String, Instant)>>);

impl Arrivals {
    fn note(&self, session: &str) {
        let now = Instant::now();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((session.to_owned(), now));
    }

    /// What arrived so far.
    pub(crate) fn take(&self) -> Vec<(String, Instant)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a simulated agent tells of what it hears.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ears {
    /// Gets the starts of sessions.
    pub(crate) arrivals: Option<Arc<Arrivals>>,
    /// Gets the ids of tunnels to dial.
    pub(crate) tunnels: Option<mpsc::Sender<String>>,
}

/// Connected agents. Dropping it cuts their connections.
#[derive(Debug)]
pub(crate) struct Fleet {
    tasks: JoinSet<anyhow::Result<Socket>>,
}

/// Registers agents of a region and lets them in.
pub(crate) async fn enlist(
    stage: &Stage,
    prefix: &str,
    region: &str,
    count: u32,
) -> anyhow::Result<Vec<Member>> {
    let bar = progress::bar("agents registered", u64::from(count));
    let made = stream::iter(0..count)
        .map(|number| {
            let bar = bar.clone();
            async move {
                let member = enlist_one(stage, format!("{prefix}-{number:05}"), region).await;
                bar.inc(1);
                member
            }
        })
        .buffer_unordered(ABREAST)
        .try_collect()
        .await;
    bar.finish_and_clear();
    made
}

async fn enlist_one(stage: &Stage, handle: String, region: &str) -> anyhow::Result<Member> {
    let (agents, operator) = (&stage.services.agents, Operator::console());
    let request = AgentRegistrationRequest {
        agent_id: handle.parse().map_err(anyhow::Error::msg)?,
        platform: Platform::Vm,
        region: Some(region.to_owned()),
        capacity: Some(AgentCapacity { max_sessions: ROOM, ..AgentCapacity::default() }),
        metadata: None,
    };
    let presented = Registration { key: Some(stage.bootstrap_key.clone()), claim: None, source: None };
    let Registered::Pending(agent, _) = agents.register(presented, request).await? else {
        bail!("a new agent did not have to wait for approval");
    };
    let (_, key) = agents.decide(&operator, &agent.agent_id, Decision::Approve, true).await?;
    Ok(Member { handle, key: key.context("an approved agent got no key")? })
}

/// Opens a WebSocket of an agent.
pub(crate) async fn dial(
    address: SocketAddr,
    path: &str,
    key: &Secret<String>,
    buffer: usize,
) -> anyhow::Result<Socket> {
    let mut request = format!("ws://{address}{path}").into_client_request()?;
    request.headers_mut().insert("X-Agent-API-Key", HeaderValue::from_str(key.expose())?);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(buffer);
    let (socket, _) =
        client_async_with_config(request, stream, Some(config)).await.context("an agent was refused")?;
    Ok(socket)
}

/// Connects agents: each says hello with nothing to report, and is online when the answer is there.
pub(crate) async fn connect(stage: &Stage, members: &[Member]) -> anyhow::Result<Vec<Socket>> {
    let bar = progress::bar("agents connected", members.len() as u64);
    let all = CancellationToken::new();
    let kept: Vec<JoinHandle<anyhow::Result<Socket>>> = stream::iter(members)
        .map(|member| {
            let (bar, all) = (bar.clone(), all.clone());
            async move {
                let socket = greet(stage, member).await?;
                bar.inc(1);
                // Those that are there already must not fall silent while the others come.
                anyhow::Ok(tokio::spawn(serve(socket, Ears::default(), HEARTBEAT, all)))
            }
        })
        .buffer_unordered(ABREAST)
        .try_collect()
        .await?;
    all.cancel();
    bar.finish_and_clear();
    let mut sockets = Vec::with_capacity(kept.len());
    for socket in kept {
        sockets.push(socket.await??);
    }
    Ok(sockets)
}

async fn greet(stage: &Stage, member: &Member) -> anyhow::Result<Socket> {
    let path = format!("/api/v1/agents/connect?agent_id={}", member.handle);
    // Small: thousands of them stand in this process.
    let mut socket = dial(stage.address, &path, &member.key, 4 * 1024).await?;
    let hello = r#"{"type":"hello","payload":{"protocolVersions":[1],"bootId":"bench","sessions":[]}}"#;
    socket.send(Message::text(hello)).await?;
    while let Some(frame) = socket.next().await {
        if matches!(frame?, Message::Text(text) if text.contains("\"welcome\"")) {
            return Ok(socket);
        }
    }
    bail!("an agent's connection was closed");
}

impl Fleet {
    /// Lets connected agents work.
    pub(crate) fn work(sockets: Vec<Socket>, ears: &Ears) -> Self {
        let mut tasks = JoinSet::new();
        for (number, socket) in sockets.into_iter().enumerate() {
            // Agents that started together do not beat together.
            let phase = HEARTBEAT.mul_f64(crate::stats::real(number as u64 % 100) / 100.0);
            tasks.spawn(serve(socket, ears.clone(), phase, CancellationToken::new()));
        }
        Self { tasks }
    }

    /// Ends the connections. An agent that lost its own before makes the measurement worthless.
    pub(crate) async fn leave(mut self) -> anyhow::Result<()> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended??;
            bail!("a simulated agent's connection ended by itself");
        }
        self.tasks.shutdown().await;
        Ok(())
    }
}

/// As much of a frame as is looked at.
#[derive(Debug, Deserialize)]
struct Heard<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow, default)]
    payload: Payload<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Payload<'a> {
    command_id: Option<&'a str>,
    tunnel_id: Option<&'a str>,
    #[serde(borrow, rename = "payload")]
    order: Option<Inner<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Inner<'a> {
    session_id: Option<&'a str>,
}

/// A heartbeat as existing agents send it.
pub(crate) fn heartbeat() -> Message {
    let capacity = format!(r#"{{"maxSessions":{ROOM},"cpu":"100000 cores","memory":"100Ti"}}"#);
    let payload = format!(r#"{{"status":"online","activeSessions":15,"capacity":{capacity}}}"#);
    Message::text(format!(r#"{{"type":"heartbeat","timestamp":"2026-01-01T00:00:00Z","payload":{payload}}}"#))
}

/// Does what an agent does until `stop`, and gives the socket back.
async fn serve(
    mut socket: Socket,
    ears: Ears,
    phase: Duration,
    stop: CancellationToken,
) -> anyhow::Result<Socket> {
    let mut beats = interval_at(tokio::time::Instant::now() + phase, HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            frame = socket.next() => match frame.context("an agent's connection was closed")?? {
                Message::Text(text) => hear(&mut socket, &ears, &text).await?,
                Message::Close(why) => bail!("an agent's connection was closed: {why:?}"),
                _ => {}
            },
            _ = beats.tick() => socket.send(heartbeat()).await?,
            () = stop.cancelled() => return Ok(socket),
        }
    }
}

async fn hear(socket: &mut Socket, ears: &Ears, text: &str) -> anyhow::Result<()> {
    let heard: Heard<'_> = serde_json::from_str(text)?;
    match heard.kind {
        "command" => {
            let session = heard.payload.order.and_then(|order| order.session_id);
            if let Some((arrivals, session)) = ears.arrivals.as_ref().zip(session) {
                arrivals.note(session);
            }
            let id = heard.payload.command_id.context("a command without an id")?;
            socket
                .feed(Message::text(format!(r#"{{"type":"ack","payload":{{"commandId":"{id}"}}}}"#)))
                .await?;
            socket
                .send(Message::text(format!(r#"{{"type":"complete","payload":{{"commandId":"{id}"}}}}"#)))
                .await?;
        }
        "ping" => socket.send(Message::text(r#"{"type":"pong"}"#)).await?,
        "tunnel_open" => {
            if let Some((tunnels, id)) = ears.tunnels.as_ref().zip(heard.payload.tunnel_id) {
                tunnels.send(id.to_owned()).await?;
            }
        }
        _ => {}
    }
    Ok(())
}
