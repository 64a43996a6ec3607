//! The audit log: append-only.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use tidegate_model::{AuditId, OrgId};

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
    let actor = tx.actor;
    insert(tx.conn()?, None, actor, entry).await
}

/// Writes a line of an organization's log, about what the platform did to it.
pub async fn insert_platform_about(tx: &mut PlatformTx, org: OrgId, entry: Entry) -> Result<()> {
    let actor = tx.actor;
    insert(tx.conn()?, Some(org), actor, entry).await
}

/// Writes a line of the organization's log.
pub async fn insert_org(tx: &mut OrgTx, entry: Entry) -> Result<()> {
    let (org_id, actor) = (tx.context.org_id, Actor::User(tx.context.user_id));
    insert(tx.conn()?, Some(org_id), actor, entry).await
}

/// Writes a line of what a user did by themselves, in the log of the organization it was about.
pub async fn insert_user(tx: &mut UserTx, org: Option<OrgId>, entry: Entry) -> Result<()> {
    let actor = Actor::User(tx.user_id);
    insert(tx.conn()?, org, actor, entry).await
}

async fn insert(conn: &mut AsyncPgConnection, org: Option<OrgId>, actor: Actor, entry: Entry) -> Result<()> {
    statement::<()>(
        "INSERT INTO audit_log (id, org_id, actor, action, resource, address, detail, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(AuditId::new())
    .bind::<Nullable<Uuid>, _>(org)
    .bind::<Text, _>(actor.to_string())
    .bind::<Text, _>(entry.action)
    .bind::<Text, _>(entry.resource)
    .bind::<Nullable<Text>, _>(entry.address)
    .bind::<Jsonb, _>(entry.detail)
    .bind::<Timestamptz, _>(entry.at)
    .execute(conn)
    .await?;
    Ok(())
}
