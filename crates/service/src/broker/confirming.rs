//! Reading by a place that moves once its reader says so: an answer that was lost is answered again, and what was confirmed
//! never comes again. The row is the truth; JetStream's reader is brought after it, for those who read over NATS.

use std::time::Instant;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tidegate_broker::{Fetched, Position, Principal, ReaderState, StreamInForce};
use tidegate_model::{Confirmation, FieldErrors};
use tidegate_persistence::{
    OrgScope, OrgTx,
    read_cursor::{self, ReadCursor},
};

use super::{
    messages::{Messages, incarnation},
    reading::{MOST, MessagesPage, POLL, Reading, SETTLES, Wait, made},
    ready::made_anew,
};
use crate::{Core, Error, Result};

/// Fetches of one request that bring JetStream's reader after the place; what is left then is left to the next one.
const FETCHES: usize = 10;
/// How often one begins anew where a place, its reader or its stream changed while it was looked at.
const TRIES: usize = 5;

/// Where a reader is in a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPlace {
    /// The last message that counts as read; 0 before the first.
    pub sequence: u64,
    /// Of which stream.
    pub incarnation: Option<DateTime<Utc>>,
    /// How many messages are beyond it.
    pub unread: u64,
}

impl Messages {
    /// Moves the caller's place in a pipe that they may read to where they confirm to be, and says where it is then.
    pub async fn confirm(
        &self,
        scope: &OrgScope,
        handle: &str,
        pipe: &str,
        confirmation: Confirmation,
    ) -> Result<ReadPlace> {
        let mut reading = Reading::of(&self.0, scope, (handle, pipe)).await?;
        let place = reading.moved(confirmation).await?;
        reading.bring(&place).await;
        Ok(ReadPlace {
            sequence: place.sequence,
            incarnation: incarnation(&reading.stream),
            unread: left(place.sequence, &place.stream),
        })
    }
}

/// Where a reader is, and what NATS said of it.
struct Place {
    sequence: u64,
    stream: StreamInForce,
    reader: ReaderState,
}

/// What rows say of a place.
enum Written {
    /// Here it is.
    At(u64),
    /// There is none.
    Nowhere,
    /// It lies beyond the end of its stream.
    Beyond(ReadCursor),
}

