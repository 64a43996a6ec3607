//! Warns, hibernates and terminates sessions whose limits say so, every second. Every control plane does it; of two, one
//! wins each session.

use std::time::Duration;

use tidegate_service::{Limits, Swept};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often: an index says at once that nothing is due.
const PERIOD: Duration = Duration::from_secs(1);

/// Sweeps until `shutdown`.
pub(crate) async fn keep(limits: Limits, shutdown: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        // Outside of the select: work on the database is never cut half-way.
        match limits.sweep().await {
            Ok(swept) => {
                failing = false;
                if swept != Swept::default() {
                    let Swept { warned, hibernated, terminated } = swept;
                    tracing::info!(warned, hibernated, terminated, "sessions reached their limits");
                }
            }
            // Once an outage, and not every second of it.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(
                    error = crate::chain(&error),
                    "sessions' limits were not looked at, tried again"
                );
            }
            Err(_) => {}
        }
    }
}
