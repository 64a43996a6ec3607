//! A clock that stands still until a test moves it.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::Clock;

/// 2026-01-01T00:00:00Z, in seconds.
const BEGINNING: i64 = 1_767_225_600;

/// A clock set by hand; it starts at 2026-01-01T00:00:00Z.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl ManualClock {
    /// A clock at its beginning.
    pub const fn new() -> Self {
        Self(AtomicI64::new(BEGINNING * 1_000_000))
    }

    /// Moves the clock on, or back.
    pub fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_microseconds().expect("a short step"), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0.load(Ordering::SeqCst)).expect("a date")
    }
}
