//! Who may watch what: single-use tickets, and what a tunnel needs to know.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::json;
use tidegate_model::{
    ActivityKind, AgentId, DisconnectRequest, GrantId, Operation, Scope, Session, SessionId, SessionState,
    StreamKind, StreamMode, TicketId,
};
use tidegate_persistence::{
    Error as DbError, OrgScope, audit, auth, membership, stream_grant, ticket, viewing, viewing::ViewingEnd,
};

use crate::{
    Caller, Changed, Core, Error, Logins, Nudge, Result, Sessions,
    error::Named,
    members::Person,
    options::Options,
    permissions::may,
    secrets::{Purpose, random_token},
    sessions::{Right, seen_in},
};

/// Tickets and rights of streams.
#[derive(Debug, Clone)]
pub struct Streams(pub(crate) Arc<Core>);

/// A ticket for one stream, shown once.
#[derive(Debug, Clone)]
pub struct StreamTicket {
    /// The session as it is now; asleep, it has been asked to wake.
    pub session: Session,
    /// The secret.
    pub ticket: String,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
}

/// What a browser got for a ticket, shown once.
#[derive(Debug, Clone)]
pub struct StreamGrant {
    /// The secret.
    pub secret: String,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
}

/// A stream somebody may open.
#[derive(Debug, Clone)]
pub struct OpenedStream {
    /// Who opens it.
    pub caller: Caller,
    /// The session.
    pub session: SessionId,
    /// Which of its starts it is a stream of.
    pub generation: i64,
    /// The agent it is placed on.
    pub agent: AgentId,
    /// What the viewer may do.
    pub mode: StreamMode,
    /// Their viewings that were opened before this one may have been ended up to here; a later end ends this one too.
    pub ended: ViewingEnd,
}

impl OpenedStream {
    /// What is looked at again and again while it is open.
    pub fn viewing(&self) -> Viewing {
        Viewing { caller: self.caller.clone(), session: self.session, mode: self.mode, ended: self.ended }
    }
}

/// Somebody who watches a session.
#[derive(Debug, Clone)]
pub struct Viewing {
    /// Who.
    pub caller: Caller,
    /// Which session.
    pub session: SessionId,
    /// What they do with it.
    pub mode: StreamMode,
    /// As of the stream they opened.
    pub ended: ViewingEnd,
}

impl Streams {
    /// A ticket for one stream of a session; wakes the session if it is asleep.
    pub async fn connect(
        &self,
        scope: &OrgScope,
        id: SessionId,
        kind: StreamKind,
        mode: StreamMode,
    ) -> Result<StreamTicket> {
        let core = &self.0;
        let session = Sessions(Arc::clone(core)).get(scope, id).await?;
        may_stream(scope, &session, mode)?;
        let session = match session.state {
            SessionState::Hibernated if !scope.scopes().allow(Scope::SessionsWrite) => {
                return Err(Error::Forbidden(
                    "the session sleeps, and waking it needs the scope `sessions:write`, which this API key does not have".into(),
                ));
            }
            SessionState::Hibernated => match Sessions(Arc::clone(core)).wake(scope, id).await? {
                Changed::Queued(session, _) | Changed::Already(session) => session,
                Changed::Replay(_) => session,
            },
            SessionState::Pending | SessionState::Waking | SessionState::Running => session,
            state => return Err(Error::WrongState { id, state }),
        };
        let (now, secret) = (core.clock.now(), random_token()?);
        let expires_at = now + Options::seconds(core.options.ticket_seconds.min(30));
        let new = ticket::NewTicket {
            id: TicketId::new(),
            hash: core.vault.digest(Purpose::Ticket, &secret),
            session_id: id,
            credential: scope.credential(),
            kind,
            mode,
            expires_at,
        };
        core.db
            .in_org(scope, async |tx| {
                ticket::insert(tx, new).await?;
                core.declared_in(tx, id, scope.user_id(), ActivityKind::Connect).await
            })
            .await?;
        Ok(StreamTicket { session, ticket: secret, expires_at })
    }

