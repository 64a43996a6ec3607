//! Reading: the oldest first, from where the reader is, or again from anywhere. A reader's place is JetStream's, and is
//! written down beside it, so that one that was idle for too long goes on where it was.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tidegate_broker::{
    Error as BrokerError, Fetched, Missing, OrgBroker, Position, Principal, Stored, StreamName,
};
use tidegate_model::{Envelope, PipeSubject, pipe_of_stream};
use tidegate_persistence::{
    OrgScope,
    pipe_stream::PipeStream,
    read_cursor::{self, ReadCursor},
};
use tokio::time::timeout;

use super::{
    accounts::{Tenant, connection},
    messages::{Messages, incarnation, stream_of},
    ready::{made_anew, open_ready},
};
use crate::{
    Core, Error, OpenPipe, PipeUse, Pipes, Result, error::Named, pipes::allowed_in, sources::found_in,
};

/// Messages of a page where nothing is said, and at most.
const USUAL: usize = 10;
const MOST: usize = 100;
/// How long one waits for a message at most.
const LONGEST: Duration = Duration::from_secs(30);
/// How long one waits until NATS tells of what is stored.
const SETTLES: Duration = Duration::from_secs(1);
/// How often one looks all the same while NATS tells of it, and how often where it does not.
const SLOW: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(100);
/// The first wait after one was told and found nothing: in a cluster a copy that lags a moment may answer.
const SOON: Duration = Duration::from_millis(5);

/// Which messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MessagesRead {
    /// Those the caller has not read yet, from any program: their place moves behind what is answered.
    #[default]
    Next,
    /// Those after a sequence, 0 for all; nothing moves.
    After(u64),
    /// Those stored at this moment or later; nothing moves.
    Since(DateTime<Utc>),
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessagesWanted {
    /// Which messages.
    pub read: MessagesRead,
    /// How many at most: 1 to 100; none is 10.
    pub limit: Option<usize>,
    /// How long to wait for one where there is none; at most 30 s.
    pub wait: Option<Duration>,
}

/// A message that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadMessage {
    /// Its place in the pipe.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: DateTime<Utc>,
    /// The message, its sender as NATS knows it.
    pub envelope: Envelope,
}

/// Some messages, the oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct MessagesPage {
    /// The messages.
    pub messages: Vec<ReadMessage>,
    /// The sequence behind which the next page begins.
    pub last: Option<u64>,
    /// How many the caller has still not read; none where their place is not looked at.
    pub unread: Option<u64>,
    /// Things on the way that are no messages, which were passed over.
    pub skipped: usize,
    /// Of which stream: sequences of another one mean other messages.
    pub incarnation: Option<DateTime<Utc>>,
}

impl Messages {
    /// Reads messages of a pipe that the caller may read, who is asked again before anything is answered that was waited
    /// for.
    pub async fn read(
        &self,
        scope: &OrgScope,
        handle: &str,
        pipe: &str,
        wanted: MessagesWanted,
    ) -> Result<MessagesPage> {
        let (opened, stream) = open_ready(&self.0, scope, (handle, pipe), PipeUse::Read).await?;
        let reading = Reading {
            stream,
            broker: connection(&self.0, Tenant::Member(scope)).await?,
            name: stream_of(opened.source.id, &opened.name)?,
            core: &self.0,
            scope,
            opened,
        };
        let limit = wanted.limit.unwrap_or(USUAL).clamp(1, MOST);
        let wait = wanted.wait.map(|wait| wait.min(LONGEST)).filter(|wait| !wait.is_zero());
        match wanted.read {
            MessagesRead::Next => reading.next(limit, wait).await,
            MessagesRead::After(after) => {
                reading.again(Position::Sequence(after.saturating_add(1)), limit, wait).await
            }
            MessagesRead::Since(time) => reading.again(Position::Time(time), limit, wait).await,
        }
    }

    /// How many messages of a pipe the caller has not read.
    pub async fn unread(&self, scope: &OrgScope, handle: &str, pipe: &str) -> Result<u64> {
        let (opened, stream) = open_ready(&self.0, scope, (handle, pipe), PipeUse::Read).await?;
        let broker = connection(&self.0, Tenant::Member(scope)).await?;
        let reader = made(&self.0, scope, &broker, &stream).await?;
        let name = stream_of(opened.source.id, &opened.name)?;
        let state = broker.reader(&name, &reader).await?;
        Ok(state.map_or(0, |state| state.unread()))
    }
}

