//! The client against a server that answers from a script.

mod calls;
mod fake;
mod streams;
