//! Pipes that are made by the thousand beside somebody else's messages, and what idle sources cost.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    http::{Connection, request},
    pipes::asked,
    progress::during,
    raw,
    stage::Stage,
    stats::{Times, real},
};

/// Sources, and pipes of each: as many as one may have.
const SOURCES: usize = 10;
const EACH: usize = 100;
/// Between two messages of whoever is not to be held up.
const BETWEEN: Duration = Duration::from_millis(5);
/// How long everything may settle before memory is looked at.
const SETTLE: Duration = Duration::from_secs(5);

/// A thousand pipes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Made {
    pub(crate) pipes: usize,
    /// Seconds until all of them were made, their streams included.
    pub(crate) seconds: f64,
    /// Seconds in which a bare client makes as many streams, with a message in each.
    pub(crate) bare: f64,
    /// Milliseconds to list all of them.
    pub(crate) listed: f64,
    /// A message of another organization, p99 in milliseconds: alone, while they were made, while they were listed.
    pub(crate) others: [f64; 3],
}

/// Sources that hold a message and do nothing.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kept {
    pub(crate) sources: usize,
    /// KiB that each costs before it is used: nats-server, control plane.
    pub(crate) unused: [f64; 2],
    /// KiB that each costs once it was used: nats-server, control plane.
    pub(crate) used: [f64; 2],
}

/// Requests that are answered by whoever is free; each must be answered with 201.
async fn answered(stage: &Stage, requests: Vec<Vec<u8>>, connections: u32) -> anyhow::Result<()> {
    chains(stage, requests.into_iter().map(|request| vec![request]).collect(), connections).await
}

