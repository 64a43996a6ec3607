//! What members, groups and organizations may use, and use.

pub(crate) mod answer;
pub(crate) mod check;
pub(crate) mod of_group;
pub(crate) mod of_organization;
pub(crate) mod of_user;
pub(crate) mod usage;

pub(crate) use check::check;
pub(crate) use usage::usage;
