//! The audit log: pages of it, and all of it as a stream of bytes.

use bytes::Bytes;
use reqwest::{Response, header::HeaderName};
use serde::{Deserialize, Serialize};
use tidegate_model::AuditEntry;

use crate::{Client, Error, call::Call};

/// The header with the number of lines of an export.
const TOTAL: HeaderName = HeaderName::from_static("tidegate-total");

/// Which lines are asked for; every condition that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// A username in any case, or `user:<id>`, `agent:<id>`, `console`, `system`.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// To what.
    pub resource: Option<String>,
    /// RFC 3339; from this moment on.
    pub since: Option<String>,
    /// RFC 3339; before this moment.
    pub until: Option<String>,
}

/// Whose log is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AuditOf {
    /// That of the chosen organization.
    #[default]
    Chosen,
    /// The platform's own and every organization's, for operators.
    Everybody,
    /// That of the organization of this id or name, for operators.
    Organization(String),
}

/// One page of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    /// The newest first.
    pub entries: Vec<AuditEntry>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// An export under way. Made by [`Client::export_audit`].
#[derive(Debug)]
pub struct AuditExport {
    client: Client,
    body: Response,
    total: Option<u64>,
}

impl Client {
    /// `GET audit` or `GET admin/audit`, one page: at most `limit`, from `cursor` on.
    pub async fn audit(
        &self,
        of: &AuditOf,
        query: &AuditQuery,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<AuditPage, Error> {
        let call = narrowed(&[], of, query).query("limit", limit.to_string());
        self.fetch(call.query_if("cursor", cursor)).await
    }

    /// `GET audit/export` or `GET admin/audit/export`: every line that fits, as `jsonl` or `csv`.
    pub async fn export_audit(
        &self,
        of: &AuditOf,
        query: &AuditQuery,
        format: &str,
    ) -> Result<AuditExport, Error> {
        let call = narrowed(&["export"], of, query).query("format", format.to_owned());
        let body = self.send(&call.streaming()).await?;
        let total = body.headers().get(TOTAL).and_then(|value| value.to_str().ok());
        let total = total.and_then(|text| text.parse().ok());
        Ok(AuditExport { client: self.clone(), body, total })
    }
}

impl AuditExport {
    /// How many lines there are, unless they are more than the server counts.
    pub const fn total(&self) -> Option<u64> {
        self.total
    }

    /// The next bytes; `None` once all have come. An export that broke off is an error, never an early end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.body.chunk().await.map_err(|error| self.client.transport(error))
    }
}

fn narrowed(end: &[&str], of: &AuditOf, query: &AuditQuery) -> Call {
    let begin: &[&str] = match of {
        AuditOf::Chosen => &["audit"],
        AuditOf::Everybody | AuditOf::Organization(_) => &["admin", "audit"],
    };
    let org = match of {
        AuditOf::Organization(org) => Some(org),
        AuditOf::Chosen | AuditOf::Everybody => None,
    };
    Call::get(&[begin, end].concat())
        .query_if("org", org)
        .query_if("actor", query.actor.as_ref())
        .query_if("action", query.action.as_ref())
        .query_if("resource", query.resource.as_ref())
        .query_if("since", query.since.as_ref())
        .query_if("until", query.until.as_ref())
}
