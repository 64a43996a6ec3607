//! The HTTP API, spoken over real sockets to a server in this process, on a database of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod agents;
mod audit;
mod audited;
mod browsers;
mod content;
mod devices;
mod direct_tls;
mod errors;
mod events;
mod forgotten;
mod handshake;
mod invite_pages;
mod invites;
mod keys;
mod limits;
mod members;
mod organizations;
mod outage;
mod quotas;
mod repeats;
mod rights;
mod session_limits;
mod session_pages;
mod sessions;
mod setup;
mod shares;
mod sign_in;
mod support;
mod terminal;
mod users;
mod viewers;
mod walk;
mod walls;
