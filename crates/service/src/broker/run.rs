//! What goes on beside requests, in every process: operations, revocations, news of sources, drift, connections nobody uses.

use std::time::Duration;

use futures_util::future::{join, join3, join5};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Broker;
use crate::{Nudge, Result};

/// How often operations are looked for without a hint: for what other processes asked for, and for what is tried again.
const APPLY: Duration = Duration::from_millis(500);
/// How often ended credentials are looked for without a hint.
const REVOKE: Duration = Duration::from_millis(500);
/// How often news of sources are written.
const NOTE: Duration = Duration::from_millis(100);
/// How often connections that nobody uses are closed.
const SWEEP: Duration = Duration::from_secs(30);
/// How often the operator is looked at, whose signing key another process may have changed.
const SEE: Duration = Duration::from_secs(2);
/// How often the room of the streams is looked at.
const ROOM: Duration = Duration::from_secs(1);
/// How often what waits is counted, for the figures.
const MEASURE: Duration = Duration::from_secs(15);

impl Broker {
    /// Makes NATS follow until `shutdown`; what is left then is left to whoever comes. Without NATS it does nothing.
    pub async fn run(&self, shutdown: CancellationToken) {
        let Ok(live) = self.0.broker.live() else { return };
        let noted = async {
            self.every(NOTE, Chore::Note, &shutdown).await;
            // What was sent until the very end.
            drop(self.0.broker.noted.write(&self.0).await);
        };
        let (swept, compared) = (
            self.every(SWEEP, Chore::Sweep, &shutdown),
            self.every(live.reconcile, Chore::Compare, &shutdown),
        );
        let (applied, revoked) = (self.apply(&shutdown), self.revoke(&shutdown));
        let seen = join3(
            self.every(SEE, Chore::See, &shutdown),
            self.every(ROOM, Chore::Room, &shutdown),
            self.every(MEASURE, Chore::Measure, &shutdown),
        );
        Box::pin(join(join5(applied, revoked, noted, swept, compared), seen)).await;
    }

    async fn apply(&self, shutdown: &CancellationToken) {
        let (mut ticks, mut fault) = (ticks(APPLY), Fault::new("NATS was not made to follow the pipes"));
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.broker.woken() => {}
                () = shutdown.cancelled() => return,
            }
            // Outside of the select: work on the database is never cut half-way.
            while !shutdown.is_cancelled()
                && fault.of(self.apply_pending().await).is_some_and(|done| done > 0)
            {}
        }
    }

    async fn revoke(&self, shutdown: &CancellationToken) {
        let mut nudges = self.0.nudges.subscribe();
        let (mut ticks, mut fault) = (ticks(REVOKE), Fault::new("ended credentials are still on NATS"));
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = Nudge::revalidation(&mut nudges) => self.0.broker.wake(),
                () = shutdown.cancelled() => return,
            }
            fault.of(self.revoke_lapsed().await);
        }
    }

    async fn every(&self, period: Duration, chore: Chore, shutdown: &CancellationToken) {
        let (mut ticks, mut fault) = (ticks(period), Fault::new(chore.complaint()));
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            fault.of(self.once(chore, shutdown).await);
        }
    }

    async fn once(&self, chore: Chore, shutdown: &CancellationToken) -> Result<()> {
        match chore {
            Chore::Note => self.0.broker.noted.write(&self.0).await.map(drop),
            Chore::Sweep => {
                self.0.broker.live()?.pool.sweep().await;
                Ok(())
            }
            Chore::Compare => self.reconcile_until(shutdown).await.map(drop),
            Chore::See => self.see_operator().await,
            Chore::Room => self.look_at_room().await,
            Chore::Measure => self.measure().await,
        }
    }
}

/// What is done again and again.
#[derive(Debug, Clone, Copy)]
enum Chore {
    Note,
    Sweep,
    Compare,
    See,
    Room,
    Measure,
}

impl Chore {
    const fn complaint(self) -> &'static str {
        match self {
            Self::Note => "news of sources were not written",
            Self::Sweep => "connections were not closed",
            Self::Compare => "pipes were not compared with NATS",
            Self::See => "the operator of NATS was not looked at",
            Self::Room => "NATS was not told whether there is room for messages",
            Self::Measure => "what waits for NATS was not counted",
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Tells of an outage once, and not every time.
struct Fault {
    complaint: &'static str,
    failing: bool,
}

impl Fault {
    const fn new(complaint: &'static str) -> Self {
        Self { complaint, failing: false }
    }

    fn of<T>(&mut self, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(done) => {
                self.failing = false;
                Some(done)
            }
            Err(error) => {
                if !self.failing {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "{}, tried again", self.complaint);
                }
                self.failing = true;
                None
            }
        }
    }
}
