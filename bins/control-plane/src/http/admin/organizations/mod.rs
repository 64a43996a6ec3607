//! What operators see of all organizations, and the platform's admins do to them.

pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod list;

pub(crate) use change::{delete_organization, transfer_organization, update_organization};
pub(crate) use create::create_organization;
pub(crate) use list::{get_organization, list_organizations};
