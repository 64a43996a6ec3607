//! What agents call: registration, heartbeats without a socket, the control connection, tunnels.

pub(crate) mod connect;
pub(crate) mod heartbeat;
mod key;
pub(crate) mod register;
pub(crate) mod tunnel;

pub(crate) use connect::connect;
pub(crate) use heartbeat::heartbeat;
pub(crate) use register::register;
pub(crate) use tunnel::tunnel;
