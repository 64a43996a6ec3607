//! Messages of pipes: sending them so that each is stored once, and reading them.

use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::header::HeaderName;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_model::{
    Confirmation, Handle, MessageId, OrgId, Payload, ReadReceipts, Secret, SeenMember, Subscription, UserId,
};

use crate::{Client, Error, IdempotencyKey, call::Call};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageToSend {
    /// What it says.
    pub payload: Payload,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_reply_to: Option<MessageId>,
    /// Whether the sender wants to hear that it was read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ack_requested: bool,
}

/// A message in its pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The message's id.
    pub id: MessageId,
    /// Who sent it, as the broker knows it.
    pub sender: UserId,
    /// What it was sent to.
    pub subject: String,
    /// What it says.
    pub payload: Payload,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The message that it answers.
    #[serde(default)]
    pub in_reply_to: Option<MessageId>,
    /// Whether its sender wants to hear that it was read.
    #[serde(default)]
    pub ack_requested: bool,
    /// Its place in the pipe.
    pub sequence: u64,
    /// When it was stored; `None` in the answer to whoever sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_at: Option<DateTime<Utc>>,
    /// The sender's username, where it was read over HTTP; `None` where they are no member any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<String>,
}

/// Some messages of a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageList {
    /// The oldest first.
    pub messages: Vec<Message>,
    /// The sequence of the last thing that was looked at.
    pub last: Option<u64>,
    /// How many are beyond the caller's place, where it is looked at; with `confirmed`, those of this page too.
    pub unread: Option<u64>,
    /// Things on the way that are no messages, which were passed over.
    pub skipped: u64,
    /// Which stream it is: sequences of another one mean other messages.
    pub incarnation: Option<DateTime<Utc>>,
}

/// One page of pipes that somebody reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionPage {
    /// By handle and pipe.
    pub subscriptions: Vec<Subscription>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// One page of members who use pipes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenMemberPage {
    /// The last one who was seen first.
    pub members: Vec<SeenMember>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// Which messages: those the caller has not read yet from any program, whose place moves before they arrive, where none of
/// `confirmed`, `after` and `since` is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageQuery {
    /// Those behind one's place, which moves to what is confirmed here and no further: [`crate::PlaceReader`] keeps it.
    pub confirmed: Option<Confirmation>,
    /// Those behind this sequence; nothing moves.
    pub after: Option<u64>,
    /// Those stored at this moment or later; nothing moves.
    pub since: Option<DateTime<Utc>>,
    /// At most so many, 1 to 100; 10 where absent.
    pub limit: Option<usize>,
    /// Seconds to wait for one where there is none, at most 20, so that the answer comes before the client gives up.
    pub wait: Option<u64>,
}

/// Where a pipe ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipeEnd {
    /// The sequence of the newest message ever; 0 where there never was one.
    pub last: u64,
    /// Which stream it is: sequences of another one mean other messages.
    pub incarnation: Option<DateTime<Utc>>,
}

/// What a client of NATS wants with a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeOpening {
    /// Write to it.
    Write,
    /// Read it from where one was, or from the oldest message.
    Read,
    /// Read what is stored from now on: one's place is moved behind the rest.
    ReadAnew,
}

/// How a client of NATS uses a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipeRoute {
    /// What it publishes to.
    pub subject: String,
    /// The pipe's stream.
    pub stream: String,
    /// Its reader there; none where it writes.
    pub reader: Option<String>,
    /// The prefix that its inboxes must have.
    pub inbox_prefix: String,
}

/// What opens NATS, and the API beside it, for five minutes.
#[derive(Debug, Clone, Deserialize)]
pub struct NatsAccess {
    /// A bearer token for the API.
    pub jwt: Secret<String>,
    /// Where NATS is.
    pub nats_url: String,
    /// The organization.
    pub account_id: OrgId,
    /// Its name.
    pub account_name: String,
    /// When both tokens end.
    pub expires_at: DateTime<Utc>,
    /// The user's token for NATS.
    pub nats_user_jwt: Secret<String>,
    /// The user's seed, which signs what NATS asks.
    pub nats_user_seed: Secret<String>,
    /// What the names of keyed messages are made with; none from a control plane that knows keys by themselves.
    #[serde(default)]
    pub message_key: Option<Secret<String>>,
    /// The prefix that the client's inboxes must have.
    pub inbox_prefix: String,
    /// How many pipes of others the user may write to that the token has no room for: they are written to over HTTP.
    #[serde(default)]
    pub write_grants_left_out: u64,
}

/// A moment as the platform said it.
fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The longest that an answer is waited for.
const LONGEST: u64 = 20;

