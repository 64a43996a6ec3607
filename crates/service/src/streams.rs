//! Who may watch what: single-use tickets, and what a tunnel needs to know.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tidegate_model::{AgentId, Scope, Session, SessionId, SessionState, StreamKind, StreamMode, TicketId};
use tidegate_persistence::{Error as DbError, OrgScope, auth, session, ticket};

use crate::{
    Caller, Changed, Core, Error, Logins, Result, Sessions,
    options::Options,
    secrets::{Purpose, random_token},
    sessions::visible_in,
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

/// A stream somebody may open.
#[derive(Debug, Clone)]
pub struct OpenedStream {
    /// Who opens it.
    pub caller: Caller,
    /// The session.
    pub session: Session,
    /// The agent it is placed on.
    pub agent: AgentId,
    /// What the viewer may do.
    pub mode: StreamMode,
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
        own(scope, &session)?;
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
                session::touch(tx, id, now).await
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
        let scope = caller.org.clone().ok_or(NOT_GOOD)?;
        let now = core.clock.now();
        let mode = core.db.in_org(&scope, async |tx| ticket::consume(tx, found.id, kind, now).await).await;
        let mode = mode.map_err(|error| match error {
            DbError::NotFound => NOT_GOOD,
            other => other.into(),
        })?;
        self.open(caller, id, mode).await
    }

    /// A stream for a caller with a credential of their own.
    pub async fn open(&self, caller: Caller, id: SessionId, mode: StreamMode) -> Result<OpenedStream> {
        let opened = self.open_any(caller, id, mode).await?;
        match opened.session.state {
            SessionState::Running => Ok(opened),
            state => Err(Error::WrongState { id, state }),
        }
    }

    /// The same in any state, for what a session printed before it ended.
    pub async fn open_any(&self, caller: Caller, id: SessionId, mode: StreamMode) -> Result<OpenedStream> {
        let scope = caller.org()?.clone();
        let now = self.0.clock.now();
        let (session, agent) = self
            .0
            .db
            .in_org(&scope, async |tx| {
                let session = visible_in(tx, &scope, id).await?;
                own(&scope, &session)?;
                let agent = session::placement(tx, id).await?;
                session::touch(tx, id, now).await?;
                Ok::<_, Error>((session, agent))
            })
            .await?;
        let agent = agent.ok_or_else(|| Error::not_found(format_args!("the agent of session {id}")))?;
        Ok(OpenedStream { caller, session, agent, mode })
    }
}

/// What a session shows is its owner's alone, until they share it: those who manage sessions may stop it, not read it.
fn own(scope: &OrgScope, session: &Session) -> Result<()> {
    if session.user_id == scope.user_id() {
        return Ok(());
    }
    let id = session.id;
    Err(Error::Forbidden(format!("session {id} belongs to {}, who has not shared it", session.user)))
}
