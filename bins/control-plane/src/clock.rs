//! Follows the database's clock: decisions are stamped with its time, whatever this machine's clock says.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use metrics::gauge;
use tidegate_model::{Clock, SystemClock};
use tidegate_service::Db;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often the offset is measured.
const PERIOD: Duration = Duration::from_mins(1);

/// How far the database's clock is ahead of this machine's.
pub(crate) async fn measure(db: &Db) -> Result<TimeDelta, tidegate_service::Error> {
    let machine = SystemClock::new();
    let before = machine.now();
    let database = db.now().await?;
    let after = machine.now();
    // The answer was made half-way between question and arrival, as near as can be told.
    Ok(database - (before + (after - before) / 2))
}

/// Measures each minute until `shutdown`. A database that does not answer leaves the last offset in force.
pub(crate) async fn follow(db: Db, clock: Arc<SystemClock>, shutdown: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let recorder = crate::metrics::handle();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        // Outside of the select: work on the database is never cut half-way.
        match measure(&db).await {
            Ok(offset) => {
                clock.set_offset(offset);
                gauge!("tidegate_clock_offset_seconds").set(offset.as_seconds_f64());
            }
            Err(error) => tracing::warn!(error = crate::chain(&error), "the clock's offset was not measured"),
        }
        recorder.run_upkeep();
    }
}
