//! The pages in a real browser. `scripts/test` installs it; without one there is nothing to test, and in CI that is a
//! failure.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod application;
mod browser;
mod desktop;
mod devices;
mod forgotten;
mod session;
mod shell;
mod stage;
#[path = "../api/support.rs"]
#[expect(dead_code, reason = "the tests of the API need more of it")]
mod support;
