//! People.

pub(crate) mod me;
pub(crate) mod permissions;

pub(crate) use me::me;
pub(crate) use permissions::permissions;
