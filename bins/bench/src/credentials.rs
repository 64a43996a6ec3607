//! Credentials: API keys that are looked up, wrong keys by the thousand, and logins beside everything else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    http::{Connection, request},
    progress::during,
    stage::Stage,
    stats::{Times, rate, real},
};

/// Connections with a wrong key at one time.
const WRONG: usize = 1_000;
/// Wrong keys each of them tries.
const TRIES: usize = 20;
/// Connections that log in at one time.
const LOGINS: usize = 8;
/// Time between two requests of whoever looks how long the others wait.
const PROBE: Duration = Duration::from_millis(5);
/// What needs a credential and little else.
pub(crate) const ASKED: &str = "/api/v1/me/permissions";

/// API keys, each a request of its own on a kept connection.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Keys {
    /// Requests answered a second.
    pub(crate) per_second: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// KiB of the control plane before the wrong keys, their connections included.
    pub(crate) memory_before: u64,
    /// The most KiB seen while they were tried.
    pub(crate) memory_during: u64,
    /// KiB afterwards.
    pub(crate) memory_after: u64,
    /// Wrong keys that were answered, all with 401 or 429.
    pub(crate) wrong: u64,
}

/// Logins with a password, and what others feel of them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Logins {
    /// Logins a second.
    pub(crate) per_second: f64,
    /// Another request's p99 without them, milliseconds.
    pub(crate) p99_alone: f64,
    /// Another request's p99 beside them, milliseconds.
    pub(crate) p99_beside: f64,
}

/// The first page of many users.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Users {
    /// How many there are.
    pub(crate) count: u32,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
}

/// Fills the table of users by SQL, and asks for its first page as an admin of the platform.
pub(crate) async fn users(stage: &Stage, count: u32, length: Duration) -> anyhow::Result<Users> {
    let token = stage.admin().await?;
    let fill = format!(
        "INSERT INTO users (id, username, email, full_name, role, provider, active, created_at, updated_at)
         SELECT tidegate_uuid_v7(clock_timestamp()), 'many-' || n, 'many-' || n || '@example.com', 'One of many', 'user', 'local', true,
             clock_timestamp(), clock_timestamp() FROM generate_series(1, {count}) n"
    );
    during("many users", async {
        stage.sql(&fill).await?;
        stage.sql("VACUUM (ANALYZE) users").await
    })
    .await?;
    let page = request("GET", "/api/v1/admin/users?limit=50", Some(&token), "");
    let times = during("pages of users", probed(stage, &page, length)).await?;
    Ok(Users { count, p50: times.percentile(50), p99: times.percentile(99) })
}

/// One key for each token, and what comes of using them, rightly and wrongly.
pub(crate) async fn keys(
    stage: &Stage,
    tokens: &[String],
    connections: u32,
    length: Duration,
) -> anyhow::Result<Keys> {
    let keys = during("API keys are made", mint(stage, tokens)).await?;
    let requests: Arc<Vec<Vec<u8>>> =
        Arc::new(keys.iter().map(|key| request("GET", ASKED, Some(key), "")).collect());
    let (count, times, took) = during("API keys", used(stage, &requests, connections, length)).await?;
    let (wrong, memory_before, memory_during) = during("wrong keys", guessed(stage, &keys[0])).await?;
    let memory_after = stage.server_memory()?;
    Ok(Keys {
        per_second: rate(count, took),
        p50: times.percentile(50),
        p99: times.percentile(99),
        memory_before,
        memory_during,
        memory_after,
        wrong,
    })
}