    /// Uses a ticket up. Used, late, for another session or kind, or of a credential that ended: it is just not good.
    pub async fn redeem(&self, secret: &str, id: SessionId, kind: StreamKind) -> Result<OpenedStream> {
        const NOT_GOOD: Error =
            Error::Unauthenticated("the ticket is wrong, used or too old: ask for a new one");
        let core = &self.0;
        let hash = core.vault.digest(Purpose::Ticket, secret);
        let found = auth::ticket(&core.db, hash).await.map_err(|error| match error {
            DbError::NotFound => NOT_GOOD,
            other => other.into(),
        })?;
        if found.session_id != id {
            return Err(NOT_GOOD);
        }
        let org = found.org_id.to_string();
        let caller = Logins(Arc::clone(core)).caller(found.credential, Some(&org)).await?;
        let scope = caller.org.clone().filter(opens_streams).ok_or(NOT_GOOD)?;
        let now = core.clock.now();
        let (mode, ended) = core
            .db
            .in_org(&scope, async |tx| {
                let mode = ticket::consume(tx, found.id, kind, now).await?;
                // A ticket lasts no longer than the share it was asked for by.
                let (session, _) = seen_in(core, tx, &scope, id).await?;
                may_stream(&scope, &session, mode)?;
                // An end of the viewer's viewings uses tickets up: from here on it is the stream that it ends.
                Ok::<_, Error>((mode, viewing::opening(tx, id).await?.ended))
            })
            .await
            .map_err(|error| match error {
                Error::NotFound(_) | Error::Forbidden(_) => NOT_GOOD,
                other => other,
            })?;
        let opened = self.open(caller, id, mode).await?;
        Ok(OpenedStream { ended, ..opened })
    }

    /// Exchanges a ticket for what a browser shows at every request to the session's own origin, and until when that is
    /// good. The ticket is used up.
    pub async fn exchange(&self, ticket: &str, id: SessionId) -> Result<StreamGrant> {
        let core = &self.0;
        let opened = self.redeem(ticket, id, StreamKind::Http).await?;
        let (now, secret) = (core.clock.now(), random_token()?);
        let expires_at = now + Options::seconds(core.options.grant_minutes.saturating_mul(60));
        let new = stream_grant::NewGrant {
            id: GrantId::new(),
            hash: core.vault.digest(Purpose::StreamGrant, &secret),
            session_id: id,
            credential: opened.caller.credential(),
            mode: opened.mode,
            created_at: now,
            expires_at,
        };
        let scope = opened.caller.org()?.clone();
        core.db
            .in_org(&scope, async |tx| {
                stream_grant::insert(tx, new).await?;
                // Whoever was shown out since the ticket was taken gets nothing to come back with.
                if viewing::opening(tx, id).await?.ended > opened.ended {
                    return Err(Error::Unauthenticated("the viewing was ended: open the session again"));
                }
                Ok(())
            })
            .await?;
        Ok(StreamGrant { secret, expires_at })
    }

    /// A request of a browser that shows its grant, as good as the credential behind it still is.
    /// `id` is the session it must be for, where the request says one.
    pub async fn granted(&self, secret: &str, id: Option<SessionId>) -> Result<(GrantId, OpenedStream)> {
        const NOT_GOOD: Error =
            Error::Unauthenticated("the way into this session is no longer open: open its page again");
        let core = &self.0;
        let hash = core.vault.digest(Purpose::StreamGrant, secret);
        let found = auth::granted(&core.db, hash, core.clock.now()).await.map_err(|error| match error {
            DbError::NotFound => NOT_GOOD,
            other => other.into(),
        })?;
        if id.is_some_and(|id| found.session != id) {
            return Err(NOT_GOOD);
        }
        let auth::Login { user, org } = found.login;
        let wanted = org.as_ref().filter(|scope| opens_streams(scope)).ok_or(NOT_GOOD)?.org_id().to_string();
        let caller = Caller { user, org, wanted: Some(wanted) };
        Ok((found.id, looked_at(caller, found.session, found.stream, Some(found.mode))?))
    }

