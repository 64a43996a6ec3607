//! Plugins: what operators do to them, what they answer, and what they show.

pub(crate) mod ask;
pub(crate) mod change;
pub(crate) mod deliveries;
mod file;
pub(crate) mod icon;
pub(crate) mod install;
pub(crate) mod list;
mod multipart;
pub(crate) mod upload;

pub(crate) use ask::ask;
pub(crate) use change::{disable, enable, roll_back, uninstall, update};
pub(crate) use deliveries::{deliveries, redeliver};
pub(crate) use file::{file, theme};
pub(crate) use icon::icon;
pub(crate) use install::install;
pub(crate) use list::{get, list, secret};
pub(crate) use upload::{upgrade, upload};
