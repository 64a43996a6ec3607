//! Where the time comes from.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

/// The time, as decisions see it. Production follows the database's clock; tests set it by hand.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present, in whole microseconds, which is what PostgreSQL keeps.
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock, corrected by a measured offset (microseconds).
#[derive(Debug, Default)]
pub struct SystemClock {
    offset: AtomicI64,
}

impl SystemClock {
    /// A clock that follows the machine's until [`SystemClock::set_offset`] is told better.
    pub const fn new() -> Self {
        Self { offset: AtomicI64::new(0) }
    }

    /// Sets how far the database's clock is ahead of the machine's.
    pub fn set_offset(&self, offset: TimeDelta) {
        self.offset.store(offset.num_microseconds().unwrap_or(0), Ordering::Relaxed);
    }

    /// How far the database's clock was ahead at the last measurement.
    pub fn offset(&self) -> TimeDelta {
        TimeDelta::microseconds(self.offset.load(Ordering::Relaxed))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
        let now = Utc::now() + self.offset();
        now.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(now)
    }
}
