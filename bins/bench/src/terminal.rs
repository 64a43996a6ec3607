//! The real terminal: agent process, shim, tunnel, viewer on a WebSocket.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::{
    task::JoinHandle,
    time::{interval, timeout},
};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    fleet::Socket,
    progress::{bar, during},
    pty,
    stage::{REAL, Stage},
    stats::{Times, mebibytes, real},
    viewer,
};

/// Longest wait for one frame.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two keys: a very fast typist.
const BETWEEN: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Terminal {
    /// MiB a second that the viewer of a session saw.
    pub(crate) viewed: f64,
    /// MiB a second that a plain program reads of the same on a PTY.
    pub(crate) plain: f64,
    /// How much of what was printed the viewer saw: a viewer who is alone misses nothing.
    pub(crate) seen: f64,
    /// Keystrokes there and back with nothing beside them, milliseconds.
    pub(crate) keys_alone: [f64; 2],
    /// Keystrokes there and back while another session bursts, milliseconds: p50 and p99.
    pub(crate) keys_beside: [f64; 2],
    /// MiB a second of that burst.
    pub(crate) burst: f64,
}

/// Measures throughput, then keystrokes alone and beside a burst.
pub(crate) async fn run(stage: &Stage, token: &str, bytes: u64, keys: usize) -> anyhow::Result<Terminal> {
    // Before and after: what the machine gives may change meanwhile.
    let first = pty::read(bytes).await?;
    let (seen, time) = during("terminal", throughput(stage, token, bytes)).await?;
    let second = pty::read(bytes).await?;
    ensure!(first.0 == second.0, "the plain program read {} and {} bytes of the same", first.0, second.0);
    let keys_alone = keystrokes(stage, token, keys, "keystrokes").await?;
    let burst = Burst::start(stage, token).await?;
    let keys_beside = keystrokes(stage, token, keys, "keystrokes beside a burst").await?;
    let burst = burst.end().await?;
    Ok(Terminal {
        viewed: mebibytes(seen, time),
        plain: mebibytes(first.0 + second.0, first.1 + second.1),
        seen: real(seen) / real(first.0),
        keys_alone,
        keys_beside,
        burst,
    })
}

async fn throughput(stage: &Stage, token: &str, bytes: u64) -> anyhow::Result<(u64, Duration)> {
    let argv = pty::workload(bytes);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let id = viewer::session(stage, token, &viewer::command(REAL, &argv)).await?;
    let mut socket = viewer::attach(stage, token, &id).await?;
    mode(&mut socket).await?;
    let started = Instant::now();
    socket.send(Message::Binary(Bytes::from_static(b"\n"))).await?;
    let mut seen = 0;
    loop {
        match frame(&mut socket).await? {
            Message::Binary(bytes) => seen += bytes.len() as u64,
            Message::Text(text) if text.contains("\"exit\"") => return Ok((seen, started.elapsed())),
            Message::Close(why) => bail!("the terminal was closed before its end: {why:?}"),
            _ => {}
        }
    }
}

async fn frame(socket: &mut Socket) -> anyhow::Result<Message> {
    let next = timeout(PATIENCE, socket.next()).await.context("the terminal says nothing")?;
    Ok(next.context("the terminal was cut")??)
}

/// Waits for the first frame: from then on the shim listens.
async fn mode(socket: &mut Socket) -> anyhow::Result<()> {
    while !matches!(frame(socket).await?, Message::Text(text) if text.contains("\"mode\"")) {}
    Ok(())
}

/// Types into a program that gives each byte back; the terminal itself echoes nothing.
async fn keystrokes(stage: &Stage, token: &str, keys: usize, what: &str) -> anyhow::Result<[f64; 2]> {
    let argv = ["sh", "-c", "stty raw -echo; echo ready; cat"];
    let id = viewer::session(stage, token, &viewer::command(REAL, &argv)).await?;
    let mut socket = viewer::attach(stage, token, &id).await?;
    let mut said = Vec::new();
    while !said.windows(5).any(|window| window == b"ready") {
        if let Message::Binary(bytes) = frame(&mut socket).await? {
            said.extend_from_slice(&bytes);
        }
    }
    let bar = bar(what, keys as u64);
    let (mut ticks, mut times) = (interval(BETWEEN), Vec::with_capacity(keys));
    for key in (b'a'..=b'z').cycle().take(keys) {
        ticks.tick().await;
        let typed = Instant::now();
        socket.send(Message::Binary(Bytes::copy_from_slice(&[key]))).await?;
        loop {
            if let Message::Binary(bytes) = frame(&mut socket).await?
                && bytes.contains(&key)
            {
                break;
            }
        }
        times.push(typed.elapsed());
        bar.inc(1);
    }
    bar.finish_and_clear();
    viewer::end(stage, token, &id).await?;
    let times = Times::new(times);
    Ok([times.percentile(50), times.percentile(99)])
}

/// A session that prints without end, and a viewer who reads all of it.
struct Burst {
    stop: DropGuard,
    reading: JoinHandle<anyhow::Result<f64>>,
}

impl Burst {
    async fn start(stage: &Stage, token: &str) -> anyhow::Result<Self> {
        let id = viewer::session(stage, token, &viewer::command(REAL, &["yes", "0123456789 burst"])).await?;
        let mut socket = viewer::attach(stage, token, &id).await?;
        mode(&mut socket).await?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let reading = tokio::spawn(async move {
            let (started, mut seen) = (Instant::now(), 0);
            loop {
                let frame = tokio::select! {
                    () = stopped.cancelled() => return Ok(mebibytes(seen, started.elapsed())),
                    frame = frame(&mut socket) => frame?,
                };
                match frame {
                    Message::Binary(bytes) => seen += bytes.len() as u64,
                    Message::Close(why) => bail!("the burst's terminal was closed: {why:?}"),
                    _ => {}
                }
            }
        });
        Ok(Self { stop: stop.drop_guard(), reading })
    }

    /// MiB a second that it came to.
    async fn end(self) -> anyhow::Result<f64> {
        drop(self.stop);
        self.reading.await?
    }
}
