//! How long to wait before the database is asked again.

use std::time::Duration;

/// Doubles from 50 ms to 2 s, with a quarter of chance.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_secs(2);

    /// The next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(Self::LAST);
        wait.mul_f64(rand::random_range(0.75..1.0))
    }
}

/// An outage is told twice: when it begins and when it is over.
#[derive(Debug)]
pub(crate) struct Outage {
    what: &'static str,
    on: bool,
}

impl Outage {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, on: false }
    }

    /// Notes how an attempt ended.
    pub(crate) fn note<T>(&mut self, result: &Result<T, tidegate_service::Error>) {
        match result {
            Ok(_) if self.on => {
                self.on = false;
                tracing::info!(what = self.what, "works again");
            }
            Err(error) if !self.on => {
                self.on = true;
                let error: &dyn std::error::Error = error;
                tracing::error!(error, what = self.what, "failed, tried again until it works");
            }
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.wait()).collect();
        assert!(waits[0] <= Backoff::FIRST && waits[1] > waits[0]);
        assert!(waits[19] <= Backoff::LAST && waits[19] >= Backoff::LAST / 2);
    }
}
