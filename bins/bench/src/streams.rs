//! Streams of a session's web application and desktop through agent, tunnel and control plane, beside proxies that look
//! into nothing and ask nobody.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};

use crate::{
    desktop::Desktop,
    http::Connection,
    memory::{Course, watched},
    progress::during,
    proxies::Proxy,
    served::{GREETING, PIXEL, WELCOME, picture},
    stage::Stage,
    stats::{Times, mebibytes},
    viewer,
};

/// Bytes of one answer where throughput is measured.
const LARGE: u64 = 64 << 20;
/// Bytes of one answer where memory is looked at.
const HUGE: u64 = 1 << 30;
/// Bytes of an answer where latency is measured.
const SMALL: u64 = 64;
/// Between two small requests: light load.
const BETWEEN: Duration = Duration::from_millis(5);

/// What came of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Streams {
    /// MiB a second of answers of a web application.
    pub(crate) http: f64,
    /// The same by `haproxy`, each time it was run.
    pub(crate) haproxy: Vec<f64>,
    /// MiB a second of a desktop's pictures.
    pub(crate) vnc: f64,
    /// The same by `websockify`, each time it was run.
    pub(crate) websockify: Vec<f64>,
    /// A small request there and back, milliseconds: p50 and p99.
    pub(crate) request: Latency,
    /// A pixel of a desktop, asked for and there, milliseconds: p50 and p99.
    pub(crate) pixel: Latency,
    /// Bytes of the one large answer.
    pub(crate) bulk: u64,
    /// MiB a second of it.
    pub(crate) bulk_rate: f64,
    /// What it did to the memory.
    pub(crate) bulk_memory: Course,
}

/// Something small, with nothing between and through the platform, in turns.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    pub(crate) direct: [f64; 2],
    pub(crate) through: [f64; 2],
}

impl Latency {
    fn new(direct: Vec<Duration>, through: Vec<Duration>) -> Self {
        let both = |times| {
            let times = Times::new(times);
            [times.percentile(50), times.percentile(99)]
        };
        Self { direct: both(direct), through: both(through) }
    }

    /// Milliseconds of p99 that the platform adds.
    pub(crate) fn added(&self) -> f64 {
        self.through[1] - self.direct[1]
    }
}

/// Requests of somebody at a browser, and where they go.
#[derive(Debug)]
struct Way {
    to: SocketAddr,
    host: String,
    cookie: String,
}

impl Way {
    fn direct(to: SocketAddr) -> Self {
        Self { to, host: "localhost".into(), cookie: String::new() }
    }

    fn get(&self, bytes: u64) -> Vec<u8> {
        let cookie =
            if self.cookie.is_empty() { String::new() } else { format!("Cookie: {}\r\n", self.cookie) };
        format!("GET /bytes/{bytes} HTTP/1.1\r\nHost: {}\r\n{cookie}\r\n", self.host).into_bytes()
    }
}

/// Measures all of it with one session on the real agent, which runs.
pub(crate) async fn run(
    stage: &Stage,
    token: &str,
    length: Duration,
    small: usize,
) -> anyhow::Result<Streams> {
    let session = during("a session that serves", viewer::served(stage, token)).await?;
    let (host, cookie) = viewer::enter(stage, token, &session.id).await?;
    let (ours, direct) = (Way { to: stage.address, host, cookie }, Way::direct(session.at));
    let half = length / 2;

    let haproxy = Proxy::haproxy(stage.folder(), session.at).await?;
    let beside = Way::direct(haproxy.address);
    let first = during("http beside haproxy", download(&beside, LARGE, half)).await?;
    let http = during("http through a session's stream", download(&ours, LARGE, length)).await?;
    let second = during("http beside haproxy", download(&beside, LARGE, half)).await?;
    haproxy.stop().await?;
    let haproxy = vec![first, second];

    let websockify = Proxy::websockify(stage.folder(), session.at).await?;
    let beside = async || Desktop::behind(websockify.address).await?.pictures(half).await;
    let first = during("vnc beside websockify", beside()).await?;
    let mut desktop = Desktop::greet(viewer::watch(stage, token, &session.id, "vnc").await?).await?;
    let vnc = during("vnc through a session's stream", desktop.pictures(length)).await?;
    let second = during("vnc beside websockify", beside()).await?;
    websockify.stop().await?;
    let websockify = vec![first, second];

    let request = during("small requests", requests(&direct, &ours, small)).await?;
    let pixel = during("pixels", pixels(session.at, &mut desktop, small)).await?;
    drop(desktop);
    let started = Instant::now();
    let bulk = during("one large answer", watched(stage, download(&ours, HUGE, Duration::ZERO))).await?;
    let bulk_rate = mebibytes(HUGE, started.elapsed());
    viewer::end(stage, token, &session.id).await?;
    Ok(Streams { http, haproxy, vnc, websockify, request, pixel, bulk: HUGE, bulk_rate, bulk_memory: bulk.1 })
}

/// MiB a second of answers of so many bytes, one after the other; at least one.
async fn download(way: &Way, bytes: u64, length: Duration) -> anyhow::Result<f64> {
    let (mut connection, request) = (Connection::open(way.to).await?, way.get(bytes));
    let (started, mut seen) = (Instant::now(), 0);
    loop {
        let (status, length_of_it) = connection.drain(&request).await?;
        ensure!(
            status == 200 && length_of_it == bytes,
            "{bytes} bytes were asked for and answered with {status} and {length_of_it} bytes"
        );
        seen += bytes;
        if started.elapsed() >= length {
            return Ok(mebibytes(seen, started.elapsed()));
        }
    }
}

async fn requests(direct: &Way, ours: &Way, count: usize) -> anyhow::Result<Latency> {
    let mut ends = [
        (Connection::open(direct.to).await?, direct.get(SMALL), Vec::with_capacity(count)),
        (Connection::open(ours.to).await?, ours.get(SMALL), Vec::with_capacity(count)),
    ];
    let mut ticks = interval(BETWEEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..count {
        for (connection, request, times) in &mut ends {
            ticks.tick().await;
            let asked = Instant::now();
            let status = connection.send(request).await?.status;
            ensure!(status == 200, "a small request was answered with {status}");
            times.push(asked.elapsed());
        }
    }
    let [(.., direct), (.., through)] = ends;
    Ok(Latency::new(direct, through))
}

async fn pixels(at: SocketAddr, desktop: &mut Desktop, count: usize) -> anyhow::Result<Latency> {
    let mut plain = TcpStream::connect(at).await?;
    plain.set_nodelay(true)?;
    plain.write_all(GREETING).await?;
    plain.read_exact(&mut [0; WELCOME]).await?;
    let (mut direct, mut through) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut ticks = interval(BETWEEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..count {
        ticks.tick().await;
        let asked = Instant::now();
        plain.write_all(&picture(1, 1)).await?;
        plain.read_exact(&mut [0; PIXEL]).await?;
        direct.push(asked.elapsed());
        ticks.tick().await;
        through.push(desktop.pixel().await?);
    }
    Ok(Latency::new(direct, through))
}
