//! How much one call may cost.

use std::time::Duration;

/// Bounds of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Units of work, about one for each instruction. Default 200 million.
    pub fuel: u64,
    /// Bytes of memory. Default 32 MiB.
    pub memory_bytes: usize,
    /// Time from its beginning to its end, waiting for the host included. Default 2 s.
    pub time: Duration,
    /// Bytes of what it is given, of what it answers, and of each request to the host and its answer. Default 1 MiB.
    pub message_bytes: usize,
    /// Calls of functions of the host. Default 64.
    pub host_calls: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 200_000_000,
            memory_bytes: 32 * 1024 * 1024,
            time: Duration::from_secs(2),
            message_bytes: 1024 * 1024,
            host_calls: 64,
        }
    }
}
