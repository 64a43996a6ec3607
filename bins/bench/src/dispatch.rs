//! How long a command takes to its agent: from the answer of the create to the frame, at half of the greatest load.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval_at},
};

use crate::{
    fleet::Arrivals,
    http::Connection,
    lifecycles::{create, drained},
    progress::during,
    stage::Stage,
    stats::{Times, rate},
};

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dispatch {
    /// Creates a second that were aimed at.
    pub(crate) wanted_per_second: f64,
    /// Creates a second that there were.
    pub(crate) per_second: f64,
    /// From answer to frame, milliseconds; 0 where the frame was first.
    pub(crate) p50: f64,
    /// From answer to frame, milliseconds.
    pub(crate) p99: f64,
    /// From request to frame, milliseconds.
    pub(crate) from_request_p50: f64,
    /// From request to frame, milliseconds.
    pub(crate) from_request_p99: f64,
}

#[derive(Deserialize)]
struct Accepted<'a> {
    #[serde(borrow)]
    session: Session<'a>,
}

#[derive(Deserialize)]
struct Session<'a> {
    id: &'a str,
}

/// A create: its session, when it was asked for and when it was answered.
type Asked = (String, Instant, Instant);

/// Asks for `per_second` sessions, evenly in time, for `length`.
pub(crate) async fn run(
    stage: &Stage,
    tokens: &[String],
    arrivals: &Arrivals,
    load: (u32, f64),
    length: Duration,
) -> anyhow::Result<Dispatch> {
    during("dispatch at half load", measure(stage, tokens, arrivals, load, length)).await
}

async fn measure(
    stage: &Stage,
    tokens: &[String],
    arrivals: &Arrivals,
    (connections, wanted): (u32, f64),
    length: Duration,
) -> anyhow::Result<Dispatch> {
    arrivals.take();
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(tokens.iter().map(|token| create(token)).collect());
    let period = Duration::from_secs_f64(f64::from(connections) / wanted.max(1.0));
    let started = Instant::now();
    let mut askers = JoinSet::new();
    for number in 0..connections {
        let connection = Connection::open(stage.address).await?;
        let phase = period.mul_f64(f64::from(number) / f64::from(connections));
        let requests = Arc::clone(&requests);
        askers.spawn(ask(connection, requests, number as usize, started + phase, period, length));
    }
    let mut asked: Vec<Asked> = Vec::new();
    while let Some(some) = askers.join_next().await {
        asked.extend(some??);
    }
    let elapsed = started.elapsed();
    drained(stage).await?;
    let arrived: HashMap<String, Instant> = arrivals.take().into_iter().rev().collect();
    let (mut from_answer, mut from_request) = (Vec::new(), Vec::new());
    for (session, request, answer) in &asked {
        let frame = arrived.get(session).context("a session's command never arrived")?;
        from_answer.push(frame.saturating_duration_since(*answer));
        from_request.push(frame.saturating_duration_since(*request));
    }
    ensure!(!from_answer.is_empty(), "no session was asked for");
    let (from_answer, from_request) = (Times::new(from_answer), Times::new(from_request));
    Ok(Dispatch {
        wanted_per_second: wanted,
        per_second: rate(asked.len() as u64, elapsed),
        p50: from_answer.percentile(50),
        p99: from_answer.percentile(99),
        from_request_p50: from_request.percentile(50),
        from_request_p99: from_request.percentile(99),
    })
}

async fn ask(
    mut connection: Connection,
    requests: Arc<Vec<Vec<u8>>>,
    first: usize,
    start: Instant,
    period: Duration,
    length: Duration,
) -> anyhow::Result<Vec<Asked>> {
    let mut ticks = interval_at(start.into(), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut asked, mut next) = (Vec::new(), first);
    while start.elapsed() < length {
        ticks.tick().await;
        let request = Instant::now();
        let answer = connection.send(&requests[next % requests.len()]).await?;
        let answered = Instant::now();
        if answer.status != 202 {
            bail!("a create was answered with {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        let accepted: Accepted<'_> = serde_json::from_slice(answer.body)?;
        asked.push((accepted.session.id.to_owned(), request, answered));
        next += 7;
    }
    Ok(asked)
}
