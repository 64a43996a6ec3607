//! Who may look into a session beside its owner, what keeps it alive, and what ends it by itself.

use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tidegate_model::{
    EffectivePolicy, GroupId, Handle, OrganizationSessionPolicy, RecordTerminalRequest, Session,
    SessionActivity, SessionId, SessionShare, ShareId, StreamMode, TimeLimit, UserId,
};

use crate::{Client, Error, call::Call};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Whom a session is shared with.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ShareWith {
    /// A member of the organization, by name in any case.
    Username(String),
    /// A member of the organization.
    UserId(UserId),
    /// A group and those below it, by name.
    Group(String),
    /// A group and those below it.
    GroupId(GroupId),
}

/// A share to make.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewShare {
    /// With whom.
    #[serde(flatten)]
    pub with: ShareWith,
    /// Watch, or watch and type.
    pub mode: StreamMode,
    /// For how long; `None` lasts as long as the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<TimeLimit>,
}

/// The shares of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareList {
    /// Those that have not expired, the oldest first.
    pub shares: Vec<SessionShare>,
    /// How many there are.
    #[serde(default)]
    pub total: u64,
}

/// Why a session stayed alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityList {
    /// The last reasons, the newest first.
    pub activity: Vec<SessionActivity>,
    /// How many there are.
    #[serde(default)]
    pub total: u64,
}

/// What an organization says of one limit from now on: `None` stays, `Some(None)` says nothing any more.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct LimitChange {
    /// What requests get that say nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Option<TimeLimit>>,
    /// What no request gets more than.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Option<TimeLimit>>,
}

/// What an organization says of both limits from now on.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicyChange {
    /// Hibernation of idle sessions.
    pub idle_timeout: LimitChange,
    /// The end of sessions.
    pub max_session_duration: LimitChange,
}

impl Client {
    /// `POST sessions/{id}/shares`: a repeat gives the mode and the time.
    pub async fn share_session(&self, id: SessionId, new: &NewShare) -> Result<SessionShare, Error> {
        let key = uuid::Uuid::new_v4().to_string();
        let key = HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("0"));
        let call = Call::post(&["sessions", &id.to_string(), "shares"]).json(new)?;
        self.fetch(call.header(IDEMPOTENCY_KEY, key).repeatable()).await
    }

    /// `GET sessions/{id}/shares`.
    pub async fn session_shares(&self, id: SessionId) -> Result<ShareList, Error> {
        self.fetch(Call::get(&["sessions", &id.to_string(), "shares"])).await
    }

    /// `DELETE sessions/{id}/shares/{shareId}`: whoever watches by it is cut off.
    pub async fn revoke_share(&self, id: SessionId, share: ShareId) -> Result<(), Error> {
        let path = ["sessions", &id.to_string(), "shares", &share.to_string()];
        self.send(&Call::new(Method::DELETE, &path)).await.map(drop)
    }

    /// `POST sessions/{id}/disconnect`: ends what the caller has open of a session, or the member of this name, on every
    /// replica. The session goes on.
    pub async fn disconnect_session(&self, id: SessionId, username: Option<&str>) -> Result<(), Error> {
        let call = Call::post(&["sessions", &id.to_string(), "disconnect"]);
        let body =
            username.map_or_else(|| serde_json::json!({}), |name| serde_json::json!({"username": name}));
        self.send(&call.json(&body)?.repeatable()).await.map(drop)
    }

    /// `PUT sessions/{id}/terminal-source`: has its terminal recorded at a source of the caller's, which is made where the
    /// handle is free.
    pub async fn record_session(&self, id: SessionId, handle: &Handle) -> Result<Session, Error> {
        let call = Call::new(Method::PUT, &["sessions", &id.to_string(), "terminal-source"]);
        self.fetch(call.json(&RecordTerminalRequest { handle: handle.clone() })?).await
    }

    /// `DELETE sessions/{id}/terminal-source`: ends that; what is recorded stays.
    pub async fn unrecord_session(&self, id: SessionId) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, &["sessions", &id.to_string(), "terminal-source"]);
        self.send(&call).await.map(drop)
    }

    /// `GET sessions/{id}/activity`.
    pub async fn session_activity(&self, id: SessionId) -> Result<ActivityList, Error> {
        self.fetch(Call::get(&["sessions", &id.to_string(), "activity"])).await
    }

    /// `POST sessions/{id}/heartbeat`: the session is in use.
    pub async fn session_heartbeat(&self, id: SessionId) -> Result<Session, Error> {
        self.fetch(Call::post(&["sessions", &id.to_string(), "heartbeat"]).repeatable()).await
    }

    /// `GET sessions/{id}/policy`.
    pub async fn session_policy(&self, id: SessionId) -> Result<EffectivePolicy, Error> {
        self.fetch(Call::get(&["sessions", &id.to_string(), "policy"])).await
    }

    /// `POST sessions/{id}/extend`: puts its end off. An answer that was lost is not asked for again, which would put it
    /// off twice.
    pub async fn extend_session(&self, id: SessionId, by: TimeLimit) -> Result<Session, Error> {
        let body = serde_json::json!({"by": by});
        self.fetch(Call::post(&["sessions", &id.to_string(), "extend"]).json(&body)?).await
    }

    /// `GET organizations/{id}/session-policy`.
    pub async fn organization_session_policy(
        &self,
        organization: &str,
    ) -> Result<OrganizationSessionPolicy, Error> {
        self.fetch(Call::get(&["organizations", organization, "session-policy"])).await
    }

    /// `PUT organizations/{id}/session-policy`.
    pub async fn set_organization_session_policy(
        &self,
        organization: &str,
        change: &SessionPolicyChange,
    ) -> Result<OrganizationSessionPolicy, Error> {
        let call = Call::new(Method::PUT, &["organizations", organization, "session-policy"]);
        self.fetch(call.json(change)?).await
    }
}
