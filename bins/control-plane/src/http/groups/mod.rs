//! Groups of an organization's members.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod members;
pub(crate) mod of_user;
pub(crate) mod update;

pub(crate) use create::create;
pub(crate) use delete::delete;
pub(crate) use get::get;
pub(crate) use list::list;
pub(crate) use members::{add_member, list_members, remove_member, set_member_role};
pub(crate) use of_user::of_user;
pub(crate) use update::update;
