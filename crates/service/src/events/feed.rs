//! One reader of the stream for a whole process, and what it says to all who listen.

use std::{sync::Arc, time::Duration};

use tidegate_model::EventId;
use tidegate_persistence::{Operator, event, event::Told};
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{Core, Result};

/// Events of one table read at a time.
const LINES: i64 = 250;
/// Readings kept for slow listeners: with at most twice [`LINES`] events of a few hundred bytes each, a few MiB. Who is
/// slower reads the database from their own place, and holds nobody back.
const READINGS: usize = 32;
/// Longest time without a look: what other replicas write is announced by nobody.
const LOOK: Duration = Duration::from_secs(1);
/// Shortest time between two looks, however much is announced.
const GAP: Duration = Duration::from_millis(20);
/// The first and the longest wait for transactions that are older than what was announced.
const WAITS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// The wait after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Lines of a restored database that are put in order at a time.
const BITE: i32 = 10_000;

/// A stretch of the stream.
#[derive(Debug)]
pub(super) struct Stretch {
    /// After this place.
    pub(super) from: EventId,
    /// Up to this place.
    pub(super) to: EventId,
    /// Everything in between, of every organization.
    pub(super) told: Vec<Told>,
}

/// Where stretches are heard.
#[derive(Debug)]
pub(crate) struct Feed {
    stretches: broadcast::Sender<Arc<Stretch>>,
    joined: Notify,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self { stretches: broadcast::Sender::new(READINGS), joined: Notify::new() }
    }

    /// Listens from now on.
    pub(super) fn join(&self) -> broadcast::Receiver<Arc<Stretch>> {
        let heard = self.stretches.subscribe();
        self.joined.notify_one();
        heard
    }

    pub(super) fn listeners(&self) -> usize {
        self.stretches.receiver_count()
    }

    fn is_heard(&self) -> bool {
        self.listeners() > 0
    }
}

/// Reads on and on until `shutdown`, while somebody listens.
pub(super) async fn run(core: &Core, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        if !core.feed.is_heard() {
            tokio::select! {
                () = core.feed.joined.notified() => {}
                () = shutdown.cancelled() => return,
            }
            continue;
        }
        match Place::begin(core).await {
            Ok(place) => follow(core, place, shutdown).await,
            Err(error) => {
                tracing::warn!(%error, "the stream of events cannot be read, tried again");
                pause(AFTER_FAILURE, shutdown).await;
            }
        }
    }
}

/// Reads from a place on, until nobody listens.
async fn follow(core: &Core, mut place: Place, shutdown: &CancellationToken) {
    while core.feed.is_heard() && !shutdown.is_cancelled() {
        let looked = Instant::now();
        let wait = match place.look(core).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "the stream of events cannot be read, tried again");
                pause(AFTER_FAILURE, shutdown).await;
                continue;
            }
        };
        match wait {
            Wait::None => {}
            Wait::For(time) => pause(time, shutdown).await,
            Wait::ForMore => {
                tokio::select! {
                    () = core.nudges.changed() => place.announced = true,
                    () = sleep(LOOK) => {}
                    () = shutdown.cancelled() => return,
                }
                // What is announced at once is read at once.
                sleep_until(looked + GAP).await;
            }
        }
    }
}

async fn pause(time: Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = sleep(time) => {}
        () = shutdown.cancelled() => {}
    }
}

/// What to wait for before the next look.
enum Wait {
    /// There is more.
    None,
    /// What was announced is still behind a transaction that runs.
    For(Duration),
    /// An announcement, or the time of the next look.
    ForMore,
}

/// How far the stream was read.
struct Place {
    /// Up to here.
    at: EventId,
    /// Something was committed since the last look.
    announced: bool,
    /// What was announced was written by transactions before this one.
    awaited: i64,
    patience: Duration,
}

impl Place {
    /// Where the stream stands. Whoever listens already and is further behind reads up to here by themselves.
    async fn begin(core: &Core) -> Result<Self> {
        let system = Operator::system();
        while core.db.in_platform(&system, async |tx| event::rebase(tx, BITE).await).await? > 0 {
            tracing::warn!("events of a restored database were put at the beginning of the stream");
        }
        let at = core.db.in_platform(&system, async |tx| event::now_of_all(tx).await).await?;
        say(core, at, at, Vec::new());
        Ok(Self { at, announced: true, awaited: 0, patience: WAITS.0 })
    }

    /// Reads on, and says what there is.
    async fn look(&mut self, core: &Core) -> Result<Wait> {
        let (system, at) = (Operator::system(), self.at);
        let page = core.db.in_platform(&system, async |tx| event::page_of_all(tx, at, LINES).await).await?;
        if page.to > at {
            self.at = page.to;
            say(core, at, page.to, page.told);
        }
        if self.announced {
            self.announced = false;
            (self.awaited, self.patience) = (self.awaited.max(page.next), WAITS.0);
        }
        if page.full {
            return Ok(Wait::None);
        }
        if page.whole >= self.awaited {
            return Ok(Wait::ForMore);
        }
        let wait = self.patience;
        self.patience = (wait * 2).min(WAITS.1);
        Ok(Wait::For(wait))
    }
}

fn say(core: &Core, from: EventId, to: EventId, told: Vec<Told>) {
    // The last listener may just have left.
    drop(core.feed.stretches.send(Arc::new(Stretch { from, to, told })));
}
