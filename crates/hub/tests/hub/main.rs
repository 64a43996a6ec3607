//! Whole connections of agents on a real database, over streams in memory.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed, in its helpers too"
)]

mod commands;
mod endings;
mod frames;
mod stand;
