//! The client against a server that answers from a script.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calls;
mod events;
mod fake;
mod streams;
mod terminal_pipes;
