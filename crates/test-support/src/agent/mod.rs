//! The simulated agent: one way to behave, over two ways to be connected.

mod behaviour;
mod direct;
mod socket;

pub use behaviour::{Behaviour, Hook};
pub use direct::{SimAgent, new_key_of, registration};
pub use socket::{SocketAgent, SocketOptions};
