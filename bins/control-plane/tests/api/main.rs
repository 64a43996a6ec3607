//! The HTTP API, spoken over real sockets to a server in this process, on a database of its own.
// Tests wait for what waits for something else.
#![recursion_limit = "256"]
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod agents;
mod applications;
mod audit;
mod audited;
mod broker_away;
mod browsers;
mod catalog;
mod content;
mod devices;
mod direct_tls;
mod disconnects;
mod errors;
mod events;
mod forgotten;
mod freed;
mod handshake;
mod hostile;
mod invite_pages;
mod invites;
mod keys;
mod launched;
mod limits;
mod members;
mod messages;
mod organizations;
mod outage;
mod places;
mod plugins;
mod quotas;
mod receipts;
mod recorded;
mod repeats;
mod rights;
mod session_limits;
mod session_pages;
mod sessions;
mod setup;
mod shares;
mod sign_in;
mod sources;
mod support;
mod terminal;
mod users;
mod viewers;
mod walk;
mod walls;
