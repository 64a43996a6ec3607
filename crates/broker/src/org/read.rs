//! Reading: through a reader, which remembers, or from the stream itself, which does not.

use std::time::Duration;

use async_nats::{Message, StatusCode};
use bytes::Bytes;
use chrono::DateTime;
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::OrgBroker;
use super::message::{Ack, Fetched, Stored, is_message};
use super::publish::MAX_WIRE_BYTES;
use super::reader::{Position, check_name};
use super::stream::nanos;
use super::wire::{GetRequest, PullRequest};
use crate::name::StreamName;
use crate::{Error, Missing, Result};

/// The greatest number of messages that one call reads.
const MAX_MESSAGES: usize = 100;
/// The greatest number of bytes that one call reads; the first message always fits.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// The status that ends a batch read from a stream.
const END_OF_BATCH: u16 = 204;
/// Tells how many of the messages of a pull did not go out.
const PULL_LEFT: &str = "Nats-Pending-Messages";
/// How much sooner than us the server ends a pull, so that no message is on its way to nobody.
const HEAD_START: Duration = Duration::from_millis(500);

impl OrgBroker {
    /// The oldest messages that the reader has not got yet, at most `limit` (1 to 100). With none there, waits for the
    /// first one for at most `wait` (none: not at all), and answers none then.
    ///
    /// What is fetched and not acknowledged within 30 s comes again. Dropping the future leaves messages on their way,
    /// which come again too.
    pub async fn fetch(
        &self,
        stream: &StreamName,
        reader: &str,
        limit: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<Fetched>> {
        check_name(reader)?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{reader}");
        let batch = limit.clamp(1, MAX_MESSAGES);
        let at_once = PullRequest { batch, expires: None, no_wait: true, max_bytes: MAX_BYTES };
        let ask = Ask { doing: "fetch messages", subject: &subject, missing: Missing::Reader };
        let found = self.collect(&ask, &at_once, batch, self.connection.timeout()).await?;
        let found = match wait {
            Some(wait) if found.is_empty() && !wait.is_zero() => {
                let first = PullRequest {
                    batch: 1,
                    expires: Some(nanos(wait)?),
                    no_wait: false,
                    max_bytes: MAX_BYTES,
                };
                self.collect(&ask, &first, 1, wait + HEAD_START).await?
            }
            _ => found,
        };
        found.into_iter().map(Fetched::of).collect()
    }

    /// Acknowledges a delivery, and returns when JetStream has noted it.
    pub async fn acknowledge(&self, ack: &Ack) -> Result<()> {
        let payload = Bytes::from_static(b"+ACK");
        self.connection
            .request("acknowledge a message", &ack.0, payload, None, Missing::Reader)
            .await
            .map(drop)
    }

    /// Gives a delivery back, to be delivered again at once.
    pub async fn give_back(&self, ack: &Ack) -> Result<()> {
        let payload = Bytes::from_static(b"-NAK");
        self.connection.request("give a message back", &ack.0, payload, None, Missing::Reader).await.map(drop)
    }

    /// Messages from a position on, oldest first, at most `limit` (1 to 100) and 2 MiB, without moving any reader: to read
    /// again, to search, to follow. In a cluster a copy that lags a moment may answer.
    pub async fn read(&self, stream: &StreamName, from: Position, limit: usize) -> Result<Vec<Stored>> {
        let batch = limit.clamp(1, MAX_MESSAGES);
        let (seq, start_time) = match from {
            Position::Newest => return Ok(Vec::new()),
            Position::Oldest => (Some(1), None),
            Position::Sequence(sequence) => (Some(sequence.max(1)), None),
            // The server counts nanoseconds since 1970 in 64 bits, and takes times beyond them for others.
            Position::Time(time) if time < DateTime::UNIX_EPOCH => (Some(1), None),
            Position::Time(time) if time.timestamp_nanos_opt().is_none() => return Ok(Vec::new()),
            Position::Time(time) => (None, Some(time)),
        };
        let request = GetRequest {
            seq,
            start_time,
            next_by_subj: Some(">"),
            batch: Some(batch),
            max_bytes: Some(MAX_BYTES),
            ..GetRequest::default()
        };
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let ask = Ask { doing: "read messages", subject: &subject, missing: Missing::Stream };
        let found = self.collect(&ask, &request, batch, self.connection.timeout()).await?;
        found.into_iter().map(Stored::of_direct).collect()
    }

    /// The newest message of a stream; none where there is none.
    pub async fn last(&self, stream: &StreamName) -> Result<Option<Stored>> {
        let request = GetRequest { last_by_subj: Some(">"), ..GetRequest::default() };
        self.get(stream, &request).await
    }

    /// The message of one sequence; none where it is gone or never was.
    pub async fn message(&self, stream: &StreamName, sequence: u64) -> Result<Option<Stored>> {
        let request = GetRequest { seq: Some(sequence), ..GetRequest::default() };
        self.get(stream, &request).await
    }

    async fn get(&self, stream: &StreamName, request: &GetRequest<'_>) -> Result<Option<Stored>> {
        let doing = "read a message";
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let body = encode(doing, request)?;
        let answer = self.connection.request(doing, &subject, body, None, Missing::Stream).await?;
        match answer.status {
            _ if is_message(&answer) => Stored::of_direct(answer).map(Some),
            None | Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(refused(doing, status, &answer)),
        }
    }

    /// Asks, and gathers answers until there are `limit`, or the server says that there are no more.
    async fn collect(
        &self,
        ask: &Ask<'_>,
        request: &impl Serialize,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Message>> {
        let doing = ask.doing;
        let _place = self.connection.place()?;
        let client = self.connection.client();
        let inbox = client.new_inbox();
        let gone = |error: async_nats::Error| Error::unavailable(doing, error);
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| gone(error.into()))?;
        let body = encode(doing, request)?;
        client
            .publish_with_reply(ask.subject.to_owned(), inbox, body)
            .await
            .map_err(|error| gone(error.into()))?;
        let deadline = Instant::now() + wait.max(HEAD_START);
        let (mut found, mut expected) = (Vec::new(), limit);
        while found.len() < expected {
            let answer = timeout_at(deadline, answers.next()).await.map_err(|_| Error::late(doing))?;
            let Some(answer) = answer else { return Err(Error::late(doing)) };
            match answer.status {
                _ if is_message(&answer) => found.push(answer),
                None | Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(status) => expected = expected.min(end_of(ask, status, &answer, limit, found.len())?),
            }
        }
        Ok(found)
    }
}

/// What is asked, and what it means that nobody listens.
struct Ask<'a> {
    doing: &'static str,
    subject: &'a str,
    missing: Missing,
}

