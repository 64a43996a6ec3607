//! Percentiles and rates.

use std::time::Duration;

/// Times, sorted.
#[derive(Debug, Clone)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` of a hundred stay below, in milliseconds; 0 of none.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        // The nearest rank: the smallest time that at least so many are not above.
        let rank = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(rank).or(self.0.last()).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
    }
}

/// How many a second.
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    real(count) / time.as_secs_f64().max(f64::EPSILON)
}

/// MiB a second.
pub(crate) fn mebibytes(bytes: u64, time: Duration) -> f64 {
    rate(bytes, time) / (1024.0 * 1024.0)
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
pub(crate) const fn real(count: u64) -> f64 {
    count as f64
}

/// The mean; 0 of none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / real(values.len() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times = Times::new((1..=200).rev().map(Duration::from_millis).collect());
        assert!((times.percentile(50) - 100.0).abs() < 1e-9);
        assert!((times.percentile(99) - 198.0).abs() < 1e-9);
        assert!((times.percentile(100) - 200.0).abs() < 1e-9);
        assert!(Times::new(Vec::new()).percentile(99).abs() < 1e-9);
    }
}
