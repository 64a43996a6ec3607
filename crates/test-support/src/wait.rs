//! Waiting for what happens on another task or in another process: a condition is polled until a deadline.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

/// Far more than anything in a test takes, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Waits until `condition` holds; panics with `what` when it does not in time.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(what, async || condition().await.then_some(())).await;
}

/// Waits until `look` finds something; panics with `what` when it does not in time.
pub async fn eventually_some<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut poll = interval(Duration::from_millis(10));
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let wait = async {
        loop {
            poll.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what}: this did not happen in time"))
}
