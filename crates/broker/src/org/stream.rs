//! Streams: one per pipe, made to be exactly what was asked for.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::OrgBroker;
use super::api::STREAM_NAME_TAKEN;
use super::publish::MAX_WIRE_BYTES;
use super::wire::{AccountInfo, Done, PageRequest, StreamConfig, StreamInfo, StreamPage, Transform};
use crate::name::{PipeSubject, StreamName};
use crate::{Error, Full, Missing, Result};

/// Within this time a message with an id that was stored already is not stored again; never longer than messages live.
///
/// Longer than what carries messages may be away: a database that was killed while it recovered took a minute on a busy
/// machine, and NATS may take five to recover its streams. The server keeps the ids in memory, some 300 bytes each.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(10);

/// How long and how much a stream keeps: the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a message is kept.
    pub age: Duration,
    /// How many messages are kept.
    pub messages: u64,
    /// How many bytes are kept. They are promised when the stream is made, and count against the account's limit.
    pub bytes: u64,
}

/// What a stream shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: StreamName,
    /// The pipe whose messages it holds.
    pub subject: PipeSubject,
    /// What it keeps.
    pub retention: Retention,
}

/// What a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInForce {
    /// Its name.
    pub name: StreamName,
    /// The subject it stores messages under, with a wildcard for the sender: [`PipeSubject::all_senders`].
    pub subject: String,
    /// What it keeps.
    pub retention: Retention,
    /// How many servers of a cluster are to have it.
    pub copies: usize,
    /// How many have all of it at this moment: fewer while one is away, or is being brought after the others.
    pub complete: usize,
    /// When it was made: with the name, its incarnation. A cursor of another incarnation counts for nothing.
    pub created: DateTime<Utc>,
    /// How many messages it has.
    pub messages: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// The sequence of the oldest message; one past [`StreamInForce::last`] when there is none.
    pub first: u64,
    /// The sequence of the newest message ever; 0 when there never was one.
    pub last: u64,
    /// How many readers it has.
    pub readers: u64,
}

/// What an account uses and may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub stored_bytes: u64,
    /// Bytes promised to streams.
    pub promised_bytes: u64,
    /// Bytes that may be promised; none is unlimited.
    pub limit_bytes: Option<u64>,
    /// Streams.
    pub streams: u64,
    /// How many streams there may be; none is unlimited.
    pub limit_streams: Option<u64>,
    /// Readers.
    pub readers: u64,
}

impl OrgBroker {
    /// Makes a stream, or changes the one that is there, and answers what is in force. When that is not what was asked for,
    /// this fails with [`Error::Mismatch`]; when there is no room for it, with [`Error::Full`].
    pub async fn ensure_stream(&self, spec: &StreamSpec) -> Result<StreamInForce> {
        let wanted = self.config(spec)?;
        let info = match self.put_stream("CREATE", &wanted).await {
            Err(Error::Refused { code: STREAM_NAME_TAKEN, .. }) => self.put_stream("UPDATE", &wanted).await,
            outcome => outcome,
        };
        let info = self.with_figures(info, u64::try_from(wanted.max_bytes).unwrap_or_default()).await?;
        check(&wanted, &info.config)?;
        StreamInForce::of(info)
    }

    /// How many servers of a cluster every stream is to be on.
    pub const fn copies(&self) -> usize {
        self.replicas
    }