    /// A stream for a caller with a credential of their own. It counts as activity.
    pub async fn open(&self, caller: Caller, id: SessionId, mode: StreamMode) -> Result<OpenedStream> {
        let (state, opened) = self.opened(caller, id, mode, Some(ActivityKind::Connect)).await?;
        running(state, opened)
    }

    /// The same to do as much as the caller may, by what is no sign of a person: its requests are looked at one by one.
    pub async fn open_quietly(&self, caller: Caller, id: SessionId) -> Result<OpenedStream> {
        let core = &self.0;
        let stream = match auth::stream(&core.db, caller.org()?, id, core.clock.now()).await {
            Ok(found) => Some(found),
            Err(DbError::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        looked_at(caller, id, stream, None)
    }

    /// A stream in any state of the session, for what it printed before it ended. Reading that is no activity.
    pub async fn open_any(&self, caller: Caller, id: SessionId, mode: StreamMode) -> Result<OpenedStream> {
        Ok(self.opened(caller, id, mode, None).await?.1)
    }

    /// The stream, and the state of its session. `activity` is what opening it says of the viewer being there.
    async fn opened(
        &self,
        caller: Caller,
        id: SessionId,
        mode: StreamMode,
        activity: Option<ActivityKind>,
    ) -> Result<(SessionState, OpenedStream)> {
        let (core, scope) = (&self.0, caller.org()?.clone());
        let (session, opening) = core
            .db
            .in_org(&scope, async |tx| {
                let (session, _) = seen_in(core, tx, &scope, id).await?;
                may_stream(&scope, &session, mode)?;
                let opening = viewing::opening(tx, id).await?;
                if let Some(kind) = activity {
                    core.declared_in(tx, id, scope.user_id(), kind).await?;
                }
                Ok::<_, Error>((session, opening))
            })
            .await?;
        let agent = opening.agent.ok_or_else(|| no_agent(id))?;
        let generation = session.generation;
        Ok((
            session.state,
            OpenedStream { caller, session: id, generation, agent, mode, ended: opening.ended },
        ))
    }

    /// Ends the caller's viewing of a session, or that of another member for its owner and for those who manage sessions:
    /// what they have open, the cookies their browsers got, and tickets they have not used. The session goes on, and they
    /// may open it again as before.
    pub async fn disconnect(&self, scope: &OrgScope, id: SessionId, whom: DisconnectRequest) -> Result<()> {
        let (core, now) = (&self.0, self.0.clock.now());
        core.db
            .in_org(scope, async |tx| {
                let (session, right) = seen_in(core, tx, scope, id).await?;
                let user = match whom {
                    DisconnectRequest { user_id: Some(id), .. } => id,
                    DisconnectRequest { username: Some(name), .. } => {
                        membership::find_named(tx, &name).await.named(Person::Named(name))?
                    }
                    DisconnectRequest { .. } => scope.user_id(),
                };
                if user != scope.user_id() && matches!(right, Right::Shared(_)) {
                    let owner = &session.user;
                    return Err(Error::Forbidden(format!(
                        "session {id} belongs to {owner}, who alone may end what others see of it"
                    )));
                }
                let member = membership::find(tx, user).await.named(Person::Id(user))?;
                viewing::end(tx, id, user, now).await?;
                let detail = json!({"userId": user, "user": member.username});
                let resource = format!("session:{id}");
                let line =
                    audit::Entry { action: "session.disconnect", resource, address: None, detail, at: now };
                Ok::<_, Error>(audit::insert_org(tx, line).await?)
            })
            .await?;
        core.nudges.send(Nudge::Revalidate);
        Ok(())
    }

    /// Whether somebody who watches a session still may: their credential and membership stand with the same rights, the
    /// session is theirs, or shared with them to do what they do, and nobody ended what they opened. Asked in one round trip.
    pub async fn stands(&self, viewing: &Viewing) -> Result<ViewerStanding> {
        let (core, caller) = (&self.0, &viewing.caller);
        let scope = caller.org()?;
        let viewer = auth::Viewer {
            credential: caller.credential(),
            org: scope.org_id(),
            user: scope.user_id(),
            session: viewing.session,
        };
        let auth::Stands { login, mode: shown, ended } =
            match auth::viewer(&core.db, viewer, core.clock.now()).await {
                Ok(found) => found,
                Err(DbError::NotFound) => return Ok(ViewerStanding::LoginEnded),
                Err(error) => return Err(error.into()),
            };
        let now = Caller { user: login.user, org: login.org, wanted: None };
        if !caller.has_the_rights_of(&now) {
            return Ok(ViewerStanding::LoginEnded);
        }
        if ended > viewing.ended {
            return Ok(ViewerStanding::Disconnected);
        }
        Ok(match (shown, viewing.mode) {
            (Some(StreamMode::Control), _) | (Some(StreamMode::View), StreamMode::View) => {
                ViewerStanding::Stands
            }
            (Some(StreamMode::View), StreamMode::Control) | (None, _) => ViewerStanding::ShareEnded,
        })
    }
}

/// How somebody who watches a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewerStanding {
    /// They may go on.
    Stands,
    /// Their credential, their membership or their rights have ended.
    LoginEnded,
    /// The session is not shared with them any more, or not to do this.
    ShareEnded,
    /// They, or somebody who may, ended what they had opened.
    Disconnected,
}

/// What was looked up in one round trip, as far as the caller may see it: to do `mode`, or as much as they may.
fn looked_at(
    caller: Caller,
    id: SessionId,
    stream: Option<auth::StreamLookup>,
    mode: Option<StreamMode>,
) -> Result<OpenedStream> {
    let (what, scope) = (|| Error::not_found(format_args!("session {id}")), caller.org()?);
    let found = stream.ok_or_else(what)?;
    if found.mode.is_none() && !may(scope, Operation::ManageSessions) {
        return Err(what());
    }
    let mode = mode.or(found.mode).unwrap_or(StreamMode::View);
    check_mode(id, &found.owner_name, found.mode, mode)?;
    let agent = found.agent.ok_or_else(|| no_agent(id))?;
    let (generation, ended) = (found.generation, found.ended);
    running(found.state, OpenedStream { caller, session: id, generation, agent, mode, ended })
}

/// Whether the credential behind a ticket or a grant would get one today: a key whose owner has another role now may not.
fn opens_streams(scope: &OrgScope) -> bool {
    scope.scopes().allow(Scope::Streams)
}

fn no_agent(id: SessionId) -> Error {
    Error::not_found(format_args!("the agent of session {id}"))
}

fn running(state: SessionState, opened: OpenedStream) -> Result<OpenedStream> {
    match state {
        SessionState::Running => Ok(opened),
        state => Err(Error::WrongState { id: opened.session, state }),
    }
}

/// What somebody may do with a session's stream, as far as they may look into it at all.
fn allowed(scope: &OrgScope, session: &Session) -> Option<StreamMode> {
    if session.user_id == scope.user_id() {
        return Some(StreamMode::Control);
    }
    session.shared.map(|shared| shared.mode)
}

/// What a session shows is its owner's, and of whoever they share it with: those who manage sessions may stop it, not
/// read it.
pub(crate) fn may_stream(scope: &OrgScope, session: &Session, mode: StreamMode) -> Result<()> {
    check_mode(session.id, &session.user, allowed(scope, session), mode)
}

fn check_mode(id: SessionId, owner: &str, allowed: Option<StreamMode>, mode: StreamMode) -> Result<()> {
    match (allowed, mode) {
        (Some(StreamMode::Control), _) | (Some(StreamMode::View), StreamMode::View) => Ok(()),
        (Some(StreamMode::View), StreamMode::Control) => Err(Error::Forbidden(format!(
            "session {id} is shared with you to watch only: ask for it with mode `view`"
        ))),
        (None, _) => {
            Err(Error::Forbidden(format!("session {id} belongs to {owner}, who has not shared it with you")))
        }
    }
}
