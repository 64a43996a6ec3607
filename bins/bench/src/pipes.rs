//! Pipes: messages through HTTP and through NATS beside a bare client on the same server, credentials for NATS and their
//! end. What is stored and typed stands in files of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tidegate_engines::nats::Durability;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::{
    credentials,
    figures::Figures,
    http::{Connection, request},
    pipe_store::{self, Kept, Made},
    pipe_terminal::{self, Typed},
    progress::during,
    raw::{self, BYTES, MESSAGES, Publishing, Sends},
    stage::Stage,
    stats::{Times, rate},
};

/// How long a connection may take to be closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a credential is revoked.
const REVOKED: usize = 40;
/// Bytes that a message says.
const SAID: usize = 128;

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pipes {
    /// Every message on disk before it is acknowledged.
    pub(crate) always: Paths,
    /// The default of nats-server.
    pub(crate) relaxed: Paths,
    pub(crate) exchange: Sends,
    /// Milliseconds from the request that revokes to the end of the connection: p50 and the most.
    pub(crate) cut_off: [f64; 2],
    pub(crate) made: Made,
    pub(crate) kept: Kept,
    pub(crate) typed: Typed,
}

/// The same message on three ways.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Paths {
    /// A bare client in an account of its own, before and after the others.
    pub(crate) raw: [Sends; 2],
    pub(crate) nats: Sends,
    pub(crate) http: Sends,
}

impl Paths {
    /// What the bare client did on average.
    pub(crate) fn reference(&self) -> f64 {
        f64::midpoint(self.raw[0].per_second, self.raw[1].per_second)
    }
}

/// Measures everything of pipes.
pub(crate) async fn run(
    stage: &mut Stage,
    figures: &mut Figures,
    tokens: &[String],
    (connections, length): (u32, Duration),
    quick: bool,
) -> anyhow::Result<()> {
    ensure!(tokens.len() >= 8, "pipes need 8 organizations");
    let load = Load::prepare(stage, &tokens[0], connections, length).await?;
    let always = load.paths(stage).await.context("messages on disk")?;
    stage.start_nats(Durability::Relaxed).await?;
    let relaxed = load.paths(stage).await.context("messages not on disk yet")?;
    stage.start_nats(Durability::Full).await?;
    let exchange = exchange(stage, tokens, connections, length).await.context("credentials for NATS")?;
    let cut_off = cut_off(stage, &tokens[0]).await.context("revoked credentials")?;
    let typed = pipe_terminal::run(stage, &tokens[1], quick).await.context("a terminal over pipes")?;
    let made = pipe_store::made(stage, (&tokens[2], &tokens[3]), connections, length).await?;
    // What was there before has a settled memory then.
    stage.start_nats(Durability::Full).await?;
    let count = if quick { 1_000 } else { 10_000 };
    let kept = pipe_store::kept(stage, &tokens[4..], connections, count).await.context("idle sources")?;
    figures.pipes = Some(Pipes { always, relaxed, exchange, cut_off, made, kept, typed });
    Ok(())
}

/// A request that must be answered with one of these.
pub(crate) async fn asked(
    connection: &mut Connection,
    request: &[u8],
    expected: &[u16],
) -> anyhow::Result<Value> {
    let answer = connection.send(request).await?;
    let (status, body) = (answer.status, answer.body);
    ensure!(expected.contains(&status), "answered with {status}: {}", String::from_utf8_lossy(body));
    if body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(body)?) }
}

/// What somebody with a credential gets for NATS: its address, token, seed and inbox prefix.
async fn access(stage: &Stage, credential: &str) -> anyhow::Result<[String; 4]> {
    let body = json!({"api_key": credential}).to_string();
    let mut connection = Connection::open(stage.address).await?;
    let wanted = request("POST", "/api/v1/auth/exchange", None, &body);
    let answer = asked(&mut connection, &wanted, &[200]).await?;
    let mut found = Vec::new();
    for name in ["nats_url", "nats_user_jwt", "nats_user_seed", "inbox_prefix"] {
        found.push(answer[name].as_str().with_context(|| format!("no {name}"))?.to_owned());
    }
    found.try_into().map_err(|_| anyhow::anyhow!("not everything was answered"))
}

/// One pipe, and what is sent to it.
struct Load {
    token: String,
    send: Vec<u8>,
    subject: String,
    envelope: Bytes,
    connections: u32,
    length: Duration,
}

