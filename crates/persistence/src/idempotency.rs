//! Answers kept for repeated requests, written in the transaction of the change.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bytea, Integer, Jsonb, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use tidegate_model::CredentialId;

use crate::{OrgTx, Result, statement::statement};

/// What names a repeat: credential, route and key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Whose request.
    pub credential: CredentialId,
    /// Which route.
    pub route: &'static str,
    /// The header's value, at most 255 characters.
    pub key: String,
}

/// A kept answer.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Digest of the body it answered.
    pub body_hash: Vec<u8>,
    /// HTTP status.
    pub status: i32,
    /// The answer.
    pub body: Value,
}

/// The answer kept under `key` since `since`.
pub async fn find(tx: &mut OrgTx, key: &Key, since: DateTime<Utc>) -> Result<Option<Kept>> {
    let org_id = tx.org_id();
    let rows: Vec<(Vec<u8>, i32, Value)> = statement::<(Bytea, Integer, Jsonb)>(
        "SELECT body_hash, status, body FROM idempotency_keys
         WHERE org_id = ? AND credential = ? AND route = ? AND key = ? AND created_at > ?",
    )
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(key.credential.as_uuid())
    .bind::<Text, _>(key.route)
    .bind::<Text, _>(key.key.clone())
    .bind::<Timestamptz, _>(since)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().map(|(body_hash, status, body)| Kept { body_hash, status, body }))
}

/// Keeps an answer. A racer with the same key waits here for the first one's end, then fails on the constraint.
pub async fn insert(tx: &mut OrgTx, key: &Key, kept: Kept, now: DateTime<Utc>) -> Result<()> {
    let org_id = tx.org_id();
    statement::<()>(
        "INSERT INTO idempotency_keys (org_id, credential, route, key, body_hash, status, body, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(key.credential.as_uuid())
    .bind::<Text, _>(key.route)
    .bind::<Text, _>(key.key.clone())
    .bind::<Bytea, _>(kept.body_hash)
    .bind::<Integer, _>(kept.status)
    .bind::<Jsonb, _>(kept.body)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}
