//! API keys of an organization.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Bytea, Nullable, SmallInt, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{ApiKey, ApiKeyId, OrgId, Scopes, UserId};

use crate::{Error, OrgTx, PlatformTx, Result, auth::read_scopes, statement::statement};

type Row = (
    ApiKeyId,
    OrgId,
    UserId,
    String,
    String,
    Vec<String>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
);
type Columns = (
    Uuid,
    Uuid,
    Uuid,
    Text,
    Text,
    Array<Text>,
    Timestamptz,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
);

fn api_key(row: Row) -> Result<ApiKey> {
    let (
        id,
        org_id,
        created_by_user_id,
        key_prefix,
        label,
        scopes,
        created_at,
        expires_at,
        last_used_at,
        revoked_at,
    ) = row;
    let scopes = read_scopes(&scopes)?;
    Ok(ApiKey {
        id,
        org_id,
        created_by_user_id,
        key_prefix,
        label,
        scopes,
        created_at,
        expires_at,
        last_used_at,
        revoked_at,
    })
}

/// The digest of a key, and the version of the pepper it was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// HMAC-SHA-256.
    pub bytes: Vec<u8>,
    /// Which pepper.
    pub version: i16,
}

/// A key to insert, of the transaction's user.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The id.
    pub id: ApiKeyId,
    /// PHC string.
    pub key_hash: String,
    /// Digest.
    pub digest: Digest,
    /// The 8 characters after `ppz_`.
    pub key_prefix: String,
    /// What it is for.
    pub label: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Inserts a key and gives it as answers show it.
pub async fn insert(tx: &mut OrgTx, new: NewKey) -> Result<ApiKey> {
    let (org_id, user_id) = (tx.org_id(), tx.user_id()?);
    let words: Vec<String> = new.scopes.iter().map(|scope| scope.to_string()).collect();
    let rows: Vec<Row> = statement::<Columns>(
        "INSERT INTO api_keys (id, org_id, created_by_user_id, key_hash, digest, digest_version, key_prefix, label, scopes, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         RETURNING id, org_id, created_by_user_id, key_prefix, label, scopes, created_at, expires_at, last_used_at, revoked_at",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(user_id)
    .bind::<Text, _>(new.key_hash)
    .bind::<Bytea, _>(new.digest.bytes)
    .bind::<SmallInt, _>(new.digest.version)
    .bind::<Text, _>(new.key_prefix)
    .bind::<Text, _>(new.label)
    .bind::<Array<Text>, _>(words)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Nullable<Timestamptz>, _>(new.expires_at)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound).and_then(api_key)
}

/// A key of the transaction's organization, revoked or not.
pub async fn find(tx: &mut OrgTx, id: ApiKeyId) -> Result<ApiKey> {
    let org_id = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, org_id, created_by_user_id, key_prefix, label, scopes, created_at, expires_at, last_used_at, revoked_at
         FROM api_keys WHERE org_id = ? AND id = ?",
    )
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound).and_then(api_key)
}

/// Where a page begins: after the key with this place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// Whether it is among the revoked ones.
    pub revoked: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Its id.
    pub id: ApiKeyId,
}

/// Keys counted for a list's total; beyond it, the total is not exact.
pub const EXACT_TOTAL: i64 = 10_000;