/// How many messages there are when a status says that there are no more than so many, of which so many have come.
///
/// Of a pull it says how many of those asked for did not go out. Those that did may still be on their way: in a cluster,
/// a delivery waits for the other servers, and the status does not.
fn end_of(ask: &Ask<'_>, status: StatusCode, answer: &Message, limit: usize, found: usize) -> Result<usize> {
    let text = answer.description.as_deref().unwrap_or_default();
    let left = answer.headers.as_ref().and_then(|headers| headers.get(PULL_LEFT));
    let left = left.and_then(|left| left.as_str().parse().ok());
    let expected = left.map_or(found, |left: usize| limit.saturating_sub(left));
    match status {
        StatusCode::NO_RESPONDERS => Err(Error::NotFound(ask.missing)),
        // Of a stream that was asked itself, it says that the question is none.
        StatusCode::TIMEOUT if ask.missing == Missing::Stream => Err(refused(ask.doing, status, answer)),
        StatusCode::NOT_FOUND | StatusCode::TIMEOUT => Ok(expected),
        status if status.as_u16() == END_OF_BATCH => Ok(found),
        // 409 says many things; some of them only that this is as much as fits.
        _ if text.contains("Batch Completed") || text.contains("MaxBytes") => Ok(expected),
        _ if text.contains("Consumer Deleted") => Err(Error::NotFound(Missing::Reader)),
        _ if text.contains("Leadership Change") || text.contains("Server Shutdown") => {
            Err(Error::late(ask.doing))
        }
        status => Err(refused(ask.doing, status, answer)),
    }
}

fn refused(doing: &'static str, status: StatusCode, answer: &Message) -> Error {
    let description = answer.description.clone().unwrap_or_default();
    Error::Refused { doing, code: u64::from(status.as_u16()), description }
}

fn encode(doing: &'static str, request: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(request).map(Bytes::from).map_err(|error| Error::unavailable(doing, error))
}

/// One message always fits into one call.
const _: () = assert!(MAX_WIRE_BYTES as usize * 2 <= MAX_BYTES);
