//! Why the control plane cannot start or go on. Refusals of requests stand in [`crate::http::Problem`].

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf};

/// Why the control plane cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be read.
    #[error("the configuration cannot be used")]
    Config(#[source] Box<config::ConfigError>),
    /// A setting makes no sense; the sentence says what to do.
    #[error("{0}")]
    Setting(String),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("{} cannot be used as TLS certificate or key", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address is taken or not of this machine.
    #[error("cannot listen on {address}, set `listen` to another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The private PostgreSQL or a secret file.
    #[error(transparent)]
    Engine(#[from] tidegate_engines::Error),
    /// The database did not do what it was asked for at the start.
    #[error("the database cannot be used: {doing}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// NATS, or what is kept of it, cannot be used at the start.
    #[error("NATS cannot be used: {doing}")]
    Nats {
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The HTTP server ended by itself.
    #[error("the HTTP server ended by itself")]
    Server(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The hub ended by itself.
    #[error(transparent)]
    Hub(#[from] tidegate_hub::Error),
}

/// An error and all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // Writing into a String cannot fail.
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}
