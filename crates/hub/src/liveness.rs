//! Whether a connection lives: when something was last heard, when it was last pinged. One central ticker asks; no
//! connection has a timer of its own.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// What the ticker does about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// Send a ping.
    Ping,
    /// Close it: nothing was heard for too long.
    Silent,
}

/// Times in milliseconds since the connection opened: eight bytes each, changed without a lock.
#[derive(Debug)]
pub(crate) struct Liveness {
    opened: Instant,
    heard: AtomicU64,
    pinged: AtomicU64,
    /// Reading waits for the database: silence is ours then, not the agent's.
    paused: AtomicBool,
}

impl Liveness {
    pub(crate) const fn new(opened: Instant) -> Self {
        Self { opened, heard: AtomicU64::new(0), pinged: AtomicU64::new(0), paused: AtomicBool::new(false) }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX)
    }

    /// How long it has been open.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    /// A frame came.
    pub(crate) fn heard(&self, now: Instant) {
        self.heard.store(self.millis(now), Ordering::Relaxed);
    }

    /// Reading stops until [`Liveness::resume`].
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Reading goes on; the silence meanwhile does not count.
    pub(crate) fn resume(&self, now: Instant) {
        self.heard(now);
        self.paused.store(false, Ordering::Relaxed);
    }

    /// What is to be done now; a ping that is due counts as sent.
    pub(crate) fn due(&self, now: Instant, silence: Duration, ping: Duration) -> Due {
        let now = self.millis(now);
        let since =
            |then: &AtomicU64| Duration::from_millis(now.saturating_sub(then.load(Ordering::Relaxed)));
        if !self.paused.load(Ordering::Relaxed) && since(&self.heard) > silence {
            Due::Silent
        } else if since(&self.pinged) >= ping {
            self.pinged.store(now, Ordering::Relaxed);
            Due::Ping
        } else {
            Due::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(30);
    const PING: Duration = Duration::from_secs(25);

    fn due(life: &Liveness, opened: Instant, second: u64) -> Due {
        life.due(opened + Duration::from_secs(second), SILENCE, PING)
    }

    #[test]
    fn a_connection_is_pinged_once_a_period() {
        let opened = Instant::now();
        let life = Liveness::new(opened);
        assert_eq!(due(&life, opened, 24), Due::Nothing);
        assert_eq!(due(&life, opened, 25), Due::Ping);
        assert_eq!(due(&life, opened, 26), Due::Nothing);
        life.heard(opened + Duration::from_secs(49));
        assert_eq!(due(&life, opened, 50), Due::Ping);
    }

    #[test]
    fn a_connection_that_says_nothing_for_three_heartbeats_is_silent() {
        let opened = Instant::now();
        let life = Liveness::new(opened);
        life.heard(opened + Duration::from_secs(10));
        assert_ne!(due(&life, opened, 40), Due::Silent);
        assert_eq!(due(&life, opened, 41), Due::Silent);
    }

    #[test]
    fn silence_while_reading_is_paused_is_not_the_agents() {
        let opened = Instant::now();
        let life = Liveness::new(opened);
        life.pause();
        assert_eq!(due(&life, opened, 400), Due::Ping);
        life.resume(opened + Duration::from_secs(500));
        assert_ne!(due(&life, opened, 530), Due::Silent);
        assert_eq!(due(&life, opened, 531), Due::Silent);
    }
}