/// One request for messages of one pipe.
struct Reading<'a> {
    core: &'a Arc<Core>,
    scope: &'a OrgScope,
    opened: OpenPipe,
    stream: PipeStream,
    broker: OrgBroker,
    name: StreamName,
}

impl Reading<'_> {
    /// The next ones of the caller's reader, which has had them when this returns.
    async fn next(&self, limit: usize, wait: Option<Duration>) -> Result<MessagesPage> {
        let reader = Principal::new(self.scope.user_id().as_uuid()).reader();
        let fetched = match self.broker.fetch(&self.name, &reader, limit, wait).await {
            Err(BrokerError::NotFound(Missing::Reader | Missing::Stream)) => {
                self.still_allowed().await?;
                made(self.core, self.scope, &self.broker, &self.stream).await?;
                self.broker.fetch(&self.name, &reader, limit, wait).await?
            }
            outcome => outcome?,
        };
        if wait.is_some() && !fetched.is_empty() {
            self.still_allowed().await?;
        }
        self.acknowledge(&fetched).await;
        let unread = self.write_down(&reader).await?;
        let stored: Vec<Stored> = fetched.into_iter().map(|fetched| fetched.message).collect();
        Ok(MessagesPage { unread: Some(unread), ..self.page(&stored) })
    }

    /// What cannot be acknowledged is answered all the same, and comes once more rather than never.
    async fn acknowledge(&self, fetched: &[Fetched]) {
        let acks = fetched.iter().map(|fetched| self.broker.acknowledge(&fetched.ack));
        for error in join_all(acks).await.into_iter().filter_map(Result::err) {
            tracing::debug!(stream = %self.name, %error, "a message is going to be read twice");
        }
    }

    /// Writes the reader's place down, and says how much is left for it.
    async fn write_down(&self, reader: &str) -> Result<u64> {
        let Some(state) = self.broker.reader(&self.name, reader).await? else { return Ok(0) };
        let place = ReadCursor {
            source_id: self.opened.source.id,
            pipe: self.opened.name.clone(),
            incarnation: incarnation(&self.stream),
            sequence: i64::try_from(state.acknowledged).unwrap_or(i64::MAX),
            at: self.core.clock.now(),
        };
        let me = self.scope.user_id();
        self.core.db.in_org(self.scope, async |tx| read_cursor::put(tx, me, place).await).await?;
        Ok(state.unread())
    }

    /// Those from a place on; nothing moves.
    async fn again(&self, from: Position, limit: usize, wait: Option<Duration>) -> Result<MessagesPage> {
        let found = self.look(from, limit).await?;
        let Some(wait) = wait.filter(|_| found.is_empty()) else { return Ok(self.page(&found)) };
        let deadline = Instant::now() + wait;
        // Before the next look: what is stored after it is told.
        let mut watch = self.broker.watch(&self.name);
        watch.ready(SETTLES.min(wait)).await;
        let mut pause = SLOW;
        loop {
            let found = self.look(from, limit).await?;
            if !found.is_empty() {
                self.still_allowed().await?;
                return Ok(self.page(&found));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(self.page(&found));
            }
            let most = if watch.is_listening() { SLOW } else { POLL };
            pause = match timeout(pause.min(most).min(left), watch.news()).await {
                Ok(()) => SOON,
                Err(_) => (pause * 2).min(SLOW),
            };
        }
    }

    async fn look(&self, from: Position, limit: usize) -> Result<Vec<Stored>> {
        match self.broker.read(&self.name, from, limit).await {
            Err(BrokerError::NotFound(Missing::Stream)) => {
                made_anew(self.core, self.scope, self.opened.source.id, &self.opened.name).await?;
                Ok(Vec::new())
            }
            outcome => Ok(outcome?),
        }
    }

    async fn still_allowed(&self) -> Result<()> {
        let pipes = Pipes(Arc::clone(self.core));
        let (handle, pipe) = (self.opened.source.handle.as_str(), &self.opened.name);
        let now = pipes.open(self.scope, handle, pipe, PipeUse::Read).await?;
        if now.source.id == self.opened.source.id {
            return Ok(());
        }
        Err(Error::not_found(format_args!("source {handle}")))
    }

    fn page(&self, stored: &[Stored]) -> MessagesPage {
        let read = |stored: &Stored| {
            let (sequence, stored_at) = (stored.sequence, stored.time);
            envelope(stored).map(|envelope| ReadMessage { sequence, stored_at, envelope })
        };
        let messages: Vec<ReadMessage> = stored.iter().filter_map(read).collect();
        MessagesPage {
            skipped: stored.len() - messages.len(),
            messages,
            last: stored.last().map(|stored| stored.sequence),
            unread: None,
            incarnation: incarnation(&self.stream),
        }
    }
}

