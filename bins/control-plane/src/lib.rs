//! The control plane: HTTP in, wiring, background tasks. The only room with status codes.
//!
//! What is never kept here: what is allowed (that is `tidegate-service`), names of tables, frames of live agents (that
//! is `tidegate-hub`). [`run`] is the program; [`Server::start`] is the server alone, on services that somebody else
//! wired, for tests and for whoever embeds it.

mod activity;
mod clock;
mod config;
mod database;
mod departure;
mod descriptors;
mod embedded;
mod error;
mod health;
pub mod http;
mod installations;
mod keep_alive;
mod key_uses;
mod limits;
pub mod log;
mod mail;
mod metrics;
mod nats;
mod recorder;
mod repositories;
mod retention;
mod server;
mod tls;

pub use config::{
    Config, DatabaseConfig, HubConfig, Limits, LogConfig, LogFormat, MetricsConfig, NatsConfig,
    NatsDurability, PostgresConfig, SecretsConfig, StreamsConfig, TlsConfig,
};
pub use descriptors::raise_descriptors;
pub use error::{Error, chain};
pub use server::{Handle, Server, run};
