//! The HTTP API, spoken over real sockets to a server in this process, on a database of its own.

mod agents;
mod errors;
mod handshake;
mod sessions;
mod support;
mod terminal;
mod walls;
