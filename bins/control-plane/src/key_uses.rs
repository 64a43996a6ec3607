//! Writes down when API keys and bearer tokens were last used and how often plugins were looked at, every few seconds and
//! once more at the end.

use std::time::Duration;

use tidegate_service::{BearerTokens, Catalog, Keys};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often. A use is shown to the minute, so that more often would tell nobody more.
const PERIOD: Duration = Duration::from_secs(5);

/// Writes until `shutdown`, and what is left then.
pub(crate) async fn write(keys: Keys, tokens: BearerTokens, catalog: Catalog, shutdown: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = shutdown.cancelled() => true,
        };
        // Outside of the select: work on the database is never cut half-way.
        for written in [keys.flush_uses().await, tokens.flush_uses().await] {
            if let Err(error) = written {
                tracing::debug!(
                    error = crate::chain(&error),
                    "uses of keys and tokens were not written, tried again later"
                );
            }
        }
        if let Err(error) = catalog.flush_views().await {
            tracing::debug!(
                error = crate::chain(&error),
                "views of plugins were not written, tried again later"
            );
        }
        if last {
            return;
        }
    }
}
