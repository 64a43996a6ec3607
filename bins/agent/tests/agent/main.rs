//! The agent with real processes: its program, its shims, and a control plane that does what a test says.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod adoption;
mod commands;
mod containers;
mod control_plane;
mod forks;
mod platform;
mod registration;
mod start_once;
mod support;
mod terminal;
mod tls;
