//! The audit log: append-only.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use tidegate_model::{AuditId, CredentialId, OrgId};

use crate::{Actor, OrgTx, PlatformTx, Result, UserTx, statement::statement};

/// One line.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was done, for example `agent.approve`.
    pub action: &'static str,
    /// To what, for example `agent:vm-1`.
    pub resource: String,
    /// Where the request came from.
    pub address: Option<String>,
    /// Before and after, secrets left out.
    pub detail: Value,
    /// When.
    pub at: DateTime<Utc>,
}

/// Writes a line of the platform's own log.
pub async fn insert_platform(tx: &mut PlatformTx, entry: Entry) -> Result<()> {
    let who = Who { org: None, actor: tx.actor, credential: tx.credential };
    insert(tx.conn()?, who, entry).await
}

/// Writes a line of an organization's log, about what the platform did to it.
pub async fn insert_platform_about(tx: &mut PlatformTx, org: OrgId, entry: Entry) -> Result<()> {
    let who = Who { org: Some(org), actor: tx.actor, credential: tx.credential };
    insert(tx.conn()?, who, entry).await
}

/// Writes a line of the organization's log.
pub async fn insert_org(tx: &mut OrgTx, entry: Entry) -> Result<()> {
    let context = tx.context;
    let (org, credential) = (Some(context.org_id), Some(context.credential));
    insert(tx.conn()?, Who { org, actor: Actor::User(context.user_id), credential }, entry).await
}

/// Writes a line of what a user did by themselves, in the log of the organization it was about.
pub async fn insert_user(tx: &mut UserTx, org: Option<OrgId>, entry: Entry) -> Result<()> {
    let who = Who { org, actor: Actor::User(tx.user_id), credential: Some(tx.credential) };
    insert(tx.conn()?, who, entry).await
}

/// Whose line, by whom, with what.
struct Who {
    org: Option<OrgId>,
    actor: Actor,
    credential: Option<CredentialId>,
}

async fn insert(conn: &mut AsyncPgConnection, who: Who, entry: Entry) -> Result<()> {
    statement::<()>(
        "INSERT INTO audit_log (id, org_id, actor, credential, action, resource, address, detail, at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(AuditId::new())
    .bind::<Nullable<Uuid>, _>(who.org)
    .bind::<Text, _>(who.actor.to_string())
    .bind::<Nullable<Text>, _>(who.credential)
    .bind::<Text, _>(entry.action)
    .bind::<Text, _>(entry.resource)
    .bind::<Nullable<Text>, _>(entry.address)
    .bind::<Jsonb, _>(entry.detail)
    .bind::<Timestamptz, _>(entry.at)
    .execute(conn)
    .await?;
    Ok(())
}
