//! A terminal over pipes: keys to `stdin`, what a program answers on `stdout`, both followed as a viewer does.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    http::{Connection, request},
    pipes::asked,
    progress::during,
    stage::Stage,
    stats::{Times, mebibytes},
};

/// The longest wait for one event.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two keys: a very fast typist.
const BETWEEN: Duration = Duration::from_millis(20);
/// Bytes of one piece of output, and how many of them a viewer may be behind.
const PIECE: usize = 32 * 1024;
const BEHIND: u64 = 128;

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Typed {
    /// Milliseconds from a key to what the program answers: p50 and p99.
    pub(crate) keys: [f64; 2],
    /// MiB a second that a viewer sees of output.
    pub(crate) output: f64,
}

/// Somebody who follows a pipe.
struct Viewer(Lines<BufReader<TcpStream>>);

impl Viewer {
    async fn open(stage: &Stage, token: &str, pipe: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(stage.address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "GET /api/v1/sources/shell/pipes/{pipe}/messages HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut lines = BufReader::with_capacity(1024 * 1024, stream).lines();
        let status = lines.next_line().await?.context("no answer")?;
        ensure!(status.contains("200"), "following was answered with {status}");
        Ok(Self(lines))
    }

    /// The next message.
    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            let line = timeout(PATIENCE, self.0.next_line()).await.context("no event came")??;
            let line = line.context("a stream of events ended")?;
            if let Some(data) = line.strip_prefix("data: ").filter(|data| data.len() > 2) {
                return Ok(serde_json::from_str(data)?);
            }
        }
    }
}

fn say(token: &str, pipe: &str, payload: &Value) -> Vec<u8> {
    let path = format!("/api/v1/sources/shell/pipes/{pipe}/messages");
    request("POST", &path, Some(token), &json!({"payload": payload}).to_string())
}

/// Types, then looks at much output.
pub(crate) async fn run(stage: &Stage, token: &str, quick: bool) -> anyhow::Result<Typed> {
    let mut connection = Connection::open(stage.address).await?;
    let shell = request("POST", "/api/v1/sources", Some(token), r#"{"handle":"shell","kind":"pty"}"#);
    asked(&mut connection, &shell, &[201]).await?;
    let keys = if quick { 50 } else { 300 };
    let keys = during("keys over pipes", typed(stage, token, keys)).await?;
    let bytes = if quick { 8 } else { 64 } << 20;
    let output = during("output over pipes", seen(stage, token, bytes)).await?;
    Ok(Typed { keys, output })
}

/// A program that answers each key with the key.
async fn echo(stage: &Stage, token: &str) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let mut input = Viewer::open(stage, token, "stdin").await?;
    let (mut connection, token) = (Connection::open(stage.address).await?, token.to_owned());
    Ok(tokio::spawn(async move {
        loop {
            let key = input.next().await?;
            asked(&mut connection, &say(&token, "stdout", &key["payload"]), &[201]).await?;
        }
    }))
}

async fn typed(stage: &Stage, token: &str, keys: usize) -> anyhow::Result<[f64; 2]> {
    let mut output = Viewer::open(stage, token, "stdout").await?;
    let program = echo(stage, token).await?;
    let (mut connection, mut times) = (Connection::open(stage.address).await?, Vec::new());
    for number in 0..keys {
        let (key, began) = (json!(format!("{number}")), Instant::now());
        asked(&mut connection, &say(token, "stdin", &key), &[201]).await?;
        let answered = output.next().await?;
        ensure!(answered["payload"] == key, "another key came back");
        times.push(began.elapsed());
        sleep(BETWEEN).await;
    }
    program.abort();
    let times = Times::new(times);
    Ok([times.percentile(50), times.percentile(99)])
}

/// Output as fast as it is stored and a viewer sees it, who is never so far behind that it is gone.
async fn seen(stage: &Stage, token: &str, bytes: usize) -> anyhow::Result<f64> {
    let mut viewer = Viewer::open(stage, token, "stdout").await?;
    let pieces = bytes / PIECE;
    let piece = say(token, "stdout", &json!("o".repeat(PIECE)));
    let mut connection = Connection::open(stage.address).await?;
    let (tell, told) = tokio::sync::watch::channel(0_u64);
    let began = Instant::now();
    let writing = async {
        let mut told = told;
        for sent in 0..pieces as u64 {
            told.wait_for(|seen| sent < seen + BEHIND).await.context("the viewer is gone")?;
            asked(&mut connection, &piece, &[201]).await?;
        }
        anyhow::Ok(())
    };
    let viewing = async {
        for seen in 1..=pieces as u64 {
            let message = viewer.next().await?;
            let length = message["payload"].as_str().map_or(0, str::len);
            ensure!(length == PIECE, "a piece of {length} bytes came");
            tell.send_replace(seen);
        }
        anyhow::Ok(())
    };
    tokio::try_join!(writing, viewing)?;
    Ok(mebibytes((pieces * PIECE) as u64, began.elapsed()))
}
