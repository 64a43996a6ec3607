//! Organizations, seen from inside.

pub(crate) mod answer;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod session_policy;
pub(crate) mod transfer;
pub(crate) mod update;

pub(crate) use create::create;
pub(crate) use delete::delete;
pub(crate) use get::get;
pub(crate) use list::list;
pub(crate) use session_policy::{get_session_policy, set_session_policy};
pub(crate) use transfer::transfer;
pub(crate) use update::update;