/// Makes a key with each token.
pub(crate) async fn mint(stage: &Stage, tokens: &[String]) -> anyhow::Result<Vec<String>> {
    let (mut keys, mut connection) = (Vec::new(), Connection::open(stage.address).await?);
    for (number, token) in tokens.iter().enumerate() {
        let path = format!("/api/v1/organizations/org-{number:04}/keys");
        let answer = connection.send(&request("POST", &path, Some(token), r#"{"label":"bench"}"#)).await?;
        ensure!(answer.status == 201, "a key was answered with {}", answer.status);
        let made: serde_json::Value = serde_json::from_slice(answer.body)?;
        keys.push(made["plaintext"].as_str().context("a key without its secret")?.to_owned());
    }
    Ok(keys)
}

/// Requests on so many connections for so long, each answered with 200: how many, their times, and how long it took.
pub(crate) async fn used(
    stage: &Stage,
    requests: &Arc<Vec<Vec<u8>>>,
    connections: u32,
    length: Duration,
) -> anyhow::Result<(u64, Times, Duration)> {
    let (started, mut askers) = (Instant::now(), JoinSet::new());
    for number in 0..connections as usize {
        let (mut connection, requests) = (Connection::open(stage.address).await?, Arc::clone(requests));
        askers.spawn(async move {
            let mut times = Vec::new();
            for request in requests.iter().cycle().skip(number) {
                let asked = Instant::now();
                if asked >= started + length {
                    break;
                }
                let answer = connection.send(request).await?;
                ensure!(answer.status == 200, "a good request was answered with {}", answer.status);
                times.push(asked.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(asked) = askers.join_next().await {
        times.extend(asked??);
    }
    Ok((times.len() as u64, Times::new(times), started.elapsed()))
}

/// A thousand connections at once, each with keys that begin as a real one does. Returns how many were answered, and
/// the control plane's memory: with the connections alone, and the most meanwhile.
async fn guessed(stage: &Stage, real: &str) -> anyhow::Result<(u64, u64, u64)> {
    // "ppz_" and the prefix that is shown to people: the rest is guessed.
    let prefix = real.get(..12).context("a key is too short")?.to_owned();
    let mut connections = Vec::new();
    for _ in 0..WRONG {
        let mut connection = Connection::open(stage.address).await?;
        let status = connection.send(&request("GET", ASKED, Some(real), "")).await?.status;
        ensure!(status == 200, "a good key was answered with {status}");
        connections.push(connection);
    }
    let before = stage.server_memory()?;
    let mut guessers = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let prefix = prefix.clone();
        guessers.spawn(async move {
            for guess in 0..TRIES {
                let key = format!("{prefix}{:018x}", number * TRIES + guess);
                let status = connection.send(&request("GET", ASKED, Some(&key), "")).await?.status;
                ensure!(matches!(status, 401 | 429), "a wrong key was answered with {status}");
            }
            anyhow::Ok(TRIES as u64)
        });
    }
    let (mut answered, mut most) = (0, before);
    loop {
        tokio::select! {
            guesser = guessers.join_next() => match guesser {
                Some(count) => answered += count??,
                None => return Ok((answered, before, most)),
            },
            () = sleep(Duration::from_millis(20)) => most = most.max(stage.server_memory()?),
        }
    }
}

/// Logs in as often as the server lets it, and asks for something else all the while.
pub(crate) async fn logins(stage: &Stage, tokens: &[String], length: Duration) -> anyhow::Result<Logins> {
    let probe = request("GET", ASKED, Some(&tokens[0]), "");
    let alone = during("requests without logins", probed(stage, &probe, length)).await?;
    let people = tokens.len();
    let (beside, (count, took)) = during("requests beside logins", async {
        tokio::try_join!(probed(stage, &probe, length), logged_in(stage, people, length))
    })
    .await?;
    Ok(Logins {
        per_second: rate(count, took),
        p99_alone: alone.percentile(99),
        p99_beside: beside.percentile(99),
    })
}

async fn probed(stage: &Stage, probe: &[u8], length: Duration) -> anyhow::Result<Times> {
    let (mut connection, started, mut times) =
        (Connection::open(stage.address).await?, Instant::now(), Vec::new());
    while started.elapsed() < length {
        let asked = Instant::now();
        let status = connection.send(probe).await?.status;
        ensure!(status == 200, "a request beside logins was answered with {status}");
        times.push(asked.elapsed());
        sleep(PROBE).await;
    }
    Ok(Times::new(times))
}

async fn logged_in(stage: &Stage, people: usize, length: Duration) -> anyhow::Result<(u64, Duration)> {
    let (started, mut tasks) = (Instant::now(), JoinSet::new());
    for first in 0..LOGINS {
        let mut connection = Connection::open(stage.address).await?;
        tasks.spawn(async move {
            let mut count = 0_u64;
            for number in (0..people).cycle().skip(first * people / LOGINS) {
                if started.elapsed() >= length {
                    break;
                }
                let body =
                    format!(r#"{{"username":"user-{number:04}","password":"tidewater gate {number:04}"}}"#);
                let status =
                    connection.send(&request("POST", "/api/v1/auth/login", None, &body)).await?.status;
                match status {
                    200 => count += 1,
                    // Too many at once or of one person: that is the bound.
                    429 => sleep(PROBE).await,
                    other => bail!("a login was answered with {other}"),
                }
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(task) = tasks.join_next().await {
        count += task??;
    }
    Ok((count, started.elapsed()))
}

impl Keys {
    /// What the wrong keys left behind, in MiB.
    pub(crate) fn growth(&self) -> f64 {
        real(self.memory_after.saturating_sub(self.memory_before)) / 1024.0
    }

    /// The most that the control plane grew by meanwhile, in MiB.
    pub(crate) fn peak(&self) -> f64 {
        real(self.memory_during.saturating_sub(self.memory_before)) / 1024.0
    }
}
