//! Who may watch what: single-use tickets, and what a tunnel needs to know.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tidegate_model::{
    AgentId, GrantId, Scope, Session, SessionId, SessionState, StreamKind, StreamMode, TicketId,
};
use tidegate_persistence::{Error as DbError, OrgScope, auth, session, stream_grant, ticket};

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
        core.db.in_org(&scope, async |tx| stream_grant::insert(tx, new).await).await?;
        Ok(StreamGrant { secret, expires_at })
    }

    /// A request of a browser that shows its grant, as good as the credential behind it still is.
    pub async fn granted(&self, secret: &str, id: SessionId) -> Result<(GrantId, OpenedStream)> {
        const NOT_GOOD: Error =
            Error::Unauthenticated("the way into this session is no longer open: open its page again");
        let core = &self.0;
        let hash = core.vault.digest(Purpose::StreamGrant, secret);
        let found = auth::grant(&core.db, hash, core.clock.now()).await.map_err(|error| match error {
            DbError::NotFound => NOT_GOOD,
            other => other.into(),
        })?;
        if found.session_id != id {
            return Err(NOT_GOOD);
        }
        let org = found.org_id.to_string();
        let caller = Logins(Arc::clone(core)).caller(found.credential, Some(&org)).await?;
        caller.org.as_ref().ok_or(NOT_GOOD)?;
        Ok((found.id, self.open_quietly(caller, id, found.mode).await?))
    }

    /// A stream for a caller with a credential of their own.
    pub async fn open(&self, caller: Caller, id: SessionId, mode: StreamMode) -> Result<OpenedStream> {
        let opened = self.open_any(caller, id, mode).await?;
        match opened.session.state {
            SessionState::Running => Ok(opened),
            state => Err(Error::WrongState { id, state }),
        }
    }

    /// A running session's stream, opened by what is no sign of a person: its requests are looked at one by one.
    pub async fn open_quietly(
        &self,
        caller: Caller,
        id: SessionId,
        mode: StreamMode,
    ) -> Result<OpenedStream> {
        let opened = self.opened(caller, id, mode, None).await?;
        match opened.session.state {
            SessionState::Running => Ok(opened),
            state => Err(Error::WrongState { id, state }),
        }
    }

    /// The same in any state, for what a session printed before it ended.
    pub async fn open_any(&self, caller: Caller, id: SessionId, mode: StreamMode) -> Result<OpenedStream> {
        let now = self.0.clock.now();
        self.opened(caller, id, mode, Some(now)).await
    }

    async fn opened(
        &self,
        caller: Caller,
        id: SessionId,
        mode: StreamMode,
        touched: Option<DateTime<Utc>>,
    ) -> Result<OpenedStream> {
        let scope = caller.org()?.clone();
        let (session, agent) = self
            .0
            .db
            .in_org(&scope, async |tx| {
                let session = visible_in(tx, &scope, id).await?;
                own(&scope, &session)?;
                let agent = session::placement(tx, id).await?;
                if let Some(now) = touched {
                    session::touch(tx, id, now).await?;
                }
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
