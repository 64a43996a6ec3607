//! Syncs repositories whose turn it is: those somebody asked for at once, the others when their time has come.

use std::time::Duration;

use tidegate_service::{Repositories, SyncEnd};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Repositories that one control plane syncs at one time.
pub(crate) const AT_ONE_TIME: usize = 2;
/// How often it looks without being asked: for what other control planes were asked for, and for what has come due.
const PERIOD: Duration = Duration::from_secs(5);

/// Syncs until `shutdown`. What is under way then is given up, and done by whoever is there next.
pub(crate) async fn keep(repositories: Repositories, shutdown: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = repositories.wanted() => {}
            () = shutdown.cancelled() => return,
        }
        // Outside of the select: work on the database is never cut half-way.
        while !shutdown.is_cancelled() {
            match repositories.sync_due(&shutdown).await {
                Ok(None) => break,
                Ok(Some(report)) => {
                    if let SyncEnd::Synced { templates, plugins, changed, withdrawn, problems, .. } =
                        report.end
                    {
                        let repository = report.id;
                        tracing::info!(%repository, templates, plugins, changed, withdrawn, problems, "synced");
                    }
                }
                Err(error) => {
                    tracing::warn!(error = crate::chain(&error), "a sync was not written, tried again later");
                    break;
                }
            }
        }
    }
}
