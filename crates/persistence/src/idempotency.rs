//! Answers kept for repeated requests, written in the transaction of the change. What is done inside an organization is
//! kept there; what somebody does as themselves or as an operator, with them.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bytea, Integer, Jsonb, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use tidegate_model::{CredentialId, UserId};

use crate::{Actor, Constraint, Error, OrgTx, PlatformTx, Result, UserTx, statement::statement};

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
    let org = tx.org_id();
    select(tx.conn()?, FIND, org.as_uuid(), key, since).await
}

/// The same of what the user of the transaction did.
pub async fn find_own(tx: &mut UserTx, key: &Key, since: DateTime<Utc>) -> Result<Option<Kept>> {
    let user = tx.user_id;
    select(tx.conn()?, FIND_OWN, user.as_uuid(), key, since).await
}

/// The same of what the operator of the transaction did.
pub async fn find_operators(tx: &mut PlatformTx, key: &Key, since: DateTime<Utc>) -> Result<Option<Kept>> {
    let user = operator(tx)?;
    select(tx.conn()?, FIND_OWN, user.as_uuid(), key, since).await
}

/// Keeps an answer, in the place of one that is not younger than `since`. A racer with the same key waits here for the
/// first one's end, and is then told that there is one.
pub async fn insert(
    tx: &mut OrgTx,
    key: &Key,
    kept: Kept,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<()> {
    let org = tx.org_id();
    upsert(tx.conn()?, INSERT, org.as_uuid(), key, kept, (since, now)).await
}

/// The same for what the user of the transaction does.
pub async fn insert_own(
    tx: &mut UserTx,
    key: &Key,
    kept: Kept,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<()> {
    let user = tx.user_id;
    upsert(tx.conn()?, INSERT_OWN, user.as_uuid(), key, kept, (since, now)).await
}

/// The same for what the operator of the transaction does.
pub async fn insert_operators(
    tx: &mut PlatformTx,
    key: &Key,
    kept: Kept,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<()> {
    let user = operator(tx)?;
    upsert(tx.conn()?, INSERT_OWN, user.as_uuid(), key, kept, (since, now)).await
}

/// A console has no credential that a key could be scoped to.
fn operator(tx: &PlatformTx) -> Result<UserId> {
    match tx.author.actor {
        Actor::User(user) => Ok(user),
        Actor::Agent(_) | Actor::Console | Actor::System => Err(Error::NotFound),
    }
}

const FIND: &str = "SELECT body_hash, status, body FROM idempotency_keys
     WHERE org_id = ? AND credential = ? AND route = ? AND key = ? AND created_at > ?";
const FIND_OWN: &str = "SELECT body_hash, status, body FROM user_idempotency_keys
     WHERE user_id = ? AND credential = ? AND route = ? AND key = ? AND created_at > ?";

async fn select(
    conn: &mut AsyncPgConnection,
    sql: &'static str,
    owner: uuid::Uuid,
    key: &Key,
    since: DateTime<Utc>,
) -> Result<Option<Kept>> {
    let rows: Vec<(Vec<u8>, i32, Value)> = statement::<(Bytea, Integer, Jsonb)>(sql)
        .bind::<Uuid, _>(owner)
        .bind::<Uuid, _>(key.credential.as_uuid())
        .bind::<Text, _>(key.route)
        .bind::<Text, _>(key.key.clone())
        .bind::<Timestamptz, _>(since)
        .load(conn)
        .await?;
    Ok(rows.into_iter().next().map(|(body_hash, status, body)| Kept { body_hash, status, body }))
}

const INSERT: &str =
    "INSERT INTO idempotency_keys AS k (org_id, credential, route, key, body_hash, status, body, created_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (org_id, credential, route, key) DO UPDATE
     SET body_hash = EXCLUDED.body_hash, status = EXCLUDED.status, body = EXCLUDED.body, created_at = EXCLUDED.created_at
     WHERE k.created_at <= ?";
const INSERT_OWN: &str =
    "INSERT INTO user_idempotency_keys AS k (user_id, credential, route, key, body_hash, status, body, created_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (user_id, credential, route, key) DO UPDATE
     SET body_hash = EXCLUDED.body_hash, status = EXCLUDED.status, body = EXCLUDED.body, created_at = EXCLUDED.created_at
     WHERE k.created_at <= ?";

async fn upsert(
    conn: &mut AsyncPgConnection,
    sql: &'static str,
    owner: uuid::Uuid,
    key: &Key,
    kept: Kept,
    (since, now): (DateTime<Utc>, DateTime<Utc>),
) -> Result<()> {
    let written = statement::<()>(sql)
        .bind::<Uuid, _>(owner)
        .bind::<Uuid, _>(key.credential.as_uuid())
        .bind::<Text, _>(key.route)
        .bind::<Text, _>(key.key.clone())
        .bind::<Bytea, _>(kept.body_hash)
        .bind::<Integer, _>(kept.status)
        .bind::<Jsonb, _>(kept.body)
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(since)
        .execute(conn)
        .await?;
    // One that is still good stays: a racer's, who was faster.
    if written == 1 { Ok(()) } else { Err(Error::Violation(Constraint::IdempotencyKey)) }
}
