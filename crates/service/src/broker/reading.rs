//! Reading: the oldest first, from where the reader is, or again from anywhere. A reader's place is JetStream's, and is
//! written down beside it, so that one that was idle for too long goes on where it was. How one moves it by confirming what was
//! read is beside this.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tidegate_broker::{
    Error as BrokerError, Fetched, Missing, OrgBroker, Position, Principal, Stored, StreamName,
};
use tidegate_model::{Confirmation, Envelope, PipeSubject, UserId, pipe_of_stream};
use tidegate_persistence::{
    OrgScope, OrgTx,
    pipe_stream::PipeStream,
    read_cursor::{self, ReadCursor},
    user,
};
use tokio::time::timeout;

use super::{
    accounts::{Tenant, connection},
    confirming::{of_stream, waiting},
    messages::{Messages, incarnation, stream_of},
    ready::{made_anew, open_ready},
};
use crate::{
    Core, Error, OpenPipe, PipeUse, Pipes, Result, error::Named, pipes::allowed_in, sources::found_in,
};

/// Messages of a page where nothing is said, and at most.
const USUAL: usize = 10;
pub(super) const MOST: usize = 100;
/// How long one waits for a message at most.
const LONGEST: Duration = Duration::from_secs(30);
/// How long one waits until NATS tells of what is stored.
pub(super) const SETTLES: Duration = Duration::from_secs(1);
/// How often one looks all the same while NATS tells of it, and how often where it does not.
const SLOW: Duration = Duration::from_secs(1);
pub(super) const POLL: Duration = Duration::from_millis(100);
/// The first wait after one was told and found nothing: in a cluster a copy that lags a moment may answer.
const SOON: Duration = Duration::from_millis(5);

/// Which messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MessagesRead {
    /// Those the caller has not read yet, from any program: their place moves behind what is answered.
    #[default]
    Next,
    /// Those behind the caller's place, which moves to what they have done with, and no further.
    Confirmed(Confirmation),
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
    /// What its sender is called; none who is no member any more.
    pub sender_name: Option<String>,
}

/// Some messages, the oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct MessagesPage {
    /// The messages.
    pub messages: Vec<ReadMessage>,
    /// The sequence behind which the next page begins.
    pub last: Option<u64>,
    /// How many are beyond the caller's place; none where it is not looked at.
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
        let reading = Reading::of(&self.0, scope, (handle, pipe)).await?;
        let limit = wanted.limit.unwrap_or(USUAL).clamp(1, MOST);
        let wait = wanted.wait.map(|wait| wait.min(LONGEST)).filter(|wait| !wait.is_zero());
        match wanted.read {
            MessagesRead::Next => reading.next(limit, wait).await,
            MessagesRead::Confirmed(confirmation) => reading.confirmed(confirmation, limit, wait).await,
            MessagesRead::After(after) => {
                reading.again(Position::Sequence(after.saturating_add(1)), limit, wait).await
            }
            MessagesRead::Since(time) => reading.again(Position::Time(time), limit, wait).await,
        }
    }

    /// How many messages of a pipe the caller has not read.
    pub async fn unread(&self, scope: &OrgScope, handle: &str, pipe: &str) -> Result<u64> {
        let reading = Reading::of(&self.0, scope, (handle, pipe)).await?;
        let reader = made(&self.0, scope, &reading.broker, &reading.stream).await?;
        let (source, pipe) = (reading.opened.source.id, reading.opened.name.as_str());
        let me = scope.user_id();
        let find = async |tx: &mut OrgTx| read_cursor::find(tx, me, source, pipe).await;
        let known = self.0.db.in_org(scope, find).await?;
        let place = known.map_or(0, |known| of_stream(&known, incarnation(&reading.stream)));
        reading.waiting(&reader, place).await
    }
}

/// How long somebody waits, where they do.
pub(super) type Wait = Option<Duration>;

/// One request for messages of one pipe.
pub(super) struct Reading<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) scope: &'a OrgScope,
    pub(super) opened: OpenPipe,
    pub(super) stream: PipeStream,
    pub(super) broker: OrgBroker,
    pub(super) name: StreamName,
}

impl<'a> Reading<'a> {
    /// Of a pipe that the caller may read.
    pub(super) async fn of(
        core: &'a Arc<Core>,
        scope: &'a OrgScope,
        (handle, pipe): (&str, &str),
    ) -> Result<Self> {
        let (opened, stream) = open_ready(core, scope, (handle, pipe), PipeUse::Read).await?;
        let broker = connection(core, Tenant::Member(scope)).await?;
        let name = stream_of(opened.source.id, &opened.name)?;
        Ok(Self { core, scope, opened, stream, broker, name })
    }
}

