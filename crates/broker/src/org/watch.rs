//! Being woken when a stream stores something, rather than looking all the time.
//!
//! What hears of it is a consumer of ours that remembers nothing and is given headers alone. A plain subscription to what the
//! stream listens to would hear of a message before it is stored, and a look would find nothing. There is one consumer for a
//! stream and connection, shared by all who watch; it ends a moment after the last of them. It may miss something where the
//! connection breaks: whoever watches looks now and then all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_nats::StatusCode;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use super::OrgBroker;
use super::message::is_message;
use super::stream::nanos;
use super::wire::{ConsumerInfo, WatchConfig, WatchRequest};
use crate::name::StreamName;
use crate::{Error, Result};

/// How long a stream is watched after the last look: those who follow it look again and again.
const LINGER: Duration = Duration::from_secs(4);
/// How often the server says that nothing happened, and how long it may be silent.
const HEARTBEAT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(5);
/// After which time the server forgets a consumer that nobody listens to.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// The wait before a watch that broke is made again.
const PAUSE: Duration = Duration::from_secs(1);

/// The streams that are watched through one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Watches(Arc<Mutex<Entries>>);

type Entries = HashMap<StreamName, Entry>;

/// A stream that is watched.
#[derive(Debug)]
struct Entry {
    news: Arc<watch::Sender<News>>,
    asked: Instant,
    task: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is known of a stream that is watched.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    /// Whether the server tells of it at present.
    listening: bool,
    /// Grows with each message.
    count: u64,
}

/// Hears that a stream has stored something. Holds no message: look for it.
#[derive(Debug)]
pub struct Watch(watch::Receiver<News>);

impl Watch {
    /// Waits until the server tells of the stream, for at most so long. A look after that misses nothing that
    /// [`Watch::news`] does not tell.
    pub async fn ready(&mut self, limit: Duration) {
        drop(timeout(limit, self.0.wait_for(|news| news.listening)).await);
    }

    /// Whether the server tells of the stream at present. Otherwise looking often is the only way.
    pub fn is_listening(&self) -> bool {
        self.0.borrow().listening
    }

    /// Waits until something may have been stored since the last call.
    pub async fn news(&mut self) {
        if self.0.changed().await.is_err() {
            // The connection was given up: nothing is told any more.
            std::future::pending::<()>().await;
        }
    }
}

impl OrgBroker {
    /// Watches a stream from now on, together with everybody else who does.
    pub fn watch(&self, stream: &StreamName) -> Watch {
        let mut entries = locked(&self.watches.0);
        let entry = entries.entry(stream.clone()).or_insert_with(|| {
            let news = Arc::new(watch::Sender::default());
            let watching = Watching {
                // Without the entries: they end the task when the last user of the connection is gone.
                broker: Self { watches: Watches::default(), ..self.clone() },
                stream: stream.clone(),
                news: Arc::clone(&news),
                entries: Arc::downgrade(&self.watches.0),
            };
            Entry { news, asked: Instant::now(), task: tokio::spawn(watching.run()).abort_handle() }
        });
        entry.asked = Instant::now();
        Watch(entry.news.subscribe())
    }

    /// How many streams are watched.
    pub fn watched(&self) -> usize {
        locked(&self.watches.0).len()
    }

    async fn create_watch(&self, stream: &StreamName, inbox: &str) -> Result<()> {
        let name = format!("watch_{}", Uuid::new_v4().simple());
        let config = WatchConfig {
            name: &name,
            deliver_subject: inbox,
            deliver_policy: "new",
            ack_policy: "none",
            replay_policy: "instant",
            headers_only: true,
            mem_storage: true,
            num_replicas: 1,
            idle_heartbeat: nanos(HEARTBEAT)?,
            inactive_threshold: nanos(FORGOTTEN)?,
        };
        let request = WatchRequest { stream_name: stream.as_str(), config, action: "create" };
        let subject = format!("CONSUMER.CREATE.{stream}.{name}");
        self.call::<ConsumerInfo>("watch a stream", &subject, &request).await.map(drop)
    }
}

/// What listens to one stream for everybody.
struct Watching {
    broker: OrgBroker,
    stream: StreamName,
    news: Arc<watch::Sender<News>>,
    entries: Weak<Mutex<Entries>>,
}

impl Watching {
    /// Until nobody watches any more.
    async fn run(self) {
        let mut ticks = interval(LINGER / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::select! {
            () = async { while !self.is_over() { ticks.tick().await; } } => {}
            () = self.listen() => {}
        }
    }

    /// Whether nobody watched for a while; then whoever comes begins anew.
    fn is_over(&self) -> bool {
        let Some(entries) = self.entries.upgrade() else { return true };
        let mut entries = locked(&entries);
        let over = |entry: &Entry| entry.news.receiver_count() == 0 && entry.asked.elapsed() > LINGER;
        let is_over = entries.get(&self.stream).is_none_or(over);
        if is_over {
            entries.remove(&self.stream);
        }
        is_over
    }

    /// Again and again: a server that was started anew remembers no such consumer.
    async fn listen(&self) {
        loop {
            if let Err(error) = self.hear().await {
                tracing::debug!(stream = %self.stream, %error, "a stream is not watched, it is looked at instead");
            }
            self.news.send_modify(|news| news.listening = false);
            sleep(PAUSE).await;
        }
    }

    /// As long as the server tells.
    async fn hear(&self) -> Result<()> {
        let client = self.broker.connection.client();
        let inbox = client.new_inbox();
        let lost = |error: async_nats::SubscribeError| Error::unavailable("watch a stream", error);
        let mut told = client.subscribe(inbox.clone()).await.map_err(lost)?;
        self.broker.create_watch(&self.stream, &inbox).await?;
        // Something may have been stored before.
        self.news.send_modify(|news| *news = News { listening: true, count: news.count + 1 });
        while let Ok(Some(message)) = timeout(SILENCE, told.next()).await {
            match message.status {
                _ if is_message(&message) => self.news.send_modify(|news| news.count += 1),
                None | Some(StatusCode::IDLE_HEARTBEAT) => {}
                // The stream is gone.
                Some(_) => break,
            }
        }
        Ok(())
    }
}

fn locked(entries: &Mutex<Entries>) -> MutexGuard<'_, Entries> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}
