//! Where NATS is and how long anything may take.

use std::path::PathBuf;
use std::time::Duration;

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct Options {
    /// The servers, for instance `nats://127.0.0.1:4222` or `tls://nats-1.example.org`; one that is down is passed over.
    pub urls: Vec<String>,
    /// What is trusted beyond loopback.
    pub tls: Tls,
    /// How long one connection attempt may take; 5 s.
    pub connect_timeout: Duration,
    /// How long one answer may take; 5 s.
    pub request_timeout: Duration,
    /// How many requests of one connection may wait at the same time; 1 024. One more is refused.
    pub in_flight: usize,
    /// How many copies of a stream a cluster keeps: 1, 3 or 5; 1.
    pub replicas: usize,
    /// How many organizations may be connected at once; 1 000. One more closes the one that was idle longest.
    pub connections: usize,
    /// How long an organization's connection is kept without use; 5 minutes.
    pub idle: Duration,
}

/// How the connection is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whether a plain connection is refused.
    pub required: bool,
    /// Certificates to trust besides the system's, in PEM.
    pub roots: Vec<PathBuf>,
}

impl Options {
    /// Defaults for one or more servers.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            in_flight: 1_024,
            replicas: 1,
            connections: 1_000,
            idle: Duration::from_mins(5),
        }
    }
}