impl Reading<'_> {
    /// The next ones of the caller's reader, which has had them when this returns.
    async fn next(&self, limit: usize, wait: Wait) -> Result<MessagesPage> {
        let reader = self.reader_name();
        let until = Instant::now() + wait.unwrap_or_default();
        let fetched = loop {
            let left = wait.map(|_| until.saturating_duration_since(Instant::now()));
            let fetched = self.fetched(&reader, limit, left.filter(|left| !left.is_zero())).await?;
            if fetched.is_empty() {
                break fetched;
            }
            if wait.is_some() {
                self.still_allowed().await?;
            }
            // Each that is passed over is acknowledged: they come to an end.
            let fresh = self.fresh(fetched).await?;
            if !fresh.is_empty() {
                break fresh;
            }
        };
        self.acknowledge(&fetched).await;
        let stored: Vec<Stored> = fetched.into_iter().map(|fetched| fetched.message).collect();
        let page = self.messages(&stored);
        match self.write_down(&reader, senders(&page.messages)).await {
            Ok((unread, names)) => Ok(MessagesPage { unread: Some(unread), ..named(page, &names) }),
            // They count as read already: nobody would see them any more.
            Err(error) if page.last.is_some() => {
                tracing::warn!(stream = %self.name, %error, "a place was not written down, the next reading does");
                Ok(page)
            }
            Err(error) => Err(error),
        }
    }

    /// Fetches with the caller's reader, which is made where it is not.
    async fn fetched(&self, reader: &str, limit: usize, wait: Wait) -> Result<Vec<Fetched>> {
        match self.broker.fetch(&self.name, reader, limit, wait).await {
            Err(BrokerError::NotFound(Missing::Reader | Missing::Stream)) => {
                self.still_allowed().await?;
                made(self.core, self.scope, &self.broker, &self.stream).await?;
                Ok(self.broker.fetch(&self.name, reader, limit, wait).await?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// What cannot be acknowledged is answered all the same, and comes once more rather than never.
    pub(super) async fn acknowledge(&self, fetched: &[Fetched]) {
        let acks = fetched.iter().map(|fetched| self.broker.acknowledge(&fetched.ack));
        for error in join_all(acks).await.into_iter().filter_map(Result::err) {
            tracing::debug!(stream = %self.name, %error, "a message is going to be read twice");
        }
    }

    /// Writes the reader's place down, and says how much is left for it, and what those are called who sent what it had.
    async fn write_down(&self, reader: &str, senders: Vec<UserId>) -> Result<(u64, Names)> {
        let (state, me) = (self.broker.reader(&self.name, reader).await?, self.scope.user_id());
        let acknowledged = state.as_ref().map(|state| i64::try_from(state.acknowledged).unwrap_or(i64::MAX));
        let place = acknowledged.map(|sequence| ReadCursor {
            source_id: self.opened.source.id,
            pipe: self.opened.name.clone(),
            incarnation: incarnation(&self.stream),
            sequence,
            at: self.core.clock.now(),
        });
        let work = async |tx: &mut OrgTx| {
            let (mut ahead, mut names) = (None, Names::new());
            if let Some(place) = place
                && !read_cursor::advance(tx, me, place.clone()).await?
            {
                ahead = read_cursor::find(tx, me, place.source_id, &place.pipe).await?;
            }
            if !senders.is_empty() {
                names = user::usernames_by_ids(tx, senders).await?;
            }
            Ok::<_, Error>((ahead, names))
        };
        let (ahead, names) = self.core.db.in_org(self.scope, work).await?;
        let ahead = ahead.map_or(0, |known| of_stream(&known, incarnation(&self.stream)));
        let unread = match state {
            Some(state) if state.acknowledged >= ahead => state.unread(),
            _ => self.waiting(reader, ahead).await?,
        };
        Ok((unread, names))
    }

    /// How much waits for a reader beyond its place.
    async fn waiting(&self, reader: &str, place: u64) -> Result<u64> {
        let asked = tokio::join!(self.broker.reader(&self.name, reader), self.broker.stream(&self.name));
        let (Some(reader), Some(stream)) = (asked.0?, asked.1?) else { return Ok(0) };
        Ok(waiting(place, &reader, &stream))
    }

    /// Those from a place on; nothing moves.
    pub(super) async fn again(&self, from: Position, limit: usize, wait: Wait) -> Result<MessagesPage> {
        let found = self.look(from, limit).await?;
        let Some(wait) = wait.filter(|_| found.is_empty()) else { return self.page(&found).await };
        let deadline = Instant::now() + wait;
        // Before the next look: what is stored after it is told.
        let mut watch = self.broker.watch(&self.name);
        watch.ready(SETTLES.min(wait)).await;
        let mut pause = SLOW;
        loop {
            let found = self.look(from, limit).await?;
            if !found.is_empty() {
                self.still_allowed().await?;
                return self.page(&found).await;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.page(&found).await;
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

    /// With what senders are called, who are looked up once for all.
    async fn page(&self, stored: &[Stored]) -> Result<MessagesPage> {
        let page = self.messages(stored);
        let senders = senders(&page.messages);
        if senders.is_empty() {
            return Ok(page);
        }
        let find = async |tx: &mut OrgTx| user::usernames_by_ids(tx, senders).await;
        let names = self.core.db.in_org(self.scope, find).await?;
        Ok(named(page, &names))
    }

    fn messages(&self, stored: &[Stored]) -> MessagesPage {
        let read = |stored: &Stored| {
            let (sequence, stored_at) = (stored.sequence, stored.time);
            let message = |envelope| ReadMessage { sequence, stored_at, envelope, sender_name: None };
            envelope(stored).map(message)
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

/// What people are called.
type Names = HashMap<UserId, String>;

/// Who sent some messages, each once.
fn senders(messages: &[ReadMessage]) -> Vec<UserId> {
    let all: BTreeSet<UserId> = messages.iter().map(|message| message.envelope.sender).collect();
    all.into_iter().collect()
}

fn named(mut page: MessagesPage, names: &Names) -> MessagesPage {
    for message in &mut page.messages {
        message.sender_name = names.get(&message.envelope.sender).cloned();
    }
    page
}

/// A stored message as its readers see it; none where somebody published what is no message.
pub(super) fn envelope(stored: &Stored) -> Option<Envelope> {
    let subject: PipeSubject = stored.subject.parse().ok()?;
    Envelope::decode(&stored.payload, &subject).ok()
}

/// Makes the caller's reader of a stream where there is none: where it was in the same stream, else at the oldest message.
/// Its row stands first, so that whoever takes the right to read away takes the reader away, too.
pub(super) async fn made(
    core: &Arc<Core>,
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
