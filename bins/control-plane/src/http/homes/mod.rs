//! Persistent homes: seen, and deleted by way of their agent.

pub(crate) mod delete;
pub(crate) mod list;

pub(crate) use delete::delete;
pub(crate) use list::list;
