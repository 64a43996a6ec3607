//! Invites, from both sides.

pub(crate) mod answer;
pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod mine;
pub(crate) mod revoke;

pub(crate) use answer::{accept, decline};
pub(crate) use create::create;
pub(crate) use list::list;
pub(crate) use mine::mine;
pub(crate) use revoke::revoke;