/// The same for requests of which one follows the other.
async fn chains(stage: &Stage, requests: Vec<Vec<Vec<u8>>>, connections: u32) -> anyhow::Result<()> {
    let (left, mut tasks) = (Arc::new(Mutex::new(VecDeque::from(requests))), JoinSet::new());
    for _ in 0..connections {
        let (mut connection, left) = (Connection::open(stage.address).await?, Arc::clone(&left));
        tasks.spawn(async move {
            loop {
                let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(next) = next else { return anyhow::Ok(()) };
                for request in next {
                    asked(&mut connection, &request, &[201]).await?;
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn post(path: &str, token: &str, body: &str) -> Vec<u8> {
    request("POST", path, Some(token), body)
}

/// Makes pipes with their streams in one organization, and lists them, while another one sends.
pub(crate) async fn made(
    stage: &Stage,
    (token, other): (&str, &str),
    connections: u32,
    length: Duration,
) -> anyhow::Result<Made> {
    let sources: Vec<String> = (0..SOURCES).map(|number| format!("many-{number}")).collect();
    let create = |handle: &String| post("/api/v1/sources", token, &format!(r#"{{"handle":"{handle}"}}"#));
    answered(stage, sources.iter().map(create).collect(), 1).await?;
    let another = post("/api/v1/sources", other, r#"{"handle":"another"}"#);
    answered(stage, vec![another], 1).await?;
    let client = raw::reference(&stage.nats_url()?, stage.authority()).await?;
    let bare = during("a thousand streams", raw::streams(&client, SOURCES * EACH, connections)).await?;
    drop(client);
    let alone = Beside::start(stage, other).await?;
    sleep(length / 3).await;
    let alone = alone.end().await?;
    let beside = Beside::start(stage, other).await?;
    let began = Instant::now();
    let mut pipes = Vec::new();
    for handle in &sources {
        for number in 0..EACH {
            let path = format!("/api/v1/sources/{handle}/pipes");
            let make = post(&path, token, &format!(r#"{{"name":"pipe-{number}"}}"#));
            // A pipe's stream is made by its first message.
            let path = format!("{path}/pipe-{number}/messages");
            pipes.push(vec![make, post(&path, token, r#"{"payload":"first"}"#)]);
        }
    }
    during("a thousand pipes", chains(stage, pipes, connections)).await?;
    let seconds = began.elapsed().as_secs_f64();
    let beside = beside.end().await?;
    let (listed, listing) = listed(stage, token, other, &sources).await?;
    Ok(Made { pipes: SOURCES * EACH, seconds, bare, listed, others: [alone, beside, listing] })
}

/// The time to list all pipes, the median of several, and what another organization felt of it.
async fn listed(stage: &Stage, token: &str, other: &str, sources: &[String]) -> anyhow::Result<(f64, f64)> {
    let mut connection = Connection::open(stage.address).await?;
    let beside = Beside::start(stage, other).await?;
    let mut times = Vec::new();
    for _ in 0..20 {
        let (began, mut found) = (Instant::now(), 0);
        for handle in sources {
            let list = request("GET", &format!("/api/v1/sources/{handle}/pipes"), Some(token), "");
            let answer = asked(&mut connection, &list, &[200]).await?;
            found += answer["pipes"].as_array().map_or(0, Vec::len);
        }
        times.push(began.elapsed());
        // Each source has its inbox, too.
        ensure!(found == sources.len() * (EACH + 1), "{found} pipes were listed");
    }
    Ok((Times::new(times).percentile(50), beside.end().await?))
}

/// Somebody of another organization who sends all the while.
struct Beside {
    over: CancellationToken,
    sender: tokio::task::JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Beside {
    async fn start(stage: &Stage, token: &str) -> anyhow::Result<Self> {
        let over = CancellationToken::new();
        let path = "/api/v1/sources/another/pipes/inbox/messages";
        let send = post(path, token, r#"{"payload":"beside"}"#);
        let mut connection = Connection::open(stage.address).await?;
        asked(&mut connection, &send, &[201]).await?;
        let until = over.clone();
        let sender = tokio::spawn(async move {
            let mut times = Vec::new();
            while !until.is_cancelled() {
                let began = Instant::now();
                asked(&mut connection, &send, &[201]).await?;
                times.push(began.elapsed());
                sleep(BETWEEN).await;
            }
            Ok(times)
        });
        Ok(Self { over, sender })
    }

    /// The p99 of its messages.
    async fn end(self) -> anyhow::Result<f64> {
        self.over.cancel();
        Ok(Times::new(self.sender.await??).percentile(99))
    }
}

/// Memory of both, in KiB.
fn memory(stage: &Stage) -> anyhow::Result<[u64; 2]> {
    Ok([stage.nats_memory()?, stage.server_memory()?])
}

/// Makes sources in several organizations, because each may promise no more than its bytes, and sends one message to each.
pub(crate) async fn kept(
    stage: &Stage,
    tokens: &[String],
    connections: u32,
    count: usize,
) -> anyhow::Result<Kept> {
    let tokens = &tokens[..tokens.len().min(4)];
    let of = |number: usize| &tokens[number % tokens.len()];
    let used = |handle: &str, token: &str| {
        post(&format!("/api/v1/sources/{handle}/pipes/inbox/messages"), token, r#"{"payload":"once"}"#)
    };
    // Accounts and connections are there before anything is counted.
    for token in tokens {
        let first = [post("/api/v1/sources", token, r#"{"handle":"first"}"#), used("first", token)];
        answered(stage, first.to_vec(), 1).await?;
    }
    sleep(SETTLE).await;
    let before = memory(stage)?;
    let made =
        |number: usize| post("/api/v1/sources", of(number), &format!(r#"{{"handle":"idle-{number}"}}"#));
    let requests = (0..count).map(made).collect();
    during("idle sources", answered(stage, requests, connections)).await?;
    sleep(SETTLE).await;
    let unused = memory(stage)?;
    let requests = (0..count).map(|number| used(&format!("idle-{number}"), of(number))).collect();
    during("a message for each idle source", answered(stage, requests, connections)).await?;
    sleep(SETTLE).await;
    let after = memory(stage)?;
    let each = |from: [u64; 2], to: [u64; 2]| {
        [0, 1].map(|of| real(to[of].saturating_sub(from[of])) / real(count as u64))
    };
    Ok(Kept { sources: count, unused: each(before, unused), used: each(unused, after) })
}
