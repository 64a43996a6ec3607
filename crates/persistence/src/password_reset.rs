//! Passwords that somebody has forgotten: asked for, mailed, and used once. Each is its own line of the outbox, claimed with
//! a lease by whoever sends.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bytea, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{MailStatus, PasswordResetId, UserId};

use crate::{Error, PlatformTx, Result, statement::statement};

/// Asks for a reset. `subject` is sealed: whether there is such a user shows at the sending, and nowhere before.
pub async fn insert(
    tx: &mut PlatformTx,
    id: PasswordResetId,
    subject: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<()> {
    statement::<()>("INSERT INTO password_resets (id, subject, due_at, created_at) VALUES (?, ?, ?, ?)")
        .bind::<Uuid, _>(id)
        .bind::<Bytea, _>(subject)
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(now)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// A reset that was claimed.
#[derive(Debug, Clone)]
pub struct DueReset {
    /// The reset.
    pub id: PasswordResetId,
    /// Which try this is, from 1 on: the fence of whoever claimed it.
    pub attempt: i32,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// What was typed, sealed.
    pub subject: Vec<u8>,
}

/// Claims resets that are due, at most `limit`, until `lease`.
pub async fn claim(
    tx: &mut PlatformTx,
    now: DateTime<Utc>,
    lease: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<DueReset>> {
    let rows: Vec<(PasswordResetId, i32, DateTime<Utc>, Vec<u8>)> = statement::<(Uuid, Integer, Timestamptz, Bytea)>(
        "WITH due AS MATERIALIZED (SELECT r.id FROM password_resets r WHERE r.status = 'pending' AND r.due_at <= ?
           ORDER BY r.due_at LIMIT ? FOR UPDATE SKIP LOCKED)
         UPDATE password_resets r SET attempts = r.attempts + 1, due_at = ? FROM due WHERE r.id = due.id
         RETURNING r.id, r.attempts, r.created_at, r.subject",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(limit)
    .bind::<Timestamptz, _>(lease)
    .load(tx.conn()?)
    .await?;
    let due = |(id, attempt, created_at, subject)| DueReset { id, attempt, created_at, subject };
    Ok(rows.into_iter().map(due).collect())
}

/// Whose password may be reset.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The user.
    pub id: UserId,
    /// What the user is called.
    pub username: String,
    /// Where the mail goes.
    pub email: String,
    /// How the user stands: whatever changes of them, changes this.
    pub state: DateTime<Utc>,
}

/// The user of this name or address, in any case, if a password of theirs may be set by mail: active, with a password here
/// and an address.
pub async fn owner(tx: &mut PlatformTx, subject: &str) -> Result<Option<Owner>> {
    // Not by PostgreSQL, to which `İ` may be an `i`: what is counted as two names would be looked up as one.
    let subject = subject.to_lowercase();
    let rows: Vec<(UserId, String, String, DateTime<Utc>)> = statement::<(Uuid, Text, Text, Timestamptz)>(
        // A name is never an address: it has no @ in it.
        "SELECT id, username, email, updated_at FROM users
         WHERE (lower(username) = ? OR lower(email) = ?) AND active AND deleted_at IS NULL
           AND provider = 'local' AND password_hash IS NOT NULL AND email IS NOT NULL LIMIT 1",
    )
    .bind::<Text, _>(subject.clone())
    .bind::<Text, _>(subject)
    .load(tx.conn()?)
    .await?;
    let owner = |(id, username, email, state)| Owner { id, username, email, state };
    Ok(rows.into_iter().next().map(owner))
}

/// Makes the token of this try the one that counts; false where another try has begun.
pub async fn arm(
    tx: &mut PlatformTx,
    (id, attempt): (PasswordResetId, i32),
    owner: &Owner,
    token_hash: Vec<u8>,
    expires_at: DateTime<Utc>,
) -> Result<bool> {
    let armed = statement::<()>(
        "UPDATE password_resets SET user_id = ?, user_state = ?, token_hash = ?, expires_at = ?
         WHERE id = ? AND attempts = ? AND status = 'pending' AND used_at IS NULL",
    )
    .bind::<Uuid, _>(owner.id)
    .bind::<Timestamptz, _>(owner.state)
    .bind::<Bytea, _>(token_hash)
    .bind::<Timestamptz, _>(expires_at)
    .bind::<Uuid, _>(id)
    .bind::<Integer, _>(attempt)
    .execute(tx.conn()?)
    .await?;
    Ok(armed == 1)
}

/// Ends the sending of a reset that was claimed as this try; false where another try began or ended it. What was typed is
/// forgotten.
pub async fn finish(
    tx: &mut PlatformTx,
    (id, attempt): (PasswordResetId, i32),
    status: MailStatus,
    reason: Option<String>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let ended = statement::<()>(
        "UPDATE password_resets SET status = ?, reason = ?, finished_at = ?, subject = NULL
         WHERE id = ? AND attempts = ? AND status = 'pending'",
    )
    .bind::<Text, _>(status)
    .bind::<Nullable<Text>, _>(reason)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Integer, _>(attempt)
    .execute(tx.conn()?)
    .await?;
    Ok(ended == 1)
}

/// Puts a reset off that was claimed as this try.
pub async fn postpone(
    tx: &mut PlatformTx,
    (id, attempt): (PasswordResetId, i32),
    reason: String,
    due_at: DateTime<Utc>,
) -> Result<()> {
    statement::<()>(
        "UPDATE password_resets SET due_at = ?, reason = ? WHERE id = ? AND attempts = ? AND status = 'pending'",
    )
    .bind::<Timestamptz, _>(due_at)
    .bind::<Text, _>(reason)
    .bind::<Uuid, _>(id)
    .bind::<Integer, _>(attempt)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Whose password the token of this digest may set at this moment. It proves nothing yet: [`consume`] does.
pub async fn find(
    tx: &mut PlatformTx,
    token_hash: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<(PasswordResetId, UserId)> {
    let rows: Vec<(PasswordResetId, UserId)> = statement::<(Uuid, Uuid)>(
        "SELECT r.id, r.user_id FROM password_resets r JOIN users u ON u.id = r.user_id
         WHERE r.token_hash = ? AND r.used_at IS NULL AND r.expires_at > ? AND u.updated_at = r.user_state
           AND u.active AND u.deleted_at IS NULL AND u.provider = 'local'",
    )
    .bind::<Bytea, _>(token_hash)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Uses the token up, under the user's lock, and every other one of the user with it: of racers exactly one hears true.
pub async fn consume(
    tx: &mut PlatformTx,
    token_hash: Vec<u8>,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<bool> {
    let conn = tx.conn()?;
    let taken = statement::<()>(
        "UPDATE password_resets r SET used_at = ? FROM users u
         WHERE r.token_hash = ? AND r.user_id = ? AND r.used_at IS NULL AND r.expires_at > ?
           AND u.id = r.user_id AND u.updated_at = r.user_state AND u.active AND u.deleted_at IS NULL AND u.provider = 'local'",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Bytea, _>(token_hash)
    .bind::<Uuid, _>(user)
    .bind::<Timestamptz, _>(now)
    .execute(conn)
    .await?;
    if taken != 1 {
        return Ok(false);
    }
    statement::<()>(
        "UPDATE password_resets SET used_at = ? WHERE user_id = ? AND token_hash IS NOT NULL AND used_at IS NULL",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(user)
    .execute(conn)
    .await?;
    Ok(true)
}
