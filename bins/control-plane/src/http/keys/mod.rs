//! API keys of an organization.

pub(crate) mod alias;
pub(crate) mod answer;
pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod revoke;
pub(crate) mod rotate;

pub(crate) use alias::{create_alias, list_alias};
pub(crate) use create::create;
pub(crate) use list::list;
pub(crate) use revoke::revoke;
pub(crate) use rotate::rotate;
