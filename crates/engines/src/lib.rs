//! Engines: finds, starts and supervises the private PostgreSQL and nats-server that Tidegate runs when none is configured.
//!
//! What is never kept here: anything that knows what is stored in the engine. This crate depends on no other
//! crate of the project, knows no table and no role beyond the names it is given, and reads no settings but
//! its own [`postgres::Options`] and [`nats::Options`].
//!
//! ```no_run
//! use std::path::Path;
//! use tidegate_engines::postgres::{Options, Postgres};
//!
//! # async fn run() -> Result<(), tidegate_engines::Error> {
//! let options = Options::default_for_host(Path::new("/home/alice/.local/share/tidegate"));
//! let postgres = Postgres::start(options).await?;
//! postgres.run_superuser_sql("postgres", "CREATE ROLE tidegate_app LOGIN").await?;
//! postgres.create_database("tidegate", "tidegate_app").await?;
//! let url = postgres.url("tidegate_app", "tidegate")?;
//! // … serve …
//! postgres.stop().await?;
//! # drop(url);
//! # Ok(())
//! # }
//! ```

mod error;
mod folder;
mod identity;
mod leftovers;
mod log;
pub mod nats;
pub mod postgres;
mod process;
mod programs;
pub mod secrets;
mod supervise;

pub use error::Error;

/// What every function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