/// A stored message as its readers see it; none where somebody published what is no message.
pub(super) fn envelope(stored: &Stored) -> Option<Envelope> {
    let subject: PipeSubject = stored.subject.parse().ok()?;
    Envelope::decode(&stored.payload, &subject).ok()
}

/// Makes the caller's reader of a stream where there is none: where it was in the same stream, else at the oldest message.
/// Its row stands first, so that whoever takes the right to read away takes the reader away, too.
pub(super) async fn made(
    core: &Core,
    scope: &OrgScope,
    broker: &OrgBroker,
    stream: &PipeStream,
) -> Result<String> {
    let (me, now) = (scope.user_id(), core.clock.now());
    let (source, pipe) = (stream.source_id, stream.pipe.as_str());
    let first =
        ReadCursor { source_id: source, pipe: pipe.to_owned(), incarnation: None, sequence: 0, at: now };
    let known = core
        .db
        // Under the organization's lock, as whatever takes the right away: that comes before, or finds the row.
        .in_org_locked(scope, async |tx, locked| {
            locked.named("organization")?;
            let found = found_in(tx, &stream.handle).await?.source;
            if found.id != source {
                return Err(Error::not_found(format_args!("source {}", found.handle)));
            }
            allowed_in(tx, scope, &found, pipe, PipeUse::Read).await?;
            read_cursor::put(tx, me, first).await?;
            Ok(read_cursor::find(tx, me, source, pipe).await?)
        })
        .await?;
    let (name, reader) = (stream_of(source, pipe)?, Principal::new(me.as_uuid()).reader());
    let begin = match known {
        Some(known) if known.incarnation.is_some() && known.incarnation == incarnation(stream) => {
            let next = u64::try_from(known.sequence).unwrap_or(0).saturating_add(1);
            // Streams that came back from a backup may end before the place that is written down: what is sent from then on
            // has sequences that were had before, and is new all the same.
            let last = broker.stream(&name).await?.map_or(0, |found| found.last);
            Position::Sequence(next.min(last.saturating_add(1)))
        }
        _ => Position::Oldest,
    };
    match broker.ensure_reader(&name, &reader, begin).await {
        Err(BrokerError::NotFound(Missing::Stream)) => {
            made_anew(core, scope, source, pipe).await?;
            broker.ensure_reader(&name, &reader, Position::Oldest).await?;
        }
        outcome => {
            outcome?;
        }
    }
    kept(core, scope, broker, &name, &reader).await?;
    Ok(reader)
}

/// Takes a reader that was just made away again where the right was taken away meanwhile: what deletes it may have come too
/// soon.
pub(super) async fn kept(
    core: &Core,
    scope: &OrgScope,
    broker: &OrgBroker,
    name: &StreamName,
    reader: &str,
) -> Result<()> {
    let (source, pipe) =
        pipe_of_stream(name.as_str()).ok_or_else(|| Error::internal("a stream of no pipe"))?;
    let me = scope.user_id();
    let kept = core.db.in_org(scope, async |tx| read_cursor::find(tx, me, source, pipe).await).await?;
    if kept.is_some() {
        return Ok(());
    }
    broker.delete_reader(name, reader).await?;
    Err(Error::Forbidden(format!("pipe {pipe} is not for you to read any more")))
}
