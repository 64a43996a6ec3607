//! Login sessions: what tokens hang on.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bytea, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{CredentialId, LoginSession, LoginSessionId, OrgId};

use crate::{Error, Result, UserTx, credential, statement::statement};

/// Makes the login session of a scope that a verified password made.
pub async fn insert(
    tx: &mut UserTx,
    id: LoginSessionId,
    refresh_hash: Vec<u8>,
    address: Option<String>,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    statement::<()>(
        "INSERT INTO login_sessions (id, user_id, refresh_hash, address, created_at, refreshed_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(tx.user_id)
    .bind::<Bytea, _>(refresh_hash)
    .bind::<Nullable<Text>, _>(address)
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
    address: Option<String>,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<()> {
    statement::<()>(
        "INSERT INTO login_sessions (id, user_id, browser_hash, address, created_at, refreshed_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(tx.user_id)
    .bind::<Bytea, _>(browser_hash)
    .bind::<Nullable<Text>, _>(address)
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
    // Before the row, as whoever ends a login does: a racer that loses has the row locked all the same.
    credential::end_own(tx).await?;
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

/// Ends a login of the user's; false where none stood: ending it again changes nothing.
pub async fn revoke(tx: &mut UserTx, id: LoginSessionId, now: DateTime<Utc>) -> Result<bool> {
    credential::end_own(tx).await?;
    let user = tx.user_id;
    let revoked = statement::<()>(
        "UPDATE login_sessions SET revoked_at = ? WHERE id = ? AND user_id = ? AND revoked_at IS NULL AND expires_at > ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(user)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(revoked == 1)
}

/// Ends the user's logins but that of the transaction's credential, if it is one. Returns how many stood.
pub async fn revoke_others(tx: &mut UserTx, now: DateTime<Utc>) -> Result<usize> {
    credential::end_own(tx).await?;
    let (user, current) = (tx.user_id, tx.author.credential.and_then(CredentialId::login));
    let revoke = statement::<()>(
        "UPDATE login_sessions SET revoked_at = ? WHERE user_id = ? AND id IS DISTINCT FROM ? AND revoked_at IS NULL",
    );
    let revoke = revoke.bind::<Timestamptz, _>(now).bind::<Uuid, _>(user).bind::<Nullable<Uuid>, _>(current);
    Ok(revoke.execute(tx.conn()?).await?)
}

/// The user's logins that stand, the newest first, from the one before `before` on, with how many there are on all
/// pages.
pub async fn list(
    tx: &mut UserTx,
    before: Option<(DateTime<Utc>, LoginSessionId)>,
    limit: i64,
    now: DateTime<Utc>,
) -> Result<(Vec<LoginSession>, i64)> {
    type Row = (LoginSessionId, Option<String>, DateTime<Utc>, DateTime<Utc>, DateTime<Utc>);
    let (user, own) = (tx.user_id, tx.author.credential);
    let (at, id) = before.unzip();
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<(Uuid, Nullable<Text>, Timestamptz, Timestamptz, Timestamptz)>(
        "SELECT id, address, created_at, refreshed_at, expires_at FROM login_sessions
         WHERE user_id = ? AND revoked_at IS NULL AND expires_at > ?
           AND (created_at, id) < (COALESCE(?, 'infinity'), COALESCE(?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
         ORDER BY created_at DESC, id DESC LIMIT ?",
    )
    .bind::<Uuid, _>(user)
    .bind::<Timestamptz, _>(now)
    .bind::<Nullable<Timestamptz>, _>(at)
    .bind::<Nullable<Uuid>, _>(id)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM login_sessions WHERE user_id = ? AND revoked_at IS NULL AND expires_at > ? LIMIT 10001) l",
    )
    .bind::<Uuid, _>(user)
    .bind::<Timestamptz, _>(now)
    .load(conn)
    .await?;
    let shown = |(id, address, created_at, refreshed_at, expires_at)| {
        let current = own == Some(CredentialId::Login(id));
        LoginSession { id, current, address, created_at, refreshed_at, expires_at }
    };
    Ok((rows.into_iter().map(shown).collect(), total.into_iter().next().unwrap_or(0)))
}

/// Chooses an active organization of the user's, by id or name, for all later requests of a login that name none. Gives
/// the one chosen before, too.
pub async fn choose(tx: &mut UserTx, id: LoginSessionId, wanted: &str) -> Result<(Option<OrgId>, OrgId)> {
    let user = tx.user_id;
    let rows: Vec<(Option<OrgId>, OrgId)> = statement::<(Nullable<Uuid>, Uuid)>(
        "UPDATE login_sessions l SET org_id = o.id
         FROM organizations o JOIN memberships m ON m.org_id = o.id JOIN login_sessions b ON b.user_id = m.user_id
         WHERE l.id = ? AND b.id = l.id AND l.user_id = m.user_id AND m.user_id = ? AND o.status = 'active'
           AND (o.id::text = lower(?) OR o.name = ?) RETURNING b.org_id, o.id",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(wanted.to_owned())
    .bind::<Text, _>(wanted.to_owned())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}
