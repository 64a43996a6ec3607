//! People.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod me;
pub(crate) mod one;
pub(crate) mod permissions;

pub(crate) use create::create;
pub(crate) use list::list;
pub(crate) use me::{me, update_me};
pub(crate) use one::{delete, get, sessions, update};
pub(crate) use permissions::permissions;