/// A page of the organization's keys with the number of all of them, counted up to one past [`EXACT_TOTAL`]: those that
/// were not revoked first, each part by age.
pub async fn list(tx: &mut OrgTx, after: Option<After>, limit: i64) -> Result<(Vec<ApiKey>, i64)> {
    let org_id = tx.org_id();
    // No key was made before the first moment there is.
    let after = after.unwrap_or(After {
        revoked: false,
        created_at: DateTime::UNIX_EPOCH,
        id: ApiKeyId::from_uuid(uuid::Uuid::nil()),
    });
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, org_id, created_by_user_id, key_prefix, label, scopes, created_at, expires_at, last_used_at, revoked_at
         FROM api_keys WHERE org_id = ? AND ((revoked_at IS NOT NULL), created_at, id) > (?, ?, ?)
         ORDER BY (revoked_at IS NOT NULL), created_at, id LIMIT ?",
    )
    .bind::<Uuid, _>(org_id)
    .bind::<Bool, _>(after.revoked)
    .bind::<Timestamptz, _>(after.created_at)
    .bind::<Uuid, _>(after.id)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    let total: Vec<(i64,)> = statement::<(BigInt,)>(
        "SELECT count(*) FROM (SELECT 1 FROM api_keys WHERE org_id = ? LIMIT ?) counted",
    )
    .bind::<Uuid, _>(org_id)
    .bind::<BigInt, _>(EXACT_TOTAL + 1)
    .load(tx.conn()?)
    .await?;
    let keys = rows.into_iter().map(api_key).collect::<Result<_>>()?;
    Ok((keys, total.into_iter().next().map_or(0, |row| row.0)))
}

/// Revokes a key; false where it was revoked before: exactly one racer hears true.
pub async fn revoke(tx: &mut OrgTx, id: ApiKeyId, now: DateTime<Utc>) -> Result<bool> {
    let org_id = tx.org_id();
    let revoked = statement::<()>(
        "UPDATE api_keys SET revoked_at = ? WHERE org_id = ? AND id = ? AND revoked_at IS NULL",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(revoked == 1)
}

/// Revokes every key that a member made for the transaction's organization: for whoever removes the member, in the same
/// transaction. Returns how many stood.
pub async fn revoke_of_member(tx: &mut OrgTx, user: UserId, now: DateTime<Utc>) -> Result<usize> {
    let org_id = tx.org_id();
    let revoke = statement::<()>(
        "UPDATE api_keys SET revoked_at = ? WHERE org_id = ? AND created_by_user_id = ? AND revoked_at IS NULL",
    );
    let revoke = revoke.bind::<Timestamptz, _>(now).bind::<Uuid, _>(org_id).bind::<Uuid, _>(user);
    Ok(revoke.execute(tx.conn()?).await?)
}

/// Revokes every key of a user, in all organizations: for whoever deactivates the user, in the same transaction.
/// Returns how many stood.
pub async fn revoke_of_user(tx: &mut PlatformTx, user: UserId, now: DateTime<Utc>) -> Result<usize> {
    let revoke = statement::<()>(
        "UPDATE api_keys SET revoked_at = ? WHERE created_by_user_id = ? AND revoked_at IS NULL",
    );
    let revoke = revoke.bind::<Timestamptz, _>(now).bind::<Uuid, _>(user);
    Ok(revoke.execute(tx.conn()?).await?)
}

/// Writes down the digest of a key whose hash was computed, so that this was the last time.
pub async fn set_digest(tx: &mut OrgTx, id: ApiKeyId, digest: Digest) -> Result<()> {
    let org_id = tx.org_id();
    statement::<()>(
        "UPDATE api_keys SET digest = ?, digest_version = ? WHERE org_id = ? AND id = ? AND digest_version IS DISTINCT FROM ?",
    )
    .bind::<Bytea, _>(digest.bytes)
    .bind::<SmallInt, _>(digest.version)
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(id)
    .bind::<SmallInt, _>(digest.version)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Writes down when keys were last used, where nothing was written in the minute before. Returns how many were.
pub async fn stamp(tx: &mut PlatformTx, uses: Vec<(ApiKeyId, DateTime<Utc>)>) -> Result<usize> {
    let (ids, times): (Vec<_>, Vec<_>) = uses.into_iter().unzip();
    let stamped = statement::<()>(
        "UPDATE api_keys k SET last_used_at = u.at FROM unnest(?, ?) AS u(id, at)
         WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at <= u.at - interval '1 minute')",
    )
    .bind::<Array<Uuid>, Vec<ApiKeyId>>(ids)
    .bind::<Array<Timestamptz>, Vec<DateTime<Utc>>>(times)
    .execute(tx.conn()?)
    .await?;
    Ok(stamped)
}
