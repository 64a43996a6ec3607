//! Messages as they come back.

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::name::sender_of;
use crate::{Error, Result};

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The subject it was published to.
    pub subject: String,
    /// Who sent it: the subject's last token, which NATS let nobody else use. None only where a stream was filled by hand.
    pub sender: Option<Uuid>,
    /// Its place in the stream.
    pub sequence: u64,
    /// When it was stored.
    pub time: DateTime<Utc>,
    /// Its headers, those that mean something to NATS included, but for those that NATS adds to tell the fields above.
    pub headers: Vec<(String, String)>,
    /// The message itself.
    pub payload: Bytes,
}

/// A message that a reader got and has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The message.
    pub message: Stored,
    /// How many times this reader got it, this time included.
    pub deliveries: u64,
    /// How many messages the reader has not got yet.
    pub pending: u64,
    /// What acknowledges it.
    pub ack: Ack,
}

/// What acknowledges one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack(pub(super) Subject);

impl Ack {
    /// The subject that an acknowledgement is sent to.
    pub fn subject(&self) -> &str {
        &self.0
    }
}

impl Fetched {
    /// Reads what a pull brought. Where it was delivered from stands in its reply subject:
    /// `$JS.ACK.[<domain>.<account hash>.]<stream>.<reader>.<deliveries>.<sequence>.<…>.<time>.<pending>[.<token>]`.
    pub(super) fn of(message: Message) -> Result<Self> {
        let unreadable = || Error::invalid("the message", "was not delivered by JetStream");
        let ack = message.reply.clone().ok_or_else(unreadable)?;
        let tokens: Vec<&str> = ack.as_str().split('.').collect();
        let from = if tokens.len() >= 11 { 6 } else { 4 };
        let number = |offset: usize| tokens.get(from + offset).and_then(|token| token.parse::<u64>().ok());
        let (Some(deliveries), Some(sequence), Some(nanos), Some(pending)) =
            (number(0), number(1), number(3), number(4))
        else {
            return Err(unreadable());
        };
        let time = DateTime::from_timestamp_nanos(i64::try_from(nanos).map_err(|_| unreadable())?);
        let stored = Stored {
            sender: sender_of(&message.subject),
            subject: message.subject.to_string(),
            sequence,
            time,
            headers: headers_of(message.headers.as_ref()),
            payload: message.payload,
        };
        Ok(Self { message: stored, deliveries, pending, ack: Ack(ack) })
    }
}

impl Stored {
    /// Reads what was got from a stream directly: NATS tells where from in headers, which it adds behind those of the
    /// sender, who may have said the same names.
    pub(super) fn of_direct(message: Message) -> Result<Self> {
        let headers = message.headers.unwrap_or_default();
        let told = |name: &str| headers.get_last(name).map(async_nats::HeaderValue::as_str);
        let unreadable = || Error::invalid("the message", "was not read from a stream");
        let subject = told("Nats-Subject").ok_or_else(unreadable)?.to_owned();
        let sequence = told("Nats-Sequence").and_then(|text| text.parse().ok()).ok_or_else(unreadable)?;
        let time = told("Nats-Time-Stamp").and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        Ok(Self {
            sender: sender_of(&subject),
            subject,
            sequence,
            time: time.ok_or_else(unreadable)?.to_utc(),
            headers: headers_of(Some(&headers)),
            payload: message.payload,
        })
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Whether an answer is a message, whatever status its sender wrote into it: what NATS says of its own has neither the place
/// that a message was read from, nor what acknowledges it.
pub(super) fn is_message(answer: &Message) -> bool {
    let is_delivery = |reply: &Subject| reply.starts_with("$JS.ACK.");
    let was_read = |headers: &HeaderMap| headers.get_last("Nats-Sequence").is_some();
    answer.status.is_none()
        || answer.reply.as_ref().is_some_and(is_delivery)
        || answer.headers.as_ref().is_some_and(was_read)
}

/// Headers that NATS adds to a message that is read directly.
const ADDED: [&str; 8] = [
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-Last-Sequence",
    "Nats-UpTo-Sequence",
    "Nats-Pending-Messages",
];

fn headers_of(headers: Option<&HeaderMap>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, values) in headers.into_iter().flat_map(HeaderMap::iter) {
        let name: &str = name.as_ref();
        if !ADDED.contains(&name) {
            found.extend(values.iter().map(|value| (name.to_owned(), value.as_str().to_owned())));
        }
    }
    // A map has no order; what is shown and compared has one.
    found.sort();
    found
}
