//! Bearer tokens of devices.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bytea, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tidegate_model::{BearerToken, BearerTokenId, OrgId, UserId};

use crate::{Error, OrgTx, PlatformTx, Result, UserTx, statement::statement};

type Columns = (
    Uuid,
    Uuid,
    Nullable<Uuid>,
    Text,
    Text,
    Timestamptz,
    Timestamptz,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
);
type Row = (
    BearerTokenId,
    UserId,
    Option<OrgId>,
    String,
    String,
    DateTime<Utc>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    Option<DateTime<Utc>>,
);

fn token(row: Row) -> BearerToken {
    let (id, user_id, org_id, prefix, client_name, created_at, expires_at, last_used_at, revoked_at) = row;
    BearerToken { id, user_id, org_id, prefix, client_name, created_at, expires_at, last_used_at, revoked_at }
}

/// A token to insert.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The id.
    pub id: BearerTokenId,
    /// As whom it acts.
    pub user_id: UserId,
    /// The organization of requests that name none.
    pub org_id: OrgId,
    /// Digest of the secret.
    pub hash: Vec<u8>,
    /// The 8 characters after `ppz_oauth_`.
    pub prefix: String,
    /// What the device calls itself.
    pub client_name: String,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Inserts a token (seed B, `IssueBearerToken`).
pub async fn insert(tx: &mut PlatformTx, new: NewToken) -> Result<()> {
    statement::<()>(
        "INSERT INTO bearer_tokens (id, user_id, org_id, token_hash, prefix, client_name, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Uuid, _>(new.user_id)
    .bind::<Uuid, _>(new.org_id)
    .bind::<Bytea, _>(new.hash)
    .bind::<Text, _>(new.prefix)
    .bind::<Text, _>(new.client_name)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Timestamptz, _>(new.expires_at)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// A token of the transaction's user, revoked or not.
pub async fn find(tx: &mut UserTx, id: BearerTokenId) -> Result<BearerToken> {
    let user = tx.user_id;
    one(tx.conn()?, user, id).await
}

async fn one(conn: &mut AsyncPgConnection, user: UserId, id: BearerTokenId) -> Result<BearerToken> {
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, user_id, org_id, prefix, client_name, created_at, expires_at, last_used_at, revoked_at
         FROM bearer_tokens WHERE user_id = ? AND id = ?",
    )
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(id)
    .load(conn)
    .await?;
    rows.into_iter().next().map(token).ok_or(Error::NotFound)
}

/// The user's tokens, the newest first, from the one after `before` on, with how many there are on all pages.
pub async fn list(
    tx: &mut UserTx,
    before: Option<(DateTime<Utc>, BearerTokenId)>,
    limit: i64,
) -> Result<(Vec<BearerToken>, i64)> {
    let user = tx.user_id;
    page(tx.conn()?, user, before, limit).await
}

async fn page(
    conn: &mut AsyncPgConnection,
    user: UserId,
    before: Option<(DateTime<Utc>, BearerTokenId)>,
    limit: i64,
) -> Result<(Vec<BearerToken>, i64)> {
    let (at, id) = before.unzip();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, user_id, org_id, prefix, client_name, created_at, expires_at, last_used_at, revoked_at
         FROM bearer_tokens WHERE user_id = ?
           AND (created_at, id) < (COALESCE(?, 'infinity'), COALESCE(?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
         ORDER BY created_at DESC, id DESC LIMIT ?",
    )
    .bind::<Uuid, _>(user)
    .bind::<Nullable<Timestamptz>, _>(at)
    .bind::<Nullable<Uuid>, _>(id)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM bearer_tokens WHERE user_id = ? LIMIT 10001) t",
    )
    .bind::<Uuid, _>(user)
    .load(conn)
    .await?;
    Ok((rows.into_iter().map(token).collect(), total.into_iter().next().unwrap_or(0)))
}

/// A token of any user, revoked or not.
pub async fn find_of(tx: &mut PlatformTx, user: UserId, id: BearerTokenId) -> Result<BearerToken> {
    one(tx.conn()?, user, id).await
}

/// Any user's tokens, as [`list`].
pub async fn list_of(
    tx: &mut PlatformTx,
    user: UserId,
    before: Option<(DateTime<Utc>, BearerTokenId)>,
    limit: i64,
) -> Result<(Vec<BearerToken>, i64)> {
    page(tx.conn()?, user, before, limit).await
}

