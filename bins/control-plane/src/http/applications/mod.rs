//! Installed applications of the caller's organization.

pub(crate) mod get;
pub(crate) mod groups;
pub(crate) mod icon;
pub(crate) mod install;
pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod update;

pub(crate) use get::get;
pub(crate) use groups::{add_group, get_group, list_groups, remove_group, set_group};
pub(crate) use icon::icon;
pub(crate) use install::install;
pub(crate) use list::{list, list_user};
pub(crate) use remove::remove;
pub(crate) use update::{set_enabled, update};