impl Reading<'_> {
    /// What comes behind the caller's place, which is moved to what they confirm and stays there.
    pub(super) async fn confirmed(
        mut self,
        confirmation: Confirmation,
        limit: usize,
        wait: Wait,
    ) -> Result<MessagesPage> {
        let place = self.moved(confirmation).await?;
        let from = Position::Sequence(place.sequence.saturating_add(1));
        let ((), page) = tokio::join!(self.bring(&place), self.again(from, limit, wait));
        let page = page?;
        let stream = match page.last {
            Some(last) if last > place.stream.last => self.broker.stream(&self.name).await?,
            _ => None,
        };
        let unread = left(place.sequence, stream.as_ref().unwrap_or(&place.stream));
        Ok(MessagesPage { unread: Some(unread), ..page })
    }

    /// Moves the place to what is confirmed, where that is of this stream and beyond it.
    async fn moved(&mut self, confirmation: Confirmation) -> Result<Place> {
        for _ in 0..TRIES {
            let stream = self.in_force().await?;
            let Some(reader) = self.broker.reader(&self.name, &self.reader_name()).await? else {
                made(self.core, self.scope, &self.broker, &self.stream).await?;
                continue;
            };
            let confirmed = self.counted(confirmation, &stream).await?;
            match self.write(confirmed.max(reader.acknowledged), stream.last).await? {
                Written::At(sequence) => return Ok(Place { sequence, stream, reader }),
                Written::Nowhere => drop(made(self.core, self.scope, &self.broker, &self.stream).await?),
                Written::Beyond(known) => self.set_back(known, reader.acknowledged).await?,
            }
        }
        Err(Error::NotReady(format!("your place in pipe {}", self.opened.name)))
    }

    /// The stream as NATS has it, which is the one that is written down.
    async fn in_force(&mut self) -> Result<StreamInForce> {
        if let Some(found) = self.broker.stream(&self.name).await?.filter(|found| self.is_known(found)) {
            return Ok(found);
        }
        // Somebody took it away, or made it anew, behind our back.
        self.stream = made_anew(self.core, self.scope, self.opened.source.id, &self.opened.name).await?;
        let found = self.broker.stream(&self.name).await?.filter(|found| self.is_known(found));
        found.ok_or_else(|| Error::NotReady(format!("pipe {}", self.opened.name)))
    }

    /// Rows know a moment in microseconds.
    fn is_known(&self, found: &StreamInForce) -> bool {
        let known = incarnation(&self.stream).map(|known| known.timestamp_micros());
        known == Some(found.created.timestamp_micros())
    }

    /// The sequence that is confirmed; nothing where another stream's is. Refused where there is no such message: those to
    /// come would be passed over.
    async fn counted(&self, confirmation: Confirmation, stream: &StreamInForce) -> Result<u64> {
        let Confirmation { sequence, incarnation: of } = confirmation;
        if of.is_none() || of != incarnation(&self.stream) {
            return Ok(0);
        }
        let (mut last, until) = (stream.last, Instant::now() + SETTLES);
        // In a cluster, who answered the reader may have been ahead of who answers here.
        while sequence > last && Instant::now() < until {
            tokio::time::sleep(POLL).await;
            last = self.broker.stream(&self.name).await?.map_or(last, |found| found.last);
        }
        if sequence > last {
            let complaint =
                format!("must be the sequence of a message that was read: the last one is {last}");
            return Err(Error::Invalid(FieldErrors::one("confirmed", complaint)));
        }
        Ok(sequence)
    }

    /// Writes the place down where it moves, which decides.
    async fn write(&self, wanted: u64, end: u64) -> Result<Written> {
        let (me, now, current) = (self.scope.user_id(), self.core.clock.now(), incarnation(&self.stream));
        let (source, pipe) = (self.opened.source.id, self.opened.name.as_str());
        let work = self.core.db.in_org(self.scope, async |tx: &mut OrgTx| {
            let Some(known) = read_cursor::find(tx, me, source, pipe).await? else {
                return Ok(Written::Nowhere);
            };
            let written = of_stream(&known, current);
            if written > end {
                return Ok(Written::Beyond(known));
            }
            if written < wanted || known.incarnation != current {
                let sequence = i64::try_from(wanted).unwrap_or(i64::MAX);
                let place = ReadCursor { incarnation: current, sequence, at: now, ..known };
                read_cursor::advance(tx, me, place).await?;
            }
            Ok::<_, Error>(Written::At(written.max(wanted)))
        });
        work.await
    }

    /// The stream is older than the place, unless it has grown to it since it was looked at: its reader, which came back with
    /// it, knows better.
    pub(super) async fn set_back(&self, known: ReadCursor, acknowledged: u64) -> Result<()> {
        let end = self.broker.stream(&self.name).await?.map_or(0, |found| found.last);
        if known.sequence.unsigned_abs() <= end {
            return Ok(());
        }
        let (me, back) = (self.scope.user_id(), i64::try_from(acknowledged.min(end)).unwrap_or(0));
        let set = async |tx: &mut OrgTx| read_cursor::set_back(tx, me, &known, back).await;
        self.core.db.in_org(self.scope, set).await?;
        tracing::warn!(stream = %self.name, from = known.sequence, to = back, "a place beyond the end of its stream is set back");
        Ok(())
    }

    /// Brings JetStream's reader after the place, as far as it can: whatever is not, nobody who reads over HTTP gets again.
    async fn bring(&self, place: &Place) {
        if place.reader.acknowledged >= place.sequence {
            return;
        }
        let reader = self.reader_name();
        let mut delivered = place.reader.delivered;
        for _ in 0..FETCHES {
            let missing = place.sequence.saturating_sub(delivered);
            let limit = usize::try_from(missing).unwrap_or(MOST).min(MOST);
            if limit == 0 {
                return;
            }
            let fetched = match self.broker.fetch(&self.name, &reader, limit, None).await {
                Ok(fetched) if fetched.is_empty() => return,
                Ok(fetched) => fetched,
                Err(error) => {
                    tracing::debug!(stream = %self.name, %error, "a reader is not brought after its place yet");
                    return;
                }
            };
            delivered = fetched.iter().map(|fetched| fetched.message.sequence).fold(delivered, u64::max);
            let (had, more): (Vec<Fetched>, Vec<Fetched>) =
                fetched.into_iter().partition(|fetched| fetched.message.sequence <= place.sequence);
            self.acknowledge(&had).await;
            let given = more.iter().map(|fetched| self.broker.give_back(&fetched.ack));
            for error in join_all(given).await.into_iter().filter_map(Result::err) {
                tracing::debug!(stream = %self.name, %error, "a message comes to its other readers after a while only");
            }
        }
    }

    /// Without what was confirmed before, which JetStream's reader may not know yet; that is acknowledged.
    pub(super) async fn fresh(&self, fetched: Vec<Fetched>) -> Result<Vec<Fetched>> {
        let (me, current) = (self.scope.user_id(), incarnation(&self.stream));
        let (source, pipe) = (self.opened.source.id, self.opened.name.as_str());
        // Before anything is acknowledged: what is written down by then, others have had.
        let find = async |tx: &mut OrgTx| read_cursor::find(tx, me, source, pipe).await;
        let Some(known) = self.core.db.in_org(self.scope, find).await? else { return Ok(fetched) };
        let place = of_stream(&known, current);
        if fetched.iter().all(|fetched| fetched.message.sequence > place) {
            return Ok(fetched);
        }
        let end = self.broker.stream(&self.name).await?.map_or(0, |found| found.last);
        if place > end {
            let state = self.broker.reader(&self.name, &self.reader_name()).await?;
            self.set_back(known, state.map_or(0, |state| state.acknowledged)).await?;
            return Ok(fetched);
        }
        let (had, fresh): (Vec<Fetched>, Vec<Fetched>) =
            fetched.into_iter().partition(|fetched| fetched.message.sequence <= place);
        self.acknowledge(&had).await;
        Ok(fresh)
    }

    pub(super) fn reader_name(&self) -> String {
        Principal::new(self.scope.user_id().as_uuid()).reader()
    }
}

