//! Invites, from both sides.

use reqwest::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tidegate_model::{Invite, InviteId, OrgId, OrgRole};

use crate::{Client, Error, call::Call};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Somebody to invite.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewInvite {
    /// In any case.
    pub username: String,
    /// The role of whoever accepts it.
    pub role: OrgRole,
    /// How long it can be accepted, `1m` to `30d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// One page of invites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InviteList {
    /// The newest first.
    pub invites: Vec<Invite>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// What an accepted invite made the caller a member of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// The organization.
    pub org_id: OrgId,
    /// The role in it.
    pub role: OrgRole,
}

impl Client {
    /// `POST organizations/{id}/invites`, with a key of its own: an answer that was lost is asked for again.
    pub async fn create_invite(&self, organization: &str, new: &NewInvite) -> Result<Invite, Error> {
        let key = uuid::Uuid::new_v4().to_string();
        let key = HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("0"));
        let call = Call::post(&["organizations", organization, "invites"]).json(new)?;
        self.fetch(call.header(IDEMPOTENCY_KEY, key).repeatable()).await
    }

    /// `GET organizations/{id}/invites`, one page: at most 100, from `cursor` on.
    pub async fn invites_of(&self, organization: &str, cursor: Option<&str>) -> Result<InviteList, Error> {
        let call = Call::get(&["organizations", organization, "invites"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST organizations/{id}/invites/{inviteId}/revoke`; 409 unless it is pending.
    pub async fn revoke_invite(&self, organization: &str, invite: InviteId) -> Result<Invite, Error> {
        let path = ["organizations", organization, "invites", &invite.to_string(), "revoke"];
        self.fetch(Call::post(&path)).await
    }

    /// `GET invites`: the pending ones for the caller.
    pub async fn my_invites(&self) -> Result<InviteList, Error> {
        self.fetch(Call::get(&["invites"])).await
    }

    /// `POST invites/{id}/accept`; 409 unless it is pending.
    pub async fn accept_invite(&self, invite: InviteId) -> Result<Joined, Error> {
        self.fetch(Call::post(&["invites", &invite.to_string(), "accept"])).await
    }

    /// `POST invites/{id}/decline`; 409 unless it is pending.
    pub async fn decline_invite(&self, invite: InviteId) -> Result<(), Error> {
        self.send(&Call::post(&["invites", &invite.to_string(), "decline"])).await.map(drop)
    }
}
