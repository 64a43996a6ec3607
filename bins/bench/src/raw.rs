//! Bare clients of NATS: in an account of the bench's own, as the reference, and with what an organization's member was given.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, jetstream};
use bytes::Bytes;
use chrono::TimeDelta;
use serde::Serialize;
use tidegate_broker::{AccountAuthority, Authority, Limits, Options, Permissions, System, UserKey};
use tidegate_model::{Clock, MessageId, OrgId, SystemClock};
use tokio::{sync::mpsc, task::JoinSet};

use crate::stats::{Times, rate};

/// The bench's own stream and what it listens to.
const STREAM: &str = "raw";
/// As much as the pipe beside it keeps.
pub(crate) const MESSAGES: i64 = 10_000_000;
pub(crate) const BYTES: i64 = 2 << 30;
/// How long a bench's own token is good: longer than a run takes.
const LIFETIME: TimeDelta = TimeDelta::hours(10);

/// Messages that were acknowledged.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sends {
    pub(crate) per_second: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
}

impl Sends {
    pub(crate) fn new(times: Vec<Duration>, took: Duration) -> Self {
        let times = Times::new(times);
        let per_second = rate(times.len() as u64, took);
        Self { per_second, p50: times.percentile(50), p99: times.percentile(99) }
    }
}

/// Connects with a token and its seed. What happens to the connection is told to `tell`.
pub(crate) async fn connect(
    url: &str,
    (token, seed): (&str, &str),
    inbox_prefix: &str,
    tell: mpsc::UnboundedSender<Event>,
) -> anyhow::Result<Client> {
    let file = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n\
         ------END USER NKEY SEED------\n"
    );
    let options = ConnectOptions::with_credentials(&file)?.custom_inbox_prefix(inbox_prefix);
    let options = options.event_callback(move |event| {
        // Nobody listens any more at the end.
        let _ = tell.send(event);
        std::future::ready(())
    });
    options.connect(url).await.context("a client cannot connect to NATS")
}

/// A client in an account of the bench's own, with a stream as a pipe's is: what the same server does for bare clients.
pub(crate) async fn reference(url: &str, authority: &Authority) -> anyhow::Result<Client> {
    let (clock, account) = (Arc::new(SystemClock::new()), AccountAuthority::generate());
    let now = clock.now();
    let claims = account.claims(OrgId::new().as_uuid(), Limits::default());
    let system =
        System::connect(&Options::new([url]), Arc::new(authority.clone()), clock as Arc<dyn Clock>).await?;
    system.push(&authority.sign_account(&claims, now)?).await?;
    let key = UserKey::generate();
    let token = account.mint(key.public(), "bench", &Permissions::default(), now, LIFETIME)?;
    let (tell, _) = mpsc::unbounded_channel();
    let client = connect(url, (token.as_str(), key.seed()?.expose()), "_INBOX", tell).await?;
    let config = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![STREAM.to_owned()],
        max_messages: MESSAGES,
        max_bytes: BYTES,
        duplicate_window: Duration::from_mins(10),
        ..jetstream::stream::Config::default()
    };
    jetstream::new(client.clone()).create_stream(config).await.context("the bench's own stream")?;
    Ok(client)
}

/// Seconds in which a bare client makes so many streams as a pipe's is, with a message in each, so many at any moment: what
/// the server takes for it.
pub(crate) async fn streams(client: &Client, count: usize, in_flight: u32) -> anyhow::Result<f64> {
    let (started, mut tasks) = (Instant::now(), JoinSet::new());
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..in_flight {
        let (stream, next) = (jetstream::new(client.clone()), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                let name = format!("{STREAM}-{number}");
                let config = jetstream::stream::Config {
                    name: name.clone(),
                    subjects: vec![name.clone()],
                    max_messages: 5_000,
                    max_bytes: 16 << 20,
                    duplicate_window: Duration::from_mins(10),
                    allow_direct: true,
                    ..jetstream::stream::Config::default()
                };
                stream.create_stream(config).await?;
                stream.publish(name, Bytes::from_static(b"first")).await?.await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// What is published where.
#[derive(Debug, Clone)]
pub(crate) struct Publishing {
    subject: String,
    payload: Bytes,
    /// Whether each has an id, so that a repeat would be known.
    named: bool,
}

impl Publishing {
    /// To the bench's own stream, and no more than that.
    pub(crate) fn bare(payload: Bytes) -> Self {
        Self { subject: STREAM.to_owned(), payload, named: false }
    }

    /// To a pipe, as a client of Tidegate does.
    pub(crate) fn to_pipe(subject: String, payload: Bytes) -> Self {
        Self { subject, payload, named: true }
    }

    async fn publish(&self, stream: &jetstream::Context) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        if self.named {
            headers.insert(async_nats::header::NATS_MESSAGE_ID, MessageId::new().to_string());
            let sent =
                stream.publish_with_headers(self.subject.clone(), headers, self.payload.clone()).await?;
            sent.await?;
        } else {
            stream.publish(self.subject.clone(), self.payload.clone()).await?.await?;
        }
        Ok(())
    }
}

/// Publishes with so many waiting for their acknowledgement at any moment, for so long.
pub(crate) async fn published(
    client: &Client,
    publishing: &Publishing,
    in_flight: u32,
    length: Duration,
) -> anyhow::Result<Sends> {
    let (started, mut tasks) = (Instant::now(), JoinSet::new());
    for _ in 0..in_flight {
        let (stream, publishing) = (jetstream::new(client.clone()), publishing.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            loop {
                let asked = Instant::now();
                if asked >= started + length {
                    return anyhow::Ok(times);
                }
                publishing.publish(&stream).await?;
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
