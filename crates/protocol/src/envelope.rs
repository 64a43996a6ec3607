//! The envelope of every message: `{"type","timestamp","payload"}`, one JSON message a text frame.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Largest frame either side takes: 512 KiB.
pub const MAX_FRAME_BYTES: usize = 512 * 1024;

/// The version of the protocol that `hello` and `welcome` speak of.
pub const PROTOCOL_VERSION: u32 = 1;

/// The envelope (seed A, `AgentMessage`). Timestamp and payload may be missing in what is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentMessage {
    /// Which message the payload is.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was made. A wrong or missing one is no error: nothing is decided by it.
    #[serde(default, deserialize_with = "lenient_time", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<DateTime<Utc>>,
    /// The message itself.
    #[serde(default)]
    pub payload: Value,
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<M> {
    /// A message of this protocol.
    Message(M),
    /// A type this version does not know; count it and go on. The name is cut to 64 characters.
    Unknown(String),
}

/// A frame that could not be read. It carries nothing of the frame but its place: frames may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Over [`MAX_FRAME_BYTES`].
    #[error("frame has {0} bytes, at most 524288 are taken")]
    TooLarge(usize),
    /// No JSON, or no envelope.
    #[error("frame is not a message (line {line}, column {column})")]
    Malformed {
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault, from 1.
        column: usize,
    },
    /// A known type whose payload does not fit.
    #[error("payload of a {kind} message does not fit")]
    Payload {
        /// The type.
        kind: &'static str,
    },
}

impl AgentMessage {
    pub(crate) fn decode(frame: &str) -> Result<Self, DecodeError> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(DecodeError::TooLarge(frame.len()));
        }
        serde_json::from_str(frame)
            .map_err(|error| DecodeError::Malformed { line: error.line(), column: error.column() })
    }

    pub(crate) fn payload<T: DeserializeOwned>(payload: Value, kind: &'static str) -> Result<T, DecodeError> {
        let payload = if payload.is_null() { Value::Object(serde_json::Map::new()) } else { payload };
        serde_json::from_value(payload).map_err(|_| DecodeError::Payload { kind })
    }

    pub(crate) fn unknown_kind(&self) -> String {
        self.kind.chars().filter(|c| !c.is_control()).take(64).collect()
    }
}

/// Reads a time, and anything that is none as `None`.
pub(crate) fn lenient_time<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(|text| text.parse().ok()))
}

/// Declares the messages of one direction: enum, `kind`, `decode` and `encode`.
macro_rules! messages {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident($message:ty) = $kind:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name { $($(#[$vmeta])* $variant($message)),+ }

        impl $name {
            /// Every message type of this direction.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The message's type on the wire.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind),+ }
            }

            /// Reads one text frame. Unknown fields are ignored, unknown types are [`Decoded::Unknown`](crate::Decoded::Unknown).
            pub fn decode(frame: &str) -> Result<$crate::Decoded<Self>, $crate::DecodeError> {
                let message = $crate::AgentMessage::decode(frame)?;
                match message.kind.as_str() {
                    $($kind => $crate::AgentMessage::payload(message.payload, $kind).map(|payload| {
                        $crate::Decoded::Message(Self::$variant(payload))
                    }),)+
                    _ => Ok($crate::Decoded::Unknown(message.unknown_kind())),
                }
            }

            /// Writes one text frame, stamped with `now`.
            pub fn encode(&self, now: chrono::DateTime<chrono::Utc>) -> String {
                let payload = match self { $(Self::$variant(payload) => serde_json::to_value(payload)),+ };
                // Only maps with keys that are no texts fail to serialize, and no message has one.
                let payload = payload.unwrap_or_default();
                let message = $crate::AgentMessage { kind: self.kind().to_owned(), timestamp: Some(now), payload };
                serde_json::to_string(&message).unwrap_or_default()
            }
        }

        $(impl From<$message> for $name {
            fn from(message: $message) -> Self { Self::$variant(message) }
        })+
    };
}
pub(crate) use messages;