/// Revokes a token of any user; false where it was revoked before.
pub async fn revoke_of(
    tx: &mut PlatformTx,
    user: UserId,
    id: BearerTokenId,
    now: DateTime<Utc>,
) -> Result<bool> {
    end(tx.conn()?, user, id, now).await
}

/// Revokes a token of the transaction's user; false where it was revoked before: exactly one racer hears true.
pub async fn revoke(tx: &mut UserTx, id: BearerTokenId, now: DateTime<Utc>) -> Result<bool> {
    let user = tx.user_id;
    end(tx.conn()?, user, id, now).await
}

async fn end(
    conn: &mut AsyncPgConnection,
    user: UserId,
    id: BearerTokenId,
    now: DateTime<Utc>,
) -> Result<bool> {
    let revoked = statement::<()>(
        "UPDATE bearer_tokens SET revoked_at = ? WHERE user_id = ? AND id = ? AND revoked_at IS NULL",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(id)
    .execute(conn)
    .await?;
    Ok(revoked == 1)
}

/// Chooses an active organization of the user's, by id or name, for all later requests of a token that name none. Gives
/// the one chosen before, too.
pub async fn choose(tx: &mut UserTx, id: BearerTokenId, wanted: &str) -> Result<(Option<OrgId>, OrgId)> {
    let user = tx.user_id;
    let rows: Vec<(Option<OrgId>, OrgId)> = statement::<(Nullable<Uuid>, Uuid)>(
        "UPDATE bearer_tokens t SET org_id = o.id
         FROM organizations o JOIN memberships m ON m.org_id = o.id JOIN bearer_tokens b ON b.user_id = m.user_id
         WHERE t.id = ? AND b.id = t.id AND t.user_id = m.user_id AND m.user_id = ? AND t.revoked_at IS NULL
           AND o.status = 'active' AND (o.id::text = lower(?) OR o.name = ?) RETURNING b.org_id, o.id",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(wanted.to_owned())
    .bind::<Text, _>(wanted.to_owned())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Revokes every token of a member that was given for the transaction's organization: for whoever removes the member,
/// in the same transaction. Returns how many stood.
pub async fn revoke_of_member(tx: &mut OrgTx, user: UserId, now: DateTime<Utc>) -> Result<usize> {
    let org_id = tx.org_id();
    let revoke = statement::<()>(
        "UPDATE bearer_tokens SET revoked_at = ? WHERE org_id = ? AND user_id = ? AND revoked_at IS NULL",
    );
    let revoke = revoke.bind::<Timestamptz, _>(now).bind::<Uuid, _>(org_id).bind::<Uuid, _>(user);
    Ok(revoke.execute(tx.conn()?).await?)
}

/// Ends every token of a user, and every device that was let in and has not fetched its token: for whoever resets the
/// user's password or deactivates them, in the same transaction and after the user's row was written. Returns how many
/// tokens stood.
pub async fn end_all_of_user(tx: &mut PlatformTx, user: UserId, now: DateTime<Utc>) -> Result<usize> {
    let conn = tx.conn()?;
    statement::<()>(
        "UPDATE device_codes SET decision = 'denied' WHERE user_id = ? AND decision = 'approved' AND consumed_at IS NULL",
    )
    .bind::<Uuid, _>(user)
    .execute(conn)
    .await?;
    let revoked =
        statement::<()>("UPDATE bearer_tokens SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL")
            .bind::<Timestamptz, _>(now)
            .bind::<Uuid, _>(user)
            .execute(conn)
            .await?;
    Ok(revoked)
}

/// Writes down when tokens were last used, where nothing was written in the minute before. Returns how many were.
pub async fn stamp(tx: &mut PlatformTx, uses: Vec<(BearerTokenId, DateTime<Utc>)>) -> Result<usize> {
    let (ids, times): (Vec<_>, Vec<_>) = uses.into_iter().unzip();
    let stamped = statement::<()>(
        "UPDATE bearer_tokens t SET last_used_at = u.at FROM unnest(?, ?) AS u(id, at)
         WHERE t.id = u.id AND (t.last_used_at IS NULL OR t.last_used_at <= u.at - interval '1 minute')",
    )
    .bind::<Array<Uuid>, Vec<BearerTokenId>>(ids)
    .bind::<Array<Timestamptz>, Vec<DateTime<Utc>>>(times)
    .execute(tx.conn()?)
    .await?;
    Ok(stamped)
}