    /// The stream as it is; none where there is none.
    pub async fn stream(&self, name: &StreamName) -> Result<Option<StreamInForce>> {
        match self.ask("look at a stream", &format!("STREAM.INFO.{name}")).await {
            Ok(info) => StreamInForce::of(info).map(Some),
            Err(Error::NotFound(Missing::Stream)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All streams of the organization, by name.
    pub async fn streams(&self) -> Result<Vec<StreamInForce>> {
        let mut found = Vec::new();
        loop {
            let request = PageRequest { offset: found.len() };
            let page: StreamPage = self.call("list streams", "STREAM.LIST", &request).await?;
            let streams = page.streams.unwrap_or_default();
            // A page that is empty before its time would be asked for forever.
            if streams.is_empty() {
                return Ok(found);
            }
            for info in streams {
                found.push(StreamInForce::of(info)?);
            }
            if found.len() >= page.total {
                return Ok(found);
            }
        }
    }

    /// Deletes a stream with its messages and readers; whether there was one.
    pub async fn delete_stream(&self, name: &StreamName) -> Result<bool> {
        let doing = "delete a stream";
        match self.ask::<Done>(doing, &format!("STREAM.DELETE.{name}")).await {
            Ok(done) => Ok(done.success),
            Err(Error::NotFound(Missing::Stream)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the account uses.
    pub async fn usage(&self) -> Result<Usage> {
        let info: AccountInfo = self.ask("look at an account", "INFO").await?;
        Ok(Usage {
            stored_bytes: info.storage,
            promised_bytes: info.reserved_storage,
            limit_bytes: u64::try_from(info.limits.max_storage).ok(),
            streams: info.streams,
            limit_streams: u64::try_from(info.limits.max_streams).ok(),
            readers: info.consumers,
        })
    }

    async fn put_stream(&self, verb: &str, wanted: &StreamConfig) -> Result<StreamInfo> {
        self.call("make a stream", &format!("STREAM.{verb}.{}", wanted.name), wanted).await
    }

    /// Says of what is full how much is used of it. NATS says with the same code that the account's promise is exhausted, and
    /// that the server's is: the numbers tell, where so many bytes more were asked for.
    pub(super) async fn with_figures<T>(&self, outcome: Result<T>, asked: u64) -> Result<T> {
        let Err(Error::Full { limit, description, .. }) = outcome else { return outcome };
        let usage = self.usage().await.ok().map(Box::new);
        let of_account = |usage: &Usage| {
            usage.limit_bytes.is_some_and(|limit| usage.promised_bytes.saturating_add(asked) > limit)
        };
        let limit = match limit {
            Full::ServerStorage if usage.as_deref().is_some_and(of_account) => Full::AccountStorage,
            other => other,
        };
        Err(Error::Full { limit, description, usage })
    }

    fn config(&self, spec: &StreamSpec) -> Result<StreamConfig> {
        let Retention { age, messages, bytes } = spec.retention;
        let number = |what, value: u64| {
            i64::try_from(value)
                .ok()
                .filter(|value| *value > 0)
                .ok_or_else(|| Error::invalid(what, "must be 1 or more"))
        };
        let listened = spec.subject.listened();
        Ok(StreamConfig {
            name: spec.name.to_string(),
            subject_transform: Some(Transform { src: listened.clone(), dest: spec.subject.stored() }),
            subjects: vec![listened],
            retention: "limits".to_owned(),
            storage: "file".to_owned(),
            discard: "old".to_owned(),
            max_msgs: number("the number of messages", messages)?,
            max_bytes: number("the number of bytes", bytes)?,
            max_age: nanos(age)?,
            max_msg_size: i64::from(MAX_WIRE_BYTES),
            num_replicas: self.replicas,
            duplicate_window: nanos(age.min(DUPLICATE_WINDOW))?,
            allow_direct: true,
            deny_delete: true,
        })
    }
}

pub(super) fn nanos(duration: Duration) -> Result<i64> {
    i64::try_from(duration.as_nanos())
        .ok()
        .filter(|nanos| *nanos > 0)
        .ok_or_else(|| Error::invalid("the duration", "must be more than nothing and less than 292 years"))
}

/// Compares what is in force with what was asked for, setting by setting.
fn check(wanted: &StreamConfig, in_force: &StreamConfig) -> Result<()> {
    let settings = [
        ("max_age", wanted.max_age.to_string(), in_force.max_age.to_string()),
        ("max_msgs", wanted.max_msgs.to_string(), in_force.max_msgs.to_string()),
        ("max_bytes", wanted.max_bytes.to_string(), in_force.max_bytes.to_string()),
        ("storage", wanted.storage.clone(), in_force.storage.clone()),
        ("num_replicas", wanted.num_replicas.to_string(), in_force.num_replicas.to_string()),
    ];
    let mut settings = settings.into_iter();
    if let Some((field, wanted_value, in_force)) = settings.find(|(_, wanted, in_force)| wanted != in_force) {
        let stream = wanted.name.clone();
        return Err(Error::Mismatch { stream, field, wanted: wanted_value, in_force });
    }
    if wanted == in_force {
        return Ok(());
    }
    Err(Error::Mismatch {
        stream: wanted.name.clone(),
        field: "configuration",
        wanted: format!("{wanted:?}"),
        in_force: format!("{in_force:?}"),
    })
}

impl StreamInForce {
    fn of(info: StreamInfo) -> Result<Self> {
        let StreamInfo { config, created, state, cluster } = info;
        let complete = cluster.map_or(config.num_replicas, |cluster| cluster.complete());
        let subject =
            config.subject_transform.map(|transform| transform.dest.replace("{{wildcard(1)}}", "*"));
        let subject = subject.or_else(|| config.subjects.into_iter().next()).unwrap_or_default();
        Ok(Self {
            name: StreamName::parse(&config.name)?,
            subject,
            retention: Retention {
                age: Duration::from_nanos(unsigned(config.max_age)),
                messages: unsigned(config.max_msgs),
                bytes: unsigned(config.max_bytes),
            },
            copies: config.num_replicas,
            complete,
            created,
            messages: state.messages,
            bytes: state.bytes,
            first: state.first_seq,
            last: state.last_seq,
            readers: state.consumer_count,
        })
    }
}

/// Without a limit, JetStream says -1.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
