//! Sources of the organization of the request, their pipes, and who may use them.

use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_model::{
    GroupId, Handle, ListedPipe, Pipe, PipeName, Retention, Source, SourceGrant, SourceGrantId, SourceKind,
    SourceRight, UserId,
};

use crate::{Client, Error, call::Call};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One page of sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourcePage {
    /// By handle.
    pub sources: Vec<Source>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// The pipes of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipeList {
    /// Those of the source's kind first, then those that were made, by name.
    pub pipes: Vec<ListedPipe>,
    /// How many there are.
    pub total: u64,
}

/// A pipe to make; what is `None` is the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewPipe {
    /// What it is called.
    pub name: PipeName,
    /// For how many seconds it keeps messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<i64>,
    /// How many messages it keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_msgs: Option<i64>,
    /// How many bytes it keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<i64>,
}

/// What a pipe keeps from now on: what is `None` stays, `Some(None)` is the default again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipeChange {
    /// For how many seconds it keeps messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<Option<i64>>,
    /// How many messages it keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_msgs: Option<Option<i64>>,
    /// How many bytes it keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Option<i64>>,
}

/// A pipe that was made or changed, with what it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadePipe {
    /// The pipe as it was asked for.
    #[serde(flatten)]
    pub pipe: Pipe,
    /// What it is to keep.
    pub retention: Retention,
    /// What the broker keeps; `None` before the pipe's first message or reader.
    pub in_force: Option<Retention>,
}

/// Whom a right to a source is given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantTo {
    /// A member of the organization, by name in any case.
    Username(String),
    /// A member of the organization.
    UserId(UserId),
    /// A group and those below it, by name.
    Group(String),
    /// A group and those below it.
    GroupId(GroupId),
    /// Every member of the organization.
    Everyone,
}

/// Who may do what with a source beside its creator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantList {
    /// The oldest first.
    pub grants: Vec<SourceGrant>,
    /// How many there are.
    pub total: u64,
}

/// A call that makes something, with a key of its own: an answer that was lost is asked for again.
fn making(path: &[&str], body: &impl Serialize) -> Result<Call, Error> {
    let key = uuid::Uuid::new_v4().to_string();
    let key = HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("0"));
    Ok(Call::post(path).json(body)?.header(IDEMPOTENCY_KEY, key).repeatable())
}

impl Client {
    /// `GET sources`, one page: at most 100, from `cursor` on.
    pub async fn sources(&self, cursor: Option<&str>) -> Result<SourcePage, Error> {
        let call = Call::get(&["sources"]).query("limit", "100".to_owned());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `POST sources`.
    pub async fn create_source(&self, handle: &Handle, kind: SourceKind) -> Result<Source, Error> {
        self.fetch(making(&["sources"], &json!({"handle": handle, "kind": kind}))?).await
    }

    /// `GET sources/{handle}`.
    pub async fn source(&self, handle: &Handle) -> Result<Source, Error> {
        self.fetch(Call::get(&["sources", handle.as_str()])).await
    }

    /// `DELETE sources/{handle}`: its pipes, their messages and who may use it go with it.
    pub async fn delete_source(&self, handle: &Handle) -> Result<(), Error> {
        self.send(&Call::new(Method::DELETE, &["sources", handle.as_str()])).await.map(drop)
    }

    /// `GET sources/{handle}/pipes`.
    pub async fn pipes(&self, handle: &Handle) -> Result<PipeList, Error> {
        self.fetch(Call::get(&["sources", handle.as_str(), "pipes"])).await
    }

    /// `POST sources/{handle}/pipes`.
    pub async fn create_pipe(&self, handle: &Handle, new: &NewPipe) -> Result<MadePipe, Error> {
        self.fetch(making(&["sources", handle.as_str(), "pipes"], new)?).await
    }

    /// `PATCH sources/{handle}/pipes/{name}`.
    pub async fn update_pipe(
        &self,
        handle: &Handle,
        name: &str,
        change: &PipeChange,
    ) -> Result<MadePipe, Error> {
        let path = ["sources", handle.as_str(), "pipes", name];
        self.fetch(Call::new(Method::PATCH, &path).json(change)?).await
    }

    /// `DELETE sources/{handle}/pipes/{name}`: its messages go with it.
    pub async fn delete_pipe(&self, handle: &Handle, name: &str) -> Result<(), Error> {
        let path = ["sources", handle.as_str(), "pipes", name];
        self.send(&Call::new(Method::DELETE, &path)).await.map(drop)
    }

    /// `GET sources/{handle}/grants`.
    pub async fn source_grants(&self, handle: &Handle) -> Result<GrantList, Error> {
        self.fetch(Call::get(&["sources", handle.as_str(), "grants"])).await
    }

    /// `POST sources/{handle}/grants`; what was given before is answered as it is.
    pub async fn grant_source(
        &self,
        handle: &Handle,
        to: &GrantTo,
        right: SourceRight,
    ) -> Result<SourceGrant, Error> {
        let body = match to {
            GrantTo::Username(name) => json!({"username": name, "right": right}),
            GrantTo::UserId(id) => json!({"userId": id, "right": right}),
            GrantTo::Group(name) => json!({"group": name, "right": right}),
            GrantTo::GroupId(id) => json!({"groupId": id, "right": right}),
            GrantTo::Everyone => json!({"everyone": true, "right": right}),
        };
        self.fetch(making(&["sources", handle.as_str(), "grants"], &body)?).await
    }

    /// `DELETE sources/{handle}/grants/{grantId}`: whoever read by it alone reads no more.
    pub async fn revoke_source_grant(&self, handle: &Handle, id: SourceGrantId) -> Result<(), Error> {
        let path = ["sources", handle.as_str(), "grants", &id.to_string()];
        self.send(&Call::new(Method::DELETE, &path)).await.map(drop)
    }
}
