//! What a message looks like on its way: one JSON object, at most 64 KiB of it.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Fields, FromFields, MessageId, PipeSubject, UserId};

/// Bytes that an envelope may have when it is encoded.
pub const ENVELOPE_BYTES: usize = 64 * 1_024;

/// What is in a message: a text as it is, or bytes, which are base64 on the wire in `{"base64": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payload {
    /// A text.
    Text(String),
    /// Whatever a terminal or a program wrote, split characters included.
    Bytes(Vec<u8>),
}

impl Payload {
    /// The bytes that were sent, of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Its beginning as text for people, at most `most` characters; bytes that are none are replaced, control characters
    /// and what terminals obey (colours, titles, where the cursor is) are left out.
    pub fn preview(&self, most: usize) -> String {
        // A character has at most four bytes, and control sequences are few where somebody writes to people.
        let bytes = self.as_bytes();
        let head = bytes.get(..most.saturating_mul(16)).unwrap_or(bytes);
        let mut inside = Inside::Text;
        let text = String::from_utf8_lossy(head);
        let printed = text.chars().filter(|c| inside.prints(*c)).take(most).collect::<String>();
        printed.trim_matches('\n').to_owned()
    }
}

/// Where in a control sequence (ECMA-48) a text is.
#[derive(Clone, Copy)]
enum Inside {
    Text,
    /// Behind an escape character.
    Escape,
    /// Behind its first characters, which one more ends.
    Sequence,
    /// In a string, such as a window's title, which has an end of its own.
    String,
    /// Behind an escape character there, which begins that end.
    Ending,
}

impl Inside {
    /// Goes on by a character; whether it is one that is printed.
    fn prints(&mut self, next: char) -> bool {
        let (now, prints) = match (*self, next) {
            (Self::String, '\u{1b}') => (Self::Ending, false),
            (Self::String, '\u{7}' | '\u{9c}') | (Self::Ending, _) => (Self::Text, false),
            (Self::String, _) | (Self::Escape, ']' | 'P' | 'X' | '^' | '_') | (_, '\u{9d}' | '\u{90}') => {
                (Self::String, false)
            }
            (_, '\u{1b}') | (Self::Escape, ' '..='/') => (Self::Escape, false),
            (Self::Escape, '[') | (Self::Sequence, ' '..='?') | (_, '\u{9b}') => (Self::Sequence, false),
            (Self::Escape | Self::Sequence, _) => (Self::Text, false),
            (Self::Text, next) => (Self::Text, !next.is_control() || next == '\n'),
        };
        *self = now;
        prints
    }
}

/// The wire form of a payload.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PayloadForm {
    Text(String),
    Bytes { base64: String },
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => PayloadForm::Bytes { base64: STANDARD.encode(bytes) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = PayloadForm::deserialize(deserializer)
            .map_err(|_| serde::de::Error::custom("must be a text or {\"base64\": \"…\"}"))?;
        match form {
            PayloadForm::Text(text) => Ok(Self::Text(text)),
            PayloadForm::Bytes { base64 } => {
                let bytes = STANDARD.decode(base64);
                bytes.map(Self::Bytes).map_err(|_| serde::de::Error::custom("base64 must be padded base64"))
            }
        }
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Payload {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        let text = ObjectBuilder::new().schema_type(Type::String);
        let bytes = ObjectBuilder::new()
            .property("base64", ObjectBuilder::new().schema_type(Type::String))
            .required("base64");
        OneOfBuilder::new().item(text).item(bytes).into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Payload {}

/// A message of a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Envelope {
    /// The message's id, which its sender chose.
    pub id: MessageId,
    /// Who sent it: the subject's last token, which the permission to publish fixes.
    pub sender: UserId,
    /// What it was sent to, as the broker has it.
    pub subject: String,
    /// What it says.
    pub payload: Payload,
    /// When its sender says it was made.
    pub created_at: DateTime<Utc>,
    /// The message that it answers.
    pub in_reply_to: Option<MessageId>,
    /// Whether its sender wants to hear that it was read.
    pub ack_requested: bool,
}

/// Why something is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It is too large.
    #[error("a message may have {ENVELOPE_BYTES} bytes with its envelope, this one has {0}")]
    TooLarge(usize),
    /// It is no envelope.
    #[error("this is no envelope: {0}")]
    Malformed(String),
}

