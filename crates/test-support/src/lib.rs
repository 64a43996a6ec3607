//! What the tests of every other room share: a database of their own, people, simulated agents and a clock set by hand.
//!
//! What is never kept here: anything a program ships with, and tests of its own rooms. A test that uses this crate
//! stands in `tests/`, never in `src`.
//!
//! ```no_run
//! # use tidegate_test_support::{TestDb, new_session};
//! # async fn test() {
//! let test = TestDb::new().await;
//! let org = test.org_with_admin("acme").await;
//! let mut agent = test.online_agent("vm-1", 10).await;
//! let session = test.running_session(&org.admin, &mut agent).await;
//! test.manual_clock().advance(chrono::TimeDelta::minutes(5));
//! # drop((session, new_session("shell")));
//! # }
//! ```
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod agent;
mod ca;
pub mod catalog;
mod clock;
mod cluster;
mod database;
mod external;
mod frozen;
mod identity_provider;
pub mod nats;
mod nats_cluster;
mod people;
mod port;
mod wait;

pub use agent::{Behaviour, Hook, SimAgent, SocketAgent, SocketOptions, new_key_of, registration};
pub use ca::{TestCa, TestCertificate};
pub use clock::ManualClock;
pub use cluster::{Cluster, PrivateCluster, URL_VARIABLE, connect};
pub use database::{BOOTSTRAP_KEY, MASTER_KEY, Outage, TestDb};
pub use external::ExternalPostgres;
pub use frozen::{FrozenPostgres, postmaster};
pub use identity_provider::{Account, CLIENT_ID, CLIENT_SECRET, IdentityProvider, Lie, Signature};
pub use nats_cluster::NatsCluster;
pub use people::{TestOrg, TestUser, new_session};
pub use port::free_port;
pub use wait::{DEADLINE, eventually, eventually_some};
