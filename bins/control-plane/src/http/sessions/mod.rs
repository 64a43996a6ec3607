//! Sessions of the caller's organization.

pub(crate) mod activity;
pub(crate) mod answer;
pub(crate) mod connect;
pub(crate) mod create;
pub(crate) mod disconnect;
pub(crate) mod get;
pub(crate) mod hibernate;
pub(crate) mod history;
pub(crate) mod limits;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod port;
pub(crate) mod shares;
pub(crate) mod tags;
pub(crate) mod terminal;
pub(crate) mod terminate;
pub(crate) mod viewer;
pub(crate) mod vnc;
pub(crate) mod wake;

pub(crate) use activity::{activity, heartbeat};
pub(crate) use connect::connect;
pub(crate) use create::create;
pub(crate) use disconnect::disconnect;
pub(crate) use get::get;
pub(crate) use hibernate::hibernate;
pub(crate) use history::history;
pub(crate) use limits::{extend, policy};
pub(crate) use list::list;
pub(crate) use logs::logs;
pub(crate) use port::port;
pub(crate) use shares::{create_share, list_shares, revoke_share};
pub(crate) use tags::set_tags;
pub(crate) use terminal::terminal;
pub(crate) use terminate::{terminate, terminate_it};
pub(crate) use vnc::vnc;
pub(crate) use wake::wake;
