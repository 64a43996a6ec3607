//! One listener: what it may see, and how it goes on after a silence of its own.

use std::{collections::BTreeSet, sync::Arc};

use tidegate_model::{Change, Event, EventId, OrgId, Reset, SessionId, UserId};
use tidegate_persistence::{
    Operator, OrgScope,
    event::{self, Page, Told},
    share,
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{EventFilter, feed::Stretch};
use crate::{Core, Error, Result};

/// Events of one table read at a time by a listener that is behind.
const LINES: i64 = 500;

/// What a listener may see and wants to.
#[derive(Debug)]
pub(super) struct Audience {
    pub(super) org: Option<OrgId>,
    pub(super) user: UserId,
    /// Whether everybody's sessions in the organization are theirs to see.
    pub(super) manages: bool,
    /// Whether they operate the platform.
    pub(super) operates: bool,
    pub(super) filter: EventFilter,
}

/// Whether somebody may hear an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hears {
    Yes,
    No,
    /// Where this session is shared with them.
    IfShared(SessionId),
}

impl Audience {
    fn hears(&self, told: &Told) -> Hears {
        let change = &told.event.change;
        let EventFilter { session, kinds } = &self.filter;
        let of_session = session.is_none_or(|wanted| change.session() == Some(wanted));
        let of_kind = kinds.is_empty() || change.kind().is_some_and(|kind| kinds.contains(&kind));
        if !(of_session && of_kind) {
            return Hears::No;
        }
        let of_org = told.org_id.is_some() && told.org_id == self.org;
        let own = of_org && (self.manages || told.owner == Some(self.user));
        let sees = match change {
            // A command of no organization is an operator's.
            Change::Command(_) if told.org_id.is_none() => self.operates,
            Change::Session(_) | Change::Command(_) => own,
            Change::Agent(_) => self.operates || (of_org && self.manages),
            Change::Reset(_) => true,
        };
        match change.session() {
            _ if sees => Hears::Yes,
            Some(session) if of_org && told.shared => Hears::IfShared(session),
            Some(_) | None => Hears::No,
        }
    }
}

/// Reads the stream with the rights of one caller.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) core: Arc<Core>,
    pub(super) org: Option<OrgScope>,
    pub(super) operator: Option<Operator>,
}

impl Reader {
    /// What comes after a place: of the organization, and for operators of agents too.
    async fn page(&self, after: EventId) -> Result<Page> {
        let db = &self.core.db;
        let own = match &self.org {
            Some(scope) => Some(db.in_org(scope, async |tx| event::page(tx, after, LINES).await).await?),
            None => None,
        };
        let agents = match &self.operator {
            Some(operator) => Some(
                db.in_platform(operator, async |tx| event::page_of_agents(tx, after, LINES).await).await?,
            ),
            None => None,
        };
        match (own, agents) {
            (Some(own), Some(agents)) => Ok(own.beside(agents)),
            (Some(page), None) | (None, Some(page)) => Ok(page),
            (None, None) => Err(Error::not_found("an active organization of yours")),
        }
    }

    /// Which of these events the caller may hear because the session is shared with them now, and was when they happened.
    async fn heard_by_share(
        &self,
        user: UserId,
        events: &[(SessionId, EventId)],
    ) -> Result<BTreeSet<EventId>> {
        let Some(scope) = self.org.as_ref().filter(|_| !events.is_empty()) else {
            return Ok(BTreeSet::new());
        };
        let now = self.core.clock.now();
        let heard = async |tx: &mut _| share::heard_by(tx, user, events, now).await;
        Ok(self.core.db.in_org(scope, heard).await?)
    }
}

/// The events that one caller may see, each once and in order. Made by [`crate::Events::open`].
#[derive(Debug)]
pub struct EventStream {
    reader: Reader,
    audience: Audience,
    heard: Receiver<Arc<Stretch>>,
    next: Option<Arc<Stretch>>,
    place: EventId,
    behind: bool,
}

impl EventStream {
    pub(super) fn new(
        reader: Reader,
        audience: Audience,
        heard: Receiver<Arc<Stretch>>,
        place: EventId,
        behind: bool,
    ) -> Self {
        Self { reader, audience, heard, next: None, place, behind }
    }

    /// Up to where everything was taken: what to come back with.
    pub fn place(&self) -> EventId {
        self.place
    }

    /// Waits until there may be something to take. May be given up at any point.
    pub async fn ready(&mut self) {
        if self.behind || self.next.is_some() {
            return;
        }
        match self.heard.recv().await {
            Ok(stretch) => self.next = Some(stretch),
            Err(RecvError::Lagged(_)) => self.behind = true,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Takes what there is, which may be nothing. Reads the database, a bounded part at a time, only where the process's
    /// own reading is ahead. After a failure nothing is lost: call it again.
    pub async fn take(&mut self) -> Result<Vec<Event>> {
        if let Some(stretch) = self.next.take() {
            if stretch.from > self.place {
                self.behind = true;
            } else if stretch.to > self.place {
                // Where the database cannot be asked, what was heard is read again later.
                self.behind = true;
                let new = stretch.told.iter().filter(|told| told.event.id > self.place);
                let events = self.admitted(new).await?;
                (self.place, self.behind) = (stretch.to, false);
                return Ok(events);
            }
        }
        if !self.behind {
            return Ok(Vec::new());
        }
        let page = self.reader.page(self.place).await?;
        if page.has_lost(self.place) {
            self.place = page.horizon;
            return Ok(vec![self.reset()]);
        }
        let events = self.admitted(page.told.iter()).await?;
        self.place = page.to;
        self.behind = page.full;
        Ok(events)
    }

    async fn admitted<'a>(&self, told: impl Iterator<Item = &'a Told>) -> Result<Vec<Event>> {
        let told: Vec<(&Event, Hears)> = told.map(|told| (&told.event, self.audience.hears(told))).collect();
        let asked = told.iter().filter_map(|(event, hears)| match hears {
            Hears::IfShared(session) => Some((*session, event.id)),
            Hears::Yes | Hears::No => None,
        });
        let asked: Vec<_> = asked.collect();
        let shared = self.reader.heard_by_share(self.audience.user, &asked).await?;
        let admitted = told.into_iter().filter(|(event, hears)| match hears {
            Hears::Yes => true,
            Hears::IfShared(_) => shared.contains(&event.id),
            Hears::No => false,
        });
        Ok(admitted.map(|(event, _)| event.clone()).collect())
    }

    fn reset(&self) -> Event {
        let reason = "what came after the id that was asked for is not kept any more, or is of another database: \
                      something may have been missed, and this is the oldest there is";
        Event {
            id: self.place,
            at: self.reader.core.clock.now(),
            change: Change::Reset(Reset { reason: reason.to_owned() }),
        }
    }
}
