//! What operators see of all users, and do to them as far as their own role.

pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod list;

pub(crate) use change::{delete_user, reset_password, update_user};
pub(crate) use create::create_user;
pub(crate) use list::{get_user, list_users};
