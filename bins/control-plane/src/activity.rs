//! Writes down every few seconds in which sessions somebody typed, and once more at the end: a line a session and period,
//! and no write a key.

use std::{collections::BTreeMap, time::Duration};

use tidegate_hub::Hub;
use tidegate_model::{SessionId, UserId};
use tidegate_service::Activity;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Writes until `shutdown`, and what is left then. What could not be written waits for the next time: that is one entry a
/// session, however long the database is away.
pub(crate) async fn write(hub: Hub, activity: Activity, period: Duration, shutdown: CancellationToken) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting: BTreeMap<SessionId, UserId> = BTreeMap::new();
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = shutdown.cancelled() => true,
        };
        waiting.append(&mut hub.take_activity());
        if !waiting.is_empty() {
            // Outside of the select: work on the database is never cut half-way.
            match activity.note_input(&waiting).await {
                Ok(_) => waiting.clear(),
                Err(error) => tracing::debug!(
                    error = crate::chain(&error),
                    "what was typed was not written down, tried again later"
                ),
            }
        }
        if last {
            return;
        }
    }
}
