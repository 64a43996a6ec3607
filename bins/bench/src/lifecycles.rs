//! Lives of commands: HTTP create → frame → ack → complete → persisted `completed`. Counted in the database, not here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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

/// How long commands may take to end after the last request.
const DRAIN: Duration = Duration::from_mins(1);

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lives {
    /// Organizations the requests were spread over.
    pub(crate) organizations: usize,
    /// Creates that were answered, all with 202.
    pub(crate) created: u64,
    /// Of these, those whose command is `completed` with every stamp and whose session runs: all, or the run fails.
    pub(crate) completed: u64,
    /// Creates answered a second.
    pub(crate) started_per_second: f64,
    /// Whole lives a second, from the first create to the last completion, by the database's own stamps.
    pub(crate) per_second: f64,
    /// From request to answer, milliseconds.
    pub(crate) answer_p50: f64,
    /// From request to answer, milliseconds.
    pub(crate) answer_p99: f64,
}

/// The request that asks for a session on a simulated agent.
pub(crate) fn create(token: &str) -> Vec<u8> {
    request("POST", "/api/v1/sessions", Some(token), r#"{"template":"shell","region":"simulated"}"#)
}

/// Puts the user of a token into a group whose quota is counted at each create, and never reached.
pub(crate) async fn group(stage: &Stage, token: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(stage.address).await?;
    let me = done(&mut connection, "GET", "/api/v1/users/me", token, "", 200).await?;
    let new = r#"{"name":"crew","displayName":"Crew","type":"team"}"#;
    let group = done(&mut connection, "POST", "/api/v1/groups", token, new, 201).await?;
    let path = format!("/api/v1/groups/{}", group["id"].as_str().unwrap_or_default());
    let member = format!(r#"{{"userId":{}}}"#, me["id"]);
    done(&mut connection, "POST", &format!("{path}/members"), token, &member, 201).await?;
    done(&mut connection, "PUT", &format!("{path}/quota"), token, r#"{"maxSessions":1000000}"#, 200).await?;
    Ok(())
}

async fn done(
    connection: &mut Connection,
    method: &str,
    path: &str,
    token: &str,
    body: &str,
    status: u16,
) -> anyhow::Result<serde_json::Value> {
    let answer = connection.send(&request(method, path, Some(token), body)).await?;
    let said = String::from_utf8_lossy(answer.body);
    ensure!(answer.status == status, "{method} {path} was answered with {}: {said}", answer.status);
    Ok(serde_json::from_slice(answer.body)?)
}

/// Asks for sessions as fast as `connections` can, each after its last answer, for `length`.
pub(crate) async fn run(
    stage: &Stage,
    tokens: &[String],
    connections: u32,
    length: Duration,
) -> anyhow::Result<Lives> {
    let what = format!("lifecycles, {} organization(s)", tokens.len());
    during(&what, measure(stage, tokens, connections, length)).await
}

async fn measure(
    stage: &Stage,
    tokens: &[String],
    connections: u32,
    length: Duration,
) -> anyhow::Result<Lives> {
    let since = stage.sql("SELECT clock_timestamp()").await?.trim().to_owned();
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(tokens.iter().map(|token| create(token)).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut askers = JoinSet::new();
    for _ in 0..connections {
        let connection = Connection::open(stage.address).await?;
        askers.spawn(ask(connection, Arc::clone(&requests), Arc::clone(&next), started + length));
    }
    let mut times = Vec::new();
    while let Some(asked) = askers.join_next().await {
        times.extend(asked??);
    }
    let asked_for = started.elapsed();
    drained(stage).await?;
    let times = Times::new(times);
    let row = stage.numbers(&counted(&since)).await?;
    let [made, completed, seconds] = row[..] else { bail!("the count has {} columns", row.len()) };
    let created = times.len() as u64;
    ensure!(
        (made - real(created)).abs() < 0.5 && (completed - real(created)).abs() < 0.5,
        "{created} creates were acknowledged, {made} commands are there and {completed} of them are completed"
    );
    Ok(Lives {
        organizations: tokens.len(),
        created,
        completed: created,
        started_per_second: rate(created, asked_for),
        per_second: completed / seconds,
        answer_p50: times.percentile(50),
        answer_p99: times.percentile(99),
    })
}

async fn ask(
    mut connection: Connection,
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    loop {
        let asked = Instant::now();
        if asked >= until {
            return Ok(times);
        }
        let request = &requests[next.fetch_add(1, Ordering::Relaxed) % requests.len()];
        let answer = connection.send(request).await?;
        if answer.status != 202 {
            bail!("a create was answered with {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        times.push(asked.elapsed());
    }
}

/// Waits until no command is open.
pub(crate) async fn drained(stage: &Stage) -> anyhow::Result<()> {
    let until = Instant::now() + DRAIN;
    loop {
        let open =
            stage.sql("SELECT count(*) FROM commands WHERE status IN ('pending', 'sent', 'ack')").await?;
        if open.trim() == "0" {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{} commands are still open after {DRAIN:?}", open.trim());
        sleep(Duration::from_millis(100)).await;
    }
}

fn counted(since: &str) -> String {
    format!(
        "SELECT count(*), count(*) FILTER (WHERE c.status = 'completed' AND c.sent_at IS NOT NULL AND c.acknowledged_at IS NOT NULL
             AND s.state = 'running'), extract(epoch FROM max(c.completed_at) - min(c.created_at))
         FROM commands c JOIN sessions s ON s.id = c.session_id WHERE c.created_at >= '{since}'"
    )
}

/// Ends every session that still runs, by SQL and outside of every measurement, so that each one begins with empty
/// agents: a placement counts the sessions of the agents it looks at.
pub(crate) async fn clear(stage: &Stage) -> anyhow::Result<()> {
    let end = "SET session_replication_role = replica;
        UPDATE sessions SET state = 'terminated', ended_at = clock_timestamp() WHERE state = 'running' AND region <> 'real'";
    during("ending the sessions", async {
        stage.sql(end).await?;
        stage.sql("VACUUM (ANALYZE) sessions, commands").await
    })
    .await
    .context("the sessions of the last measurement")?;
    Ok(())
}
