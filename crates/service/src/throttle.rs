//! Limits on attempts. They count failures: a valid credential from the same address goes on working.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use chrono::TimeDelta;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::{Error, Options, Result};

/// Keys kept before those that recovered are dropped.
const KEYS: usize = 100_000;

pub(crate) struct Throttle {
    sources: DefaultKeyedRateLimiter<IpAddr>,
    subjects: DefaultKeyedRateLimiter<String>,
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttle")
            .field("sources", &self.sources.len())
            .field("subjects", &self.subjects.len())
            .finish()
    }
}

fn per_minute(count: u32) -> Quota {
    Quota::per_minute(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN))
}

impl Throttle {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            sources: RateLimiter::keyed(per_minute(options.failures_per_source)),
            subjects: RateLimiter::keyed(per_minute(options.failures_per_subject)),
        }
    }

    /// Takes an attempt for a subject (a username), before any hashing.
    pub(crate) fn attempt(&self, subject: &str) -> Result<()> {
        self.tidy();
        self.subjects.check_key(&subject.to_lowercase()).map_err(|wait| limited(&wait))
    }

    /// Counts a failure of a source; the answer is 429 once there were too many.
    pub(crate) fn failure(&self, source: Option<IpAddr>) -> Result<()> {
        self.tidy();
        source.map_or(Ok(()), |source| self.sources.check_key(&source).map_err(|wait| limited(&wait)))
    }

    fn tidy(&self) {
        if self.sources.len() > KEYS {
            self.sources.retain_recent();
        }
        if self.subjects.len() > KEYS {
            self.subjects.retain_recent();
        }
    }
}

fn limited(wait: &governor::NotUntil<governor::clock::QuantaInstant>) -> Error {
    use governor::clock::Clock;
    let wait = wait.wait_time_from(governor::clock::DefaultClock::default().now());
    Error::RateLimited(
        TimeDelta::from_std(wait.max(Duration::from_secs(1))).unwrap_or(TimeDelta::seconds(60)),
    )
}
