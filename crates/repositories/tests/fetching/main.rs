//! Fetching real repositories, by every way, and hostile ones.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed, in its helpers too")]

mod archives;
mod examples;
mod git;
mod hostile;
mod http_git;
mod ssh;
mod stage;
