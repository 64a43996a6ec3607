//! Who reads pipes, how far they are, and who has read a message.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{MessageId, SourceId, SourceKind, UserId};

/// A pipe that somebody reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// The source.
    pub source_id: SourceId,
    /// Its handle.
    pub handle: String,
    /// What it is.
    pub kind: SourceKind,
    /// Who made it; `null` once they are no member any more.
    pub owner: Option<String>,
    /// The pipe.
    pub pipe: String,
    /// The last message that was taken; 0 before the first.
    pub sequence: u64,
    /// When their place was last written down.
    pub at: DateTime<Utc>,
    /// How many messages are not read; `null` where the broker does not answer.
    pub unread: Option<u64>,
    /// What was sent last; `null` where nothing is kept, or the broker does not answer.
    pub last: Option<LastSent>,
}

/// The newest message of a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LastSent {
    /// Its place in the pipe.
    pub sequence: u64,
    /// Who sent it.
    pub sender: UserId,
    /// When it was stored.
    pub stored_at: DateTime<Utc>,
    /// Its beginning, as text.
    pub text: String,
}

/// A member who uses pipes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SeenMember {
    /// The member.
    pub user_id: UserId,
    /// Their username.
    pub username: String,
    /// When they last read a pipe, or renewed a token for NATS.
    pub seen_at: DateTime<Utc>,
    /// Until when a token for NATS is good that they hold: who is connected renews it in time. `null` where none is.
    pub connected_until: Option<DateTime<Utc>>,
    /// How many pipes they read.
    pub pipes: u64,
}

/// Who has read a message whose sender wanted to hear of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReadReceipts {
    /// The message's id.
    pub id: MessageId,
    /// Its place in the pipe.
    pub sequence: u64,
    /// Those whose place is behind it, by username.
    pub receipts: Vec<ReadReceipt>,
}

/// Somebody who has read a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReadReceipt {
    /// The reader.
    pub user_id: UserId,
    /// Their username.
    pub username: String,
    /// A moment by which they had read it; `null` where they read through NATS and it is known only that they did.
    pub read_by: Option<DateTime<Utc>>,
}
