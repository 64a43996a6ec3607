//! What operators do to agents, and to sessions wherever they are.

pub(crate) mod change;
pub(crate) mod command;
pub(crate) mod commands;
pub(crate) mod decide;
pub(crate) mod drain;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod order;
pub(crate) mod organizations;
pub(crate) mod quarantine;
pub(crate) mod quotas;
pub(crate) mod rotate_key;
pub(crate) mod sessions;
pub(crate) mod users;

pub(crate) use change::{remove, update};
pub(crate) use command::command;
pub(crate) use commands::commands;
pub(crate) use decide::{approve, reject};
pub(crate) use drain::{drain, undrain};
pub(crate) use get::get;
pub(crate) use list::list;
pub(crate) use order::order;
pub(crate) use quarantine::{forget, quarantine, stop};
pub(crate) use rotate_key::{revoke_key, rotate_key};
pub(crate) use sessions::{list_sessions, terminate_session};
