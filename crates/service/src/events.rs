//! The stream of events: who may see which, from where on, and tickets for browsers.
//!
//! [`Events::run`] reads the stream once for the whole process; an [`EventStream`] takes from it what its caller may see,
//! and reads for itself only what came before it, or what it was too slow for.

mod feed;
mod stream;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tidegate_model::{EventId, EventKind, Operation, SessionId, TicketId};
use tidegate_persistence::{Error as DbError, OrgScope, event, event_ticket};
use tokio_util::sync::CancellationToken;

use crate::{
    Caller, Core, Error, Logins, Result,
    options::Options,
    permissions::may,
    secrets::{Purpose, random_token},
    sessions::seen_in,
};

pub(crate) use feed::Feed;
pub use stream::EventStream;
use stream::{Audience, Reader};

/// The stream of events.
#[derive(Debug, Clone)]
pub struct Events(pub(crate) Arc<Core>);

/// What of the stream is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this session alone.
    pub session: Option<SessionId>,
    /// Of these kinds alone; of every kind when empty.
    pub kinds: Vec<EventKind>,
}

/// A ticket for the stream, shown once.
#[derive(Debug, Clone)]
pub struct EventTicket {
    /// The secret.
    pub ticket: String,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
}

impl Events {
    /// Reads the stream for everybody in this process who listens, until `shutdown`. While nobody does, nothing is read.
    pub async fn run(&self, shutdown: CancellationToken) {
        feed::run(&self.0, &shutdown).await;
    }

    /// How many listen in this process.
    pub fn listeners(&self) -> usize {
        self.0.feed.listeners()
    }

    /// The events that the caller may see: those after a place, or those from now on. It must be [`Events::run`] that
    /// feeds it.
    pub async fn open(
        &self,
        caller: Caller,
        filter: EventFilter,
        after: Option<EventId>,
    ) -> Result<EventStream> {
        let core = &self.0;
        let operator = caller.operator().ok();
        if operator.is_none() {
            caller.org()?;
        }
        if let Some(id) = filter.session {
            let scope = caller.org()?;
            core.db.in_org(scope, async |tx| seen_in(core, tx, scope, id).await).await?;
        }
        let manages = caller.org.as_ref().is_some_and(|scope| may(scope, Operation::ManageSessions));
        let audience = Audience {
            org: caller.org.as_ref().map(OrgScope::org_id),
            user: caller.user.user_id(),
            manages,
            operates: operator.is_some(),
            filter,
        };
        let reader = Reader { core: Arc::clone(core), org: caller.org, operator };
        // Heard from here on, so that nothing falls between what is read below and what is heard.
        let heard = core.feed.join();
        let (place, behind) = match after {
            Some(after) => (after, true),
            None => (reader.now().await?, false),
        };
        Ok(EventStream::new(reader, audience, heard, place, behind))
    }

    /// A ticket for one WebSocket of the caller's.
    pub async fn ticket(&self, caller: &Caller) -> Result<EventTicket> {
        let (core, scope) = (&self.0, caller.org()?);
        let secret = random_token()?;
        let expires_at = core.clock.now() + Options::seconds(core.options.ticket_seconds.min(30));
        let new = event_ticket::NewTicket {
            id: TicketId::new(),
            hash: core.vault.digest(Purpose::Ticket, &secret),
            credential: scope.credential(),
            expires_at,
        };
        core.db.in_org(scope, async |tx| event_ticket::insert(tx, new).await).await?;
        Ok(EventTicket { ticket: secret, expires_at })
    }

    /// Uses a ticket up and gives whom it stands for. Used, late, or of a credential that ended: it is just not good.
    pub async fn redeem(&self, secret: &str) -> Result<Caller> {
        const NOT_GOOD: Error =
            Error::Unauthenticated("the ticket is wrong, used or too old: ask for a new one");
        let not_good = |error| match error {
            DbError::NotFound => NOT_GOOD,
            other => other.into(),
        };
        let core = &self.0;
        let found = event_ticket::find(&core.db, core.vault.digest(Purpose::Ticket, secret)).await;
        let found = found.map_err(not_good)?;
        let org = found.org_id.to_string();
        let caller = Logins(Arc::clone(core)).caller(found.credential, Some(&org)).await?;
        let scope = caller.org.clone().ok_or(NOT_GOOD)?;
        let now = core.clock.now();
        let used = core.db.in_org(&scope, async |tx| event_ticket::consume(tx, found.id, now).await).await;
        used.map_err(not_good)?;
        Ok(caller)
    }
}

impl Reader {
    /// From where on nothing was told yet.
    async fn now(&self) -> Result<EventId> {
        let db = &self.core.db;
        Ok(match (&self.org, &self.operator) {
            (Some(scope), _) => db.in_org(scope, async |tx| event::now(tx).await).await?,
            (None, Some(operator)) => {
                db.in_platform(operator, async |tx| event::now_of_all(tx).await).await?
            }
            (None, None) => return Err(Error::not_found("an active organization of yours")),
        })
    }
}
