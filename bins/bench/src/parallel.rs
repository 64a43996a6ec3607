//! Many streams on one agent: what the others feel of a viewer who takes nothing, what an open stream costs, and how soon
//! it is gone when its viewer is.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use crate::{
    desktop::Desktop,
    memory::Resident,
    progress::during,
    stage::Stage,
    stats::{Times, real},
    viewer::{self, Served},
};

/// Streams at one time, each of a session of its own.
const STREAMS: usize = 24;
/// Between two pixels of one stream.
const BETWEEN: Duration = Duration::from_millis(50);
/// Large pictures that the stalled viewer asked for and does not take.
const TURNED_AWAY: usize = 64;
/// Streams of each session where their memory is looked at.
const EACH: usize = 8;
/// How long everything may settle before memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// Longest wait until closed streams are gone.
const GONE: Duration = Duration::from_mins(1);

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Parallel {
    /// Streams at one time.
    pub(crate) streams: usize,
    /// The others' pixels while nobody is stalled, milliseconds: p50 and p99.
    pub(crate) alone: [f64; 2],
    /// The others' pixels beside a stalled viewer, milliseconds: p50 and p99.
    pub(crate) beside: [f64; 2],
    /// Streams that were open where their memory was looked at.
    pub(crate) open: usize,
    /// KiB of the control plane for each of them.
    pub(crate) server_each: f64,
    /// KiB of the agent for each of them.
    pub(crate) agent_each: f64,
    /// Seconds until all of them were gone after their viewers had closed them.
    pub(crate) gone_after: f64,
}

/// Measures it on the real agent, which runs.
pub(crate) async fn run(stage: &Stage, token: &str, length: Duration) -> anyhow::Result<Parallel> {
    let sessions = during("sessions that serve", async {
        try_join_all((0..STREAMS).map(|_| viewer::served(stage, token))).await
    })
    .await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    // In turns: what the machine gives may change meanwhile.
    for _ in 0..2 {
        let some = during("parallel streams", beat(stage, token, &sessions, false, length / 2)).await?;
        alone.extend(some);
        let some = during("beside a stalled one", beat(stage, token, &sessions, true, length / 2)).await?;
        beside.extend(some);
    }
    let (alone, beside) = (Times::new(alone), Times::new(beside));
    let (open, each) = during("memory of open streams", memory(stage, token, &sessions)).await?;
    let gone_after = during("closed streams", gone(stage)).await?;
    for session in &sessions {
        viewer::end(stage, token, &session.id).await?;
    }
    Ok(Parallel {
        streams: STREAMS,
        alone: [alone.percentile(50), alone.percentile(99)],
        beside: [beside.percentile(50), beside.percentile(99)],
        open,
        server_each: each[0],
        agent_each: each[1],
        gone_after,
    })
}

async fn watch(stage: &Stage, token: &str, session: &Served) -> anyhow::Result<Desktop> {
    Desktop::greet(viewer::watch(stage, token, &session.id, "vnc").await?).await
}

/// Times of all streams but the last one, whose viewer may be stalled.
async fn beat(
    stage: &Stage,
    token: &str,
    sessions: &[Served],
    stalled: bool,
    length: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let mut desktops = Vec::new();
    for session in sessions {
        desktops.push(watch(stage, token, session).await?);
    }
    let mut last = desktops.pop();
    if let Some(last) = last.as_mut().filter(|_| stalled) {
        last.turn_away(TURNED_AWAY).await?;
        // Until everything between is full.
        sleep(Duration::from_secs(1)).await;
    }
    let started = Instant::now();
    let others = desktops.into_iter().chain(last.take_if(|_| !stalled)).enumerate();
    let others = others.map(async |(number, mut desktop)| {
        let phase = BETWEEN.mul_f64(real(number as u64) / real(sessions.len() as u64));
        let mut ticks = interval_at((started + phase).into(), BETWEEN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut times = Vec::new();
        while started.elapsed() < length {
            ticks.tick().await;
            times.push(desktop.pixel().await?);
        }
        anyhow::Ok((number, times))
    });
    let times = try_join_all(others).await?;
    // Only now: until here the stalled one stood.
    drop(last);
    let same = times.into_iter().filter(|(number, _)| number + 1 < sessions.len());
    Ok(same.flat_map(|(_, times)| times).collect())
}

/// KiB of control plane and agent for each open stream, and how many there were.
async fn memory(stage: &Stage, token: &str, sessions: &[Served]) -> anyhow::Result<(usize, [f64; 2])> {
    gone(stage).await?;
    sleep(SETTLE).await;
    let before = Resident::now(stage)?;
    let mut desktops = Vec::new();
    for session in sessions {
        for _ in 0..EACH {
            desktops.push(watch(stage, token, session).await?);
        }
    }
    sleep(SETTLE).await;
    let grown = Resident::now(stage)?.beyond(before);
    let count = real(desktops.len() as u64);
    Ok((desktops.len(), [real(grown.server) / count, real(grown.agent) / count]))
}

/// Seconds until no stream is open.
async fn gone(stage: &Stage) -> anyhow::Result<f64> {
    let started = Instant::now();
    while stage.metric("tidegate_hub_tunnels_open").await? > 0.5 {
        ensure!(started.elapsed() < GONE, "streams are still open after {GONE:?}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(started.elapsed().as_secs_f64())
}
