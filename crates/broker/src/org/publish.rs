//! Publishing: stored when this returns, once however often it is repeated.

use std::str::FromStr;

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use uuid::Uuid;

use super::OrgBroker;
use super::api::parse;
use super::wire::PublishAnswer;
use crate::name::{PipeSubject, StreamName};
use crate::{Error, Missing, Result};

/// The greatest message in bytes, without headers.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The greatest size of a message's headers in bytes.
pub const MAX_HEADER_BYTES: usize = 1024;
/// What NATS is told: headers and message together.
pub(crate) const MAX_WIRE_BYTES: u32 = 65 * 1024;

/// `NATS/1.0`, the separators and the name of the id's header.
const HEADER_OVERHEAD: usize = 32;
/// Names that mean something to NATS.
const RESERVED: &str = "nats-";

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The pipe.
    pub pipe: PipeSubject,
    /// Who sends it: the caller has proved it, and readers believe it.
    pub sender: Uuid,
    /// Names this message among the sender's: a repeat with the same id within ten minutes is not stored again.
    pub id: String,
    /// More headers; none may begin with `Nats-`.
    pub headers: Vec<(String, String)>,
    /// The message itself, bytes of any kind.
    pub payload: Bytes,
}

/// JetStream's word that a message is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where.
    pub stream: StreamName,
    /// Under which sequence; a repeat gets the first one's.
    pub sequence: u64,
    /// Whether it was stored before.
    pub repeated: bool,
}

impl OrgBroker {
    /// Stores a message and returns after JetStream's acknowledgement. Without a stream for the pipe this fails with
    /// [`Missing::Stream`]. After [`Error::Unavailable`] the message may be stored or not: repeat it with the same id.
    pub async fn publish(&self, message: Outgoing) -> Result<Receipt> {
        self.publish_to(message, None).await
    }

    /// The same for that stream alone: where another one has the pipe's subject by now, it fails with
    /// [`Missing::Stream`], too.
    pub async fn publish_into(&self, stream: &StreamName, message: Outgoing) -> Result<Receipt> {
        self.publish_to(message, Some(stream)).await
    }

    async fn publish_to(&self, message: Outgoing, stream: Option<&StreamName>) -> Result<Receipt> {
        let doing = "store a message";
        let Outgoing { pipe, sender, id, headers, payload } = message;
        if payload.len() > MAX_MESSAGE_BYTES {
            return Err(Error::TooLarge { bytes: payload.len(), limit: MAX_MESSAGE_BYTES });
        }
        let mut headers = header_map(sender, &id, headers)?;
        if let Some(stream) = stream {
            headers.insert(async_nats::header::NATS_EXPECTED_STREAM, stream.as_str());
        }
        let subject = pipe.from_sender(sender);
        let answer =
            self.connection.request(doing, &subject, payload, Some(headers), Missing::Stream).await?;
        let answer: PublishAnswer = self.with_figures(parse(doing, &answer.payload), 0).await?;
        Ok(Receipt {
            stream: StreamName::parse(&answer.stream)?,
            sequence: answer.seq,
            repeated: answer.duplicate,
        })
    }
}

fn header_map(sender: Uuid, id: &str, headers: Vec<(String, String)>) -> Result<HeaderMap> {
    // One sender's ids must not hide another's messages.
    let id = format!("{}:{id}", sender.simple());
    let size: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let bytes = HEADER_OVERHEAD + id.len() + size;
    if bytes > MAX_HEADER_BYTES {
        return Err(Error::TooLarge { bytes, limit: MAX_HEADER_BYTES });
    }
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| Error::invalid("the header", "must not contain line breaks"))
    };
    let mut map = HeaderMap::new();
    map.insert(async_nats::header::NATS_MESSAGE_ID, value(&id)?);
    for (name, text) in headers {
        map.append(header_name(&name)?, value(&text)?);
    }
    Ok(map)
}

fn header_name(name: &str) -> Result<HeaderName> {
    let is_token =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let is_reserved = name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED));
    let refused =
        || Error::invalid("the header's name", "must be of a-z, A-Z, 0-9, - and _, and not begin with Nats-");
    if !is_token || is_reserved {
        return Err(refused());
    }
    HeaderName::from_str(name).map_err(|_| refused())
}
