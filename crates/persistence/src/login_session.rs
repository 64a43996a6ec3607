//! Login sessions: what tokens hang on.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bytea, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{LoginSessionId, OrgId};

use crate::{Error, Result, UserTx, statement::statement};

/// Makes the login session of a scope that a verified password made.
pub async fn insert(
    tx: &mut UserTx,
    id: LoginSessionId,
    refresh_hash: Vec<u8>,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    statement::<()>(
        "INSERT INTO login_sessions (id, user_id, refresh_hash, created_at, refreshed_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(tx.user_id)
    .bind::<Bytea, _>(refresh_hash)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(expires_at)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Makes the login session of a browser, whose cookie has this digest.
pub async fn insert_browser(
    tx: &mut UserTx,
    id: LoginSessionId,
    browser_hash: Vec<u8>,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    statement::<()>(
        "INSERT INTO login_sessions (id, user_id, browser_hash, created_at, refreshed_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(tx.user_id)
    .bind::<Bytea, _>(browser_hash)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(expires_at)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Puts a new refresh token in the place of `old`; false when `old` was not current any more: exactly one racer wins.
pub async fn rotate(
    tx: &mut UserTx,
    id: LoginSessionId,
    old: Vec<u8>,
    new: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let rotated = statement::<()>(
        "UPDATE login_sessions SET previous_refresh_hash = refresh_hash, refresh_hash = ?, refreshed_at = ?
         WHERE id = ? AND refresh_hash = ? AND revoked_at IS NULL AND expires_at > ?",
    )
    .bind::<Bytea, _>(new)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Bytea, _>(old)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(rotated == 1)
}

/// Ends a login; ending it again changes nothing.
pub async fn revoke(tx: &mut UserTx, id: LoginSessionId, now: DateTime<Utc>) -> Result<()> {
    statement::<()>("UPDATE login_sessions SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Chooses an active organization of the user's, by id or name, for all later requests of a login that name none.
pub async fn choose(tx: &mut UserTx, id: LoginSessionId, wanted: &str) -> Result<OrgId> {
    let user = tx.user_id;
    let rows: Vec<OrgId> = statement::<Uuid>(
        "UPDATE login_sessions l SET org_id = o.id FROM organizations o JOIN memberships m ON m.org_id = o.id
         WHERE l.id = ? AND l.user_id = m.user_id AND m.user_id = ? AND o.status = 'active'
           AND (o.id::text = lower(?) OR o.name = ?) RETURNING o.id",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(wanted.to_owned())
    .bind::<Text, _>(wanted.to_owned())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}
