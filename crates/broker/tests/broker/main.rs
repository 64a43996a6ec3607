//! The broker against a real nats-server, with real clients beside it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

mod accounts;
mod cluster;
mod isolation;
mod messages;
mod raw;
mod support;
mod survival;
