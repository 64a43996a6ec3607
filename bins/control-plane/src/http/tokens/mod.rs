//! Bearer tokens of the caller's devices.

pub(crate) mod list;
pub(crate) mod revoke;

pub(crate) use list::list;
pub(crate) use revoke::revoke;
