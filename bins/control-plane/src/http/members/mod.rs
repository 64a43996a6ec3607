//! Members of an organization.

pub(crate) mod add;
pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod set_role;

pub(crate) use add::add;
pub(crate) use list::list;
pub(crate) use remove::remove;
pub(crate) use set_role::set_role;
