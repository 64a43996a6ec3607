//! Lets rows go that are past their time, every few minutes, a bounded number at a time.

use std::time::Duration;

use tidegate_service::Operators;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often: one sweep deletes 100 000 rows of each kind at most, which is 28 million a day.
const PERIOD: Duration = Duration::from_mins(5);

/// Sweeps until `shutdown`. Of several control planes one sweeps at a time.
pub(crate) async fn keep(operators: Operators, shutdown: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        // Outside of the select: work on the database is never cut half-way.
        match operators.tidy().await {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => tracing::info!(?gone, "rows past their retention were deleted"),
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "old rows were not deleted, tried again later");
            }
        }
    }
}
