//! Readers: durable consumers named after a user, one per stream, whose position survives everything but deletion.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::OrgBroker;
use super::api::CONSUMER_EXISTS;
use super::stream::nanos;
use super::wire::{ConsumerConfig, ConsumerInfo, ConsumerRequest, Done, NamePage, PageRequest};
use crate::name::StreamName;
use crate::{Error, Missing, Result};

/// How long a reader that nobody reads with is kept.
const INACTIVE: Duration = Duration::from_hours(30 * 24);
/// How long a message may wait for its acknowledgement before it is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How many messages may wait for their acknowledgement.
const MAX_UNACKED: i64 = 1_000;
/// The greatest number of messages of one pull, and how long it may wait.
const MAX_BATCH: i64 = 256;
const MAX_WAIT: Duration = Duration::from_mins(1);
/// How many pulls of one reader may wait at a time.
const MAX_PULLS: i64 = 64;

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// At the oldest message there is.
    Oldest,
    /// After the newest message there is.
    Newest,
    /// At this sequence; one that is gone means the next one there is.
    Sequence(u64),
    /// At the first message stored at this time or later.
    Time(DateTime<Utc>),
}

/// How far a reader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderState {
    /// When it was made.
    pub created: DateTime<Utc>,
    /// The sequence up to which messages were delivered.
    pub delivered: u64,
    /// The sequence up to which all delivered messages were acknowledged.
    pub acknowledged: u64,
    /// Messages not delivered yet.
    pub pending: u64,
    /// Messages delivered and not acknowledged.
    pub unacknowledged: u64,
}

impl ReaderState {
    /// Messages not read: not delivered, or delivered and not acknowledged.
    pub const fn unread(&self) -> u64 {
        self.pending + self.unacknowledged
    }
}

impl OrgBroker {
    /// Makes the reader `name` of a stream unless it is there already, in which case it stays where it is.
    pub async fn ensure_reader(
        &self,
        stream: &StreamName,
        name: &str,
        begin: Position,
    ) -> Result<ReaderState> {
        check_name(name)?;
        if let Some(state) = self.reader(stream, name).await? {
            return Ok(state);
        }
        match self.create_reader(stream, name, begin).await {
            // Somebody else was first.
            Err(Error::Refused { code, .. }) if CONSUMER_EXISTS.contains(&code) => {
                self.reader(stream, name).await?.ok_or(Error::NotFound(Missing::Reader))
            }
            outcome => outcome,
        }
    }

    /// Makes the reader anew at another position, for instance to read again. Deliveries of before count for nothing.
    pub async fn move_reader(&self, stream: &StreamName, name: &str, begin: Position) -> Result<ReaderState> {
        self.delete_reader(stream, name).await?;
        self.create_reader(stream, name, begin).await
    }

    /// How far a reader is; none where there is none.
    pub async fn reader(&self, stream: &StreamName, name: &str) -> Result<Option<ReaderState>> {
        check_name(name)?;
        let subject = format!("CONSUMER.INFO.{stream}.{name}");
        match self.ask("look at a reader", &subject).await {
            Ok(info) => Ok(Some(ReaderState::of(&info))),
            Err(Error::NotFound(Missing::Reader)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of a stream's readers.
    pub async fn readers(&self, stream: &StreamName) -> Result<Vec<String>> {
        let subject = format!("CONSUMER.NAMES.{stream}");
        let mut found = Vec::new();
        loop {
            let request = PageRequest { offset: found.len() };
            let page: NamePage = self.call("list readers", &subject, &request).await?;
            let names = page.consumers.unwrap_or_default();
            let is_last = names.is_empty() || found.len() + names.len() >= page.total;
            found.extend(names);
            if is_last {
                return Ok(found);
            }
        }
    }

    /// Deletes a reader, so that its user cannot read any more; whether there was one.
    pub async fn delete_reader(&self, stream: &StreamName, name: &str) -> Result<bool> {
        check_name(name)?;
        let subject = format!("CONSUMER.DELETE.{stream}.{name}");
        match self.ask::<Done>("delete a reader", &subject).await {
            Ok(done) => Ok(done.success),
            Err(Error::NotFound(Missing::Reader | Missing::Stream)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create_reader(&self, stream: &StreamName, name: &str, begin: Position) -> Result<ReaderState> {
        let request = ConsumerRequest {
            stream_name: stream.as_str(),
            config: Self::reader_config(name, begin)?,
            action: "create",
        };
        let subject = format!("CONSUMER.CREATE.{stream}.{name}");
        let info: ConsumerInfo = self.call("make a reader", &subject, &request).await?;
        Ok(ReaderState::of(&info))
    }

    fn reader_config(name: &str, begin: Position) -> Result<ConsumerConfig<'_>> {
        let (deliver_policy, opt_start_seq, opt_start_time) = match begin {
            Position::Oldest | Position::Sequence(0) => ("all", None, None),
            Position::Newest => ("new", None, None),
            Position::Sequence(sequence) => ("by_start_sequence", Some(sequence), None),
            Position::Time(time) => ("by_start_time", None, Some(time)),
        };
        Ok(ConsumerConfig {
            name,
            durable_name: name,
            deliver_policy,
            opt_start_seq,
            opt_start_time,
            ack_policy: "explicit",
            ack_wait: nanos(ACK_WAIT)?,
            max_deliver: -1,
            max_ack_pending: MAX_UNACKED,
            max_waiting: MAX_PULLS,
            max_batch: MAX_BATCH,
            max_expires: nanos(MAX_WAIT)?,
            inactive_threshold: nanos(INACTIVE)?,
            replay_policy: "instant",
            // As many as its stream has, whatever becomes of that.
            num_replicas: 0,
        })
    }
}

/// A reader's name is one token.
pub(super) fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= 64;
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        Ok(())
    } else {
        Err(Error::invalid("the reader's name", "must be 1 to 64 of a-z, A-Z, 0-9, - and _"))
    }
}

impl ReaderState {
    const fn of(info: &ConsumerInfo) -> Self {
        Self {
            created: info.created,
            delivered: info.delivered.stream_seq,
            acknowledged: info.ack_floor.stream_seq,
            pending: info.num_pending,
            unacknowledged: info.num_ack_pending,
        }
    }
}