impl Load {
    async fn prepare(stage: &Stage, token: &str, connections: u32, length: Duration) -> anyhow::Result<Self> {
        let mut connection = Connection::open(stage.address).await?;
        let source = request("POST", "/api/v1/sources", Some(token), r#"{"handle":"bench"}"#);
        asked(&mut connection, &source, &[201]).await?;
        let pipe = json!({"name": "load", "maxMsgs": MESSAGES, "maxBytes": BYTES}).to_string();
        let pipe = request("POST", "/api/v1/sources/bench/pipes", Some(token), &pipe);
        asked(&mut connection, &pipe, &[201]).await?;
        let said = "x".repeat(SAID);
        let send = json!({"payload": said}).to_string();
        let send = request("POST", "/api/v1/sources/bench/pipes/load/messages", Some(token), &send);
        let stored = asked(&mut connection, &send, &[201]).await?;
        let subject = stored["subject"].as_str().context("a message without a subject")?.to_owned();
        let envelope = json!({
            "id": stored["id"], "sender": stored["sender"], "subject": subject, "payload": said,
            "created_at": stored["created_at"], "in_reply_to": null, "ack_requested": false,
        });
        let envelope = Bytes::from(envelope.to_string());
        Ok(Self { token: token.to_owned(), send, subject, envelope, connections, length })
    }

    async fn paths(&self, stage: &Stage) -> anyhow::Result<Paths> {
        let Self { subject, envelope, connections, length, .. } = self;
        let bare = raw::reference(&stage.nats_url()?, stage.authority()).await?;
        let bare_to = Publishing::bare(envelope.clone());
        // Connections and the server's caches are filled first.
        raw::published(&bare, &bare_to, *connections, *length / 8).await?;
        let before = during("bare messages", raw::published(&bare, &bare_to, *connections, *length)).await?;
        let [url, token, seed, prefix] = access(stage, &self.token).await?;
        let (tell, _told) = mpsc::unbounded_channel();
        let client = raw::connect(&url, (&token, &seed), &prefix, tell).await?;
        let to_pipe = Publishing::to_pipe(subject.clone(), envelope.clone());
        raw::published(&client, &to_pipe, *connections, *length / 8).await?;
        let nats = raw::published(&client, &to_pipe, *connections, *length);
        let nats = during("messages through NATS", nats).await?;
        self.sent(stage, *length / 8).await?;
        let http = during("messages through HTTP", self.sent(stage, *length)).await?;
        let after = raw::published(&bare, &bare_to, *connections, *length);
        let after = during("bare messages again", after).await?;
        Ok(Paths { raw: [before, after], nats, http })
    }

    /// The same through HTTP, one on each connection at any moment.
    async fn sent(&self, stage: &Stage, length: Duration) -> anyhow::Result<Sends> {
        let (started, mut tasks) = (Instant::now(), JoinSet::new());
        for _ in 0..self.connections {
            let (mut connection, send) = (Connection::open(stage.address).await?, self.send.clone());
            tasks.spawn(async move {
                let mut times = Vec::new();
                loop {
                    let asked = Instant::now();
                    if asked >= started + length {
                        return anyhow::Ok(times);
                    }
                    let status = connection.send(&send).await?.status;
                    ensure!(status == 201, "a message was answered with {status}");
                    times.push(asked.elapsed());
                }
            });
        }
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done??);
        }
        Ok(Sends::new(times, started.elapsed()))
    }
}

/// Credentials for NATS, each for a key of its own.
async fn exchange(
    stage: &Stage,
    tokens: &[String],
    connections: u32,
    length: Duration,
) -> anyhow::Result<Sends> {
    let keys = credentials::mint(stage, tokens).await?;
    let mut connection = Connection::open(stage.address).await?;
    let mut requests = Vec::new();
    for key in &keys {
        let body = json!({"api_key": key}).to_string();
        let wanted = request("POST", "/api/v1/auth/exchange", None, &body);
        // The organization's account is made by the first one.
        asked(&mut connection, &wanted, &[200]).await?;
        requests.push(wanted);
    }
    let (count, times, took) =
        during("credentials for NATS", credentials::used(stage, &requests.into(), connections, length))
            .await?;
    Ok(Sends { per_second: rate(count, took), p50: times.percentile(50), p99: times.percentile(99) })
}

/// From the request that revokes a key to the end of the connection that was opened with it.
async fn cut_off(stage: &Stage, token: &str) -> anyhow::Result<[f64; 2]> {
    let mut times = Vec::new();
    for _ in 0..REVOKED {
        // A new one each time: what is kept for too long between two requests is closed.
        let mut connection = Connection::open(stage.address).await?;
        let made = "/api/v1/organizations/org-0000/keys";
        let made = request("POST", made, Some(token), r#"{"label":"cut off"}"#);
        let made = asked(&mut connection, &made, &[201]).await?;
        let key = made["plaintext"].as_str().context("a key without its secret")?;
        let id = made["key"]["id"].as_str().context("a key without an id")?;
        let [url, token_of_key, seed, prefix] = access(stage, key).await?;
        let (tell, mut told) = mpsc::unbounded_channel();
        let client = raw::connect(&url, (&token_of_key, &seed), &prefix, tell).await?;
        client.flush().await?;
        while told.try_recv().is_ok() {}
        let mut connection = Connection::open(stage.address).await?;
        let revoke = request("POST", &format!("/api/v1/keys/{id}/revoke"), Some(token), "");
        let began = Instant::now();
        let (answer, event) = tokio::join!(
            async { asked(&mut connection, &revoke, &[200]).await },
            timeout(PATIENCE, told.recv())
        );
        answer?;
        event.context("a connection outlived its credential")?.context("a connection without an end")?;
        times.push(began.elapsed());
    }
    // The time of both: whoever revoked has the answer, and the connection is closed.
    let times = Times::new(times);
    Ok([times.percentile(50), times.percentile(100)])
}