/// What a place says of this stream: 0 where it is another one's.
pub(super) fn of_stream(known: &ReadCursor, current: Option<DateTime<Utc>>) -> u64 {
    let same = known.incarnation.is_some() && known.incarnation == current;
    if same { known.sequence.unsigned_abs() } else { 0 }
}

/// Messages beyond a place: what goes, goes from the oldest, and leaves no holes.
pub(super) const fn left(place: u64, stream: &StreamInForce) -> u64 {
    let gone = stream.first.saturating_sub(1);
    stream.last.saturating_sub(if place > gone { place } else { gone })
}

/// How much waits for a reader: as JetStream counts it, or by sequences where its reader is behind the place.
pub(super) fn waiting(place: u64, reader: &ReaderState, stream: &StreamInForce) -> u64 {
    if reader.acknowledged >= place { reader.unread() } else { left(place, stream) }
}

/// Sets places back that lie beyond the end of their streams, which came back from a backup: what is sent from then on would
/// count as read. Gives how many.
pub(super) async fn set_back_all(
    core: &Core,
    tenant: super::accounts::Tenant<'_>,
    broker: &tidegate_broker::OrgBroker,
    ends: Vec<read_cursor::StreamEnd>,
) -> Result<usize> {
    let found = tenant.within(&core.db, async |tx| Ok(read_cursor::beyond(tx, ends).await?)).await?;
    let mut set = 0;
    for (user, known) in found {
        // It may have been stored and read since the streams were listed.
        let name = super::messages::stream_of(known.source_id, &known.pipe)?;
        let Some(stream) = broker.stream(&name).await? else { continue };
        let end = i64::try_from(stream.last).unwrap_or(i64::MAX);
        let same =
            known.incarnation.map(|at| at.timestamp_micros()) == Some(stream.created.timestamp_micros());
        if same && known.sequence > end {
            let back = async |tx: &mut OrgTx| Ok(read_cursor::set_back(tx, user, &known, end).await?);
            set += usize::from(tenant.within(&core.db, back).await?);
        }
    }
    Ok(set)
}