/// What of an envelope is read; who sent it and what to is not.
#[derive(Deserialize)]
struct Written {
    id: MessageId,
    payload: Payload,
    created_at: DateTime<Utc>,
    #[serde(default)]
    in_reply_to: Option<MessageId>,
    #[serde(default)]
    ack_requested: bool,
}

impl Envelope {
    /// A message to `subject`, from the sender that it names.
    pub fn new(id: MessageId, subject: &PipeSubject, message: NewMessage, now: DateTime<Utc>) -> Self {
        let NewMessage { payload, in_reply_to, ack_requested } = message;
        let (sender, subject) = (subject.sender, subject.to_string());
        Self { id, sender, subject, payload, created_at: now, in_reply_to, ack_requested }
    }

    /// As it goes to the broker.
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let encoded =
            serde_json::to_vec(self).map_err(|error| EnvelopeError::Malformed(error.to_string()))?;
        fits(&encoded).map(|()| encoded)
    }

    /// Reads what was published to `subject`: whatever it says of its sender and of its subject is put right.
    pub fn decode(encoded: &[u8], subject: &PipeSubject) -> Result<Self, EnvelopeError> {
        fits(encoded)?;
        let malformed = |error: serde_json::Error| EnvelopeError::Malformed(error.to_string());
        let Written { id, payload, created_at, in_reply_to, ack_requested } =
            serde_json::from_slice(encoded).map_err(malformed)?;
        let (sender, subject) = (subject.sender, subject.to_string());
        Ok(Self { id, sender, subject, payload, created_at, in_reply_to, ack_requested })
    }
}

fn fits(encoded: &[u8]) -> Result<(), EnvelopeError> {
    if encoded.len() > ENVELOPE_BYTES { Err(EnvelopeError::TooLarge(encoded.len())) } else { Ok(()) }
}

/// Body of `POST sources/{handle}/pipes/{name}/messages`. A sender or a subject in it is ignored, so that an envelope can
/// be sent as it is; its `created_at`, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// What it says.
    pub payload: Payload,
    /// The message that it answers.
    pub in_reply_to: Option<MessageId>,
    /// Whether the sender wants to hear that it was read.
    pub ack_requested: bool,
}

impl FromFields for NewMessage {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        for ignored in ["id", "sender", "subject", "created_at"] {
            let _: Option<Value> = fields.optional(ignored);
        }
        let payload = fields.required("payload");
        let in_reply_to = fields.optional("in_reply_to");
        let ack_requested = fields.optional("ack_requested").unwrap_or(false);
        Some(Self { payload: payload?, in_reply_to, ack_requested })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::OrgId;

    fn subject() -> PipeSubject {
        PipeSubject {
            org_id: OrgId::new(),
            creator: UserId::new(),
            handle: "build".into(),
            pipe: "inbox".into(),
            sender: UserId::new(),
        }
    }

    fn message(payload: Payload) -> NewMessage {
        NewMessage { payload, in_reply_to: None, ack_requested: false }
    }

    #[test]
    fn an_envelope_has_the_contracts_fields_and_no_others() {
        let (subject, id) = (subject(), MessageId::new());
        let answer =
            NewMessage { payload: Payload::Text("hi".into()), in_reply_to: Some(id), ack_requested: true };
        let envelope = Envelope::new(id, &subject, answer, DateTime::UNIX_EPOCH);
        let wanted = json!({"id": id, "sender": subject.sender, "subject": subject.to_string(), "payload": "hi",
                            "created_at": "1970-01-01T00:00:00Z", "in_reply_to": id, "ack_requested": true});
        assert_eq!(serde_json::to_value(&envelope).unwrap(), wanted);
    }

