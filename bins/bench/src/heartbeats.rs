//! Heartbeats over WebSockets: sent as fast as the control plane reads them, counted when it says they are written.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::{
    fleet::{Socket, heartbeat},
    progress::during,
    stage::Stage,
    stats::rate,
};

/// Tasks that send: each goes round its agents, one heartbeat an agent.
const SENDERS: usize = 4;

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Heartbeats {
    /// Agents that sent.
    pub(crate) agents: usize,
    /// Heartbeats sent.
    pub(crate) sent: u64,
    /// Heartbeats a second, from the first one to the proof that the last one is written.
    pub(crate) per_second: f64,
    /// Rows a second that were written for them: two heartbeats of one agent in one batch are one row.
    pub(crate) rows_per_second: f64,
}

/// Sends from all `sockets` for `length`.
pub(crate) async fn run(stage: &Stage, sockets: Vec<Socket>, length: Duration) -> anyhow::Result<Heartbeats> {
    during("heartbeats", measure(stage, sockets, length)).await
}

async fn measure(stage: &Stage, sockets: Vec<Socket>, length: Duration) -> anyhow::Result<Heartbeats> {
    let agents = sockets.len();
    let before = stage.metric("tidegate_hub_ingest_reports_sum").await?;
    let mut hands: Vec<Vec<Socket>> = (0..SENDERS).map(|_| Vec::new()).collect();
    for (number, socket) in sockets.into_iter().enumerate() {
        hands[number % SENDERS].push(socket);
    }
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for hand in hands {
        senders.spawn(send(hand, started + length));
    }
    let (mut sent, mut kept) = (0, Vec::new());
    while let Some(done) = senders.join_next().await {
        let (count, sockets) = done??;
        sent += count;
        kept.extend(sockets);
    }
    let elapsed = started.elapsed();
    // The sockets stood until here: an agent that leaves is a write of its own.
    let rows = stage.metric("tidegate_hub_ingest_reports_sum").await? - before;
    drop(kept);
    let rows_per_second = rows / elapsed.as_secs_f64();
    Ok(Heartbeats { agents, sent, per_second: rate(sent, elapsed), rows_per_second })
}

async fn send(mut sockets: Vec<Socket>, until: Instant) -> anyhow::Result<(u64, Vec<Socket>)> {
    let (beat, mut sent) = (heartbeat(), 0);
    while Instant::now() < until {
        for socket in &mut sockets {
            socket.send(beat.clone()).await?;
            sent += 1;
        }
    }
    for socket in &mut sockets {
        socket.send(Message::Ping(Bytes::from_static(b"written?"))).await?;
    }
    for socket in &mut sockets {
        written(socket).await?;
    }
    Ok((sent, sockets))
}

/// The control plane answers a ping when everything that was said before it is in the database.
async fn written(socket: &mut Socket) -> anyhow::Result<()> {
    loop {
        match socket.next().await.context("an agent's connection was closed")?? {
            Message::Pong(_) => return Ok(()),
            Message::Close(why) => bail!("an agent's connection was closed: {why:?}"),
            _ => {}
        }
    }
}
