//! Carries installations of applications out, when a nudge says that there is one and every few seconds besides. Every
//! control plane does it; of two, one gets the lease.

use std::time::Duration;

use tidegate_service::{Applications, Nudge};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// How often it looks without a nudge: for what other control planes were told of, or died at.
const PERIOD: Duration = Duration::from_secs(5);

/// Installs until `shutdown`.
pub(crate) async fn keep(
    applications: Applications,
    mut nudges: Receiver<Nudge>,
    shutdown: CancellationToken,
) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = nudged(&mut nudges) => {}
            () = shutdown.cancelled() => return,
        }
        // Outside of the select: work on the database is never cut half-way.
        match applications.install_due().await {
            Ok(ended) => {
                failing = false;
                if ended > 0 {
                    tracing::info!(ended, "installations of applications ended");
                }
            }
            // Once an outage, and not every time.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(error = crate::chain(&error), "applications were not installed, tried again");
            }
            Err(_) => {}
        }
    }
}

/// Waits until there may be one.
async fn nudged(nudges: &mut Receiver<Nudge>) {
    loop {
        match nudges.recv().await {
            Ok(Nudge::Installation) | Err(RecvError::Lagged(_)) => return,
            Ok(
                Nudge::Commands(_)
                | Nudge::Revoked(_)
                | Nudge::SessionEnded(_)
                | Nudge::Revalidate
                | Nudge::Mail
                | Nudge::Plugins,
            ) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
