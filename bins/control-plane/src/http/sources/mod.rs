//! Sources of the caller's organization: handles that messages are sent to, their pipes, and who may use them.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod end;
mod follow;
pub(crate) mod followers;
pub(crate) mod get;
pub(crate) mod grants;
mod last_event;
pub(crate) mod list;
pub(crate) mod messages;
pub(crate) mod open;
pub(crate) mod pipes;
pub(crate) mod place;
pub(crate) mod receipts;
pub(crate) mod subscriptions;

pub(crate) use create::create;
pub(crate) use delete::delete;
pub(crate) use end::end;
pub(crate) use get::get;
pub(crate) use grants::{grant, list_grants, revoke_grant};
pub(crate) use list::list;
pub(crate) use messages::{read, send};
pub(crate) use open::open;
pub(crate) use pipes::{create_pipe, delete_pipe, list_pipes, update_pipe};
pub(crate) use place::confirm;
pub(crate) use receipts::receipts;
pub(crate) use subscriptions::{seen, subscriptions};

use crate::http::Problem;

/// Fields whose complaints have a word of their own, the first that is bad gives it.
const WORDS: [(&str, &str); 3] =
    [("handle", "E_INVALID_HANDLE"), ("name", "E_INVALID_PIPE"), ("kind", "E_INVALID_KIND")];

/// A refusal in the words that sources and pipes have.
fn worded(problem: impl Into<Problem>) -> Problem {
    problem.into().worded(&WORDS)
}