    #[test]
    fn a_forged_sender_and_subject_are_put_right() {
        let (subject, forged) = (subject(), UserId::new());
        let written = json!({"id": MessageId::new(), "sender": forged, "subject": "elsewhere", "payload": "hi",
                             "created_at": "2026-11-28T08:00:00Z"});
        let read = Envelope::decode(written.to_string().as_bytes(), &subject).unwrap();
        assert_eq!((read.sender, read.subject), (subject.sender, subject.to_string()));
        assert_eq!((read.in_reply_to, read.ack_requested), (None, false));
        let no_uuid = json!({"id": MessageId::new(), "sender": "me", "payload": "", "created_at": "2026-11-28T08:00:00Z"});
        assert!(Envelope::decode(no_uuid.to_string().as_bytes(), &subject).is_ok());
    }

    #[test]
    fn an_envelope_may_have_64_kib_and_not_a_byte_more() {
        let subject = subject();
        let sized = |length| {
            let payload = Payload::Text("x".repeat(length));
            Envelope::new(MessageId::new(), &subject, message(payload), DateTime::UNIX_EPOCH).encode()
        };
        let around = sized(0).unwrap().len();
        let full = sized(ENVELOPE_BYTES - around).unwrap();
        assert_eq!(full.len(), ENVELOPE_BYTES);
        assert!(Envelope::decode(&full, &subject).is_ok());
        assert_eq!(sized(ENVELOPE_BYTES - around + 1), Err(EnvelopeError::TooLarge(ENVELOPE_BYTES + 1)));
        let padded = [full, vec![b' ']].concat();
        assert_eq!(Envelope::decode(&padded, &subject), Err(EnvelopeError::TooLarge(ENVELOPE_BYTES + 1)));
    }

    #[test]
    fn a_message_names_every_bad_field_and_may_be_an_envelope() {
        let body =
            json!({"payload": {"base64": "AP8="}, "sender": "x", "id": 1, "subject": "y", "created_at": "z"});
        let read = NewMessage::from_json(body).unwrap();
        assert_eq!(read, message(Payload::Bytes(vec![0, 255])));
        let bad = json!({"payload": 1, "in_reply_to": "x", "ack_requested": 1, "to": "y"});
        let errors = NewMessage::from_json(bad).unwrap_err();
        let named: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(named, ["ack_requested", "in_reply_to", "payload", "to"]);
        assert!(NewMessage::from_json(json!({"payload": null})).is_err());
        for text in ["AP8", "AP9=", "A===", "AP8=AP8=", "A P8"] {
            assert!(NewMessage::from_json(json!({"payload": {"base64": text}})).is_err(), "{text}");
        }
    }

    #[test]
    fn a_preview_is_short_and_prints() {
        let preview = |text: &str| Payload::Text(text.into()).preview(6);
        assert_eq!(preview("ä\u{1b}[1mö\nü"), "äö\nü");
        assert_eq!(preview("abcdefgh"), "abcdef");
        assert_eq!(preview("\u{1b}]0;title\u{7}\u{1b}[?2004h\u{1b}[01;32m$ \u{1b}[0mls\r\n"), "$ ls");
        assert_eq!(preview("\u{1b}]0;title\u{1b}\\a\u{1b}(Bb\u{1b}Pq\u{9c}c\u{9b}2Jd"), "abcd");
        assert_eq!(preview("\u{1b}[2J\u{1b}[H"), "");
        assert_eq!(preview("\u{1b}]0;it never ends"), "");
        assert_eq!(Payload::Bytes(vec![b'a', 0xff, 0, b'b']).preview(10), "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn bytes_arrive_as_they_were_sent(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in ".{0,40}") {
            let subject = subject();
            for payload in [Payload::Bytes(bytes.clone()), Payload::Text(text.clone())] {
                let sent = Envelope::new(MessageId::new(), &subject, message(payload), DateTime::UNIX_EPOCH);
                prop_assert_eq!(Envelope::decode(&sent.encode().unwrap(), &subject), Ok(sent));
            }
        }
    }
}
