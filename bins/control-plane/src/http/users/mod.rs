//! People.

pub(crate) mod me;

pub(crate) use me::me;
