//! The stream of events.

mod pump;
pub(crate) mod stream;
pub(crate) mod ticket;
mod write;

pub(crate) use pump::{Ending, watch};
pub(crate) use stream::stream;
pub(crate) use ticket::ticket;
