//! The page of one session: the page itself, how the session stands, and tickets for its stream. It is addressed by the
//! session alone; `org` says in which organization of the caller's it is looked for first.

mod connect;
mod page;
mod policy;
mod state;

use actix_web::HttpRequest;
use tidegate_model::{OrgId, OrgStatus, Session, SessionId, StreamMode};
use tidegate_service::{Caller, Error, OrgScope, Paging};

pub(crate) use connect::connect_session;
pub(crate) use page::session;
pub(crate) use state::session_state;

use super::signed_in_to;
use crate::http::{Context, Problem, valid::lenient_query};

/// What the address says beside the session.
#[derive(Debug)]
struct Asked {
    /// The organization to look in, by id or name.
    org: Option<String>,
    mode: StreamMode,
}

impl Asked {
    fn of(request: &HttpRequest) -> Self {
        let mut query = lenient_query(request.query_string());
        let mode = query.get("mode").and_then(|mode| mode.parse().ok());
        Self {
            org: query.remove("org").filter(|org| !org.is_empty()),
            mode: mode.unwrap_or(StreamMode::Control),
        }
    }
}

/// A session and who looks at it, in its organization.
struct Seen {
    caller: Caller,
    session: Session,
}

impl Seen {
    fn org(&self) -> Result<&OrgScope, Problem> {
        Ok(self.caller.org()?)
    }

    fn org_id(&self) -> OrgId {
        self.session.org_id
    }
}

/// The session, for whoever sits at the browser; nothing where nobody is logged in.
async fn find(
    request: &HttpRequest,
    context: &Context,
    id: SessionId,
    asked: &Asked,
) -> Result<Option<Seen>, Problem> {
    let Some(caller) = signed_in_to(request, context, asked.org.as_deref()).await? else { return Ok(None) };
    let sessions = &context.services.sessions;
    match async { sessions.get(caller.org()?, id).await }.await {
        Ok(session) => Ok(Some(Seen { caller, session })),
        Err(error @ Error::NotFound(_)) if asked.org.is_none() => {
            let found = elsewhere(request, context, id, &caller).await?;
            found.map(Some).ok_or_else(|| error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Looks through the caller's other organizations: a link to a session says nothing of where it is.
async fn elsewhere(
    request: &HttpRequest,
    context: &Context,
    id: SessionId,
    caller: &Caller,
) -> Result<Option<Seen>, Problem> {
    let services = &context.services;
    let all = services.organizations.list(caller, &Paging { limit: 100, cursor: None }).await?.items;
    let own = caller.org().ok().map(OrgScope::org_id);
    for (org, _) in all {
        if Some(org.id) == own || org.status != OrgStatus::Active {
            continue;
        }
        let Some(caller) = signed_in_to(request, context, Some(&org.id.to_string())).await? else { break };
        match async { services.sessions.get(caller.org()?, id).await }.await {
            Ok(session) => return Ok(Some(Seen { caller, session })),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Who is not logged in gets no page from the two addresses that the page's script asks.
fn logged_out() -> Problem {
    Problem::unauthenticated("log in first: this browser's login has ended")
}