impl Client {
    /// `POST sources/{handle}/pipes/{name}/messages`. It is stored when this succeeds. An answer that was lost is asked for
    /// again under the same key, which stores it once within ten minutes, or as long as the pipe keeps messages
    /// where that is less.
    pub async fn send_message(
        &self,
        handle: &Handle,
        pipe: &str,
        message: &MessageToSend,
        key: IdempotencyKey,
    ) -> Result<Message, Error> {
        let call = Call::post(&["sources", handle.as_str(), "pipes", pipe, "messages"]).json(message)?;
        self.fetch(call.header(IDEMPOTENCY_KEY, key.into_header()).repeatable()).await
    }

    /// The same in one attempt, but for connections that were never made: for callers with a patience of their own.
    pub(crate) async fn send_message_once(
        &self,
        handle: &Handle,
        pipe: &str,
        message: &MessageToSend,
        key: IdempotencyKey,
    ) -> Result<Message, Error> {
        let call = Call::post(&["sources", handle.as_str(), "pipes", pipe, "messages"]).json(message)?;
        self.fetch(call.header(IDEMPOTENCY_KEY, key.into_header())).await
    }

    /// `GET sources/{handle}/pipes/{name}/end`: behind it are the messages that are sent from now on, whatever any clock says.
    pub async fn pipe_end(&self, handle: &Handle, pipe: &str) -> Result<PipeEnd, Error> {
        self.fetch(Call::get(&["sources", handle.as_str(), "pipes", pipe, "end"])).await
    }

    /// `GET sources/{handle}/pipes/{name}/messages`.
    ///
    /// Where the caller's place moves by itself, an answer that was lost is not asked for again: its messages were read, and
    /// are found with `after` or `since`.
    pub async fn messages(
        &self,
        handle: &Handle,
        pipe: &str,
        query: &MessageQuery,
    ) -> Result<MessageList, Error> {
        let call = Call::get(&["sources", handle.as_str(), "pipes", pipe, "messages"])
            .query_if("confirmed", query.confirmed.map(|confirmed| confirmed.sequence))
            .query_if("incarnation", query.confirmed.and_then(|confirmed| confirmed.incarnation).map(moment))
            .query_if("after", query.after)
            .query_if("since", query.since.map(|since| since.to_rfc3339()))
            .query_if("limit", query.limit)
            .query_if("wait", query.wait.map(|wait| wait.min(LONGEST)));
        let moves = query.confirmed.is_none() && query.after.is_none() && query.since.is_none();
        self.fetch(if moves { call.once() } else { call }).await
    }

    /// `POST sources/{handle}/pipes/{name}/open`: its stream, and the caller's reader where it is to be read, are there then.
    pub async fn open_pipe(&self, handle: &Handle, pipe: &str, to: PipeOpening) -> Result<PipeRoute, Error> {
        let body = match to {
            PipeOpening::Write => json!({"use": "write"}),
            PipeOpening::Read => json!({"use": "read"}),
            PipeOpening::ReadAnew => json!({"use": "read", "anew": true}),
        };
        let call = Call::post(&["sources", handle.as_str(), "pipes", pipe, "open"]).json(&body)?;
        self.fetch(call.repeatable()).await
    }

    /// `GET sources/{handle}/pipes/{name}/messages/{sequence}/receipts`: who has read a message that was sent with
    /// `ack_requested`.
    pub async fn receipts(&self, handle: &Handle, pipe: &str, sequence: u64) -> Result<ReadReceipts, Error> {
        let sequence = sequence.to_string();
        let path = ["sources", handle.as_str(), "pipes", pipe, "messages", &sequence, "receipts"];
        self.fetch(Call::get(&path)).await
    }

    /// `GET pipes/subscriptions`, one page: at most 100 of the pipes that the caller reads, from `cursor` on.
    pub async fn subscriptions(&self, cursor: Option<&str>) -> Result<SubscriptionPage, Error> {
        let call = Call::get(&["pipes", "subscriptions"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `GET pipes/members`, one page: at most 100 of those who use pipes, from `cursor` on.
    pub async fn seen_members(&self, cursor: Option<&str>) -> Result<SeenMemberPage, Error> {
        let call = Call::get(&["pipes", "members"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST auth/exchange`: a credential for one that opens NATS, in the credential's own organization or in `account`.
    pub async fn exchange(
        &self,
        credential: &Secret<String>,
        account: Option<&str>,
    ) -> Result<NatsAccess, Error> {
        let mut body = serde_json::json!({"api_key": credential.expose()});
        if let Some(account) = account {
            body["account_id"] = account.into();
        }
        self.fetch(Call::post(&["auth", "exchange"]).json(&body)?.without_bearer().repeatable()).await
    }
}
