//! Sign-ins under way: a browser that went to a provider and may come back, once.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bytea, Text, Timestamptz};
use diesel_async::RunQueryDsl;

use crate::{Error, PlatformTx, Result, statement::statement};

/// An attempt to insert.
#[derive(Debug, Clone)]
pub struct NewAttempt {
    /// Digest of the state that the provider hands back.
    pub state_hash: Vec<u8>,
    /// Digest of the browser's cookie.
    pub browser_hash: Vec<u8>,
    /// Digest of the nonce that the provider's token repeats.
    pub nonce_hash: Vec<u8>,
    /// Where the browser was sent.
    pub provider: String,
    /// Where it goes afterwards.
    pub next: String,
    /// The present.
    pub now: DateTime<Utc>,
    /// Until when it may come back.
    pub expires_at: DateTime<Utc>,
}

/// Remembers that a browser is on its way.
pub async fn insert(tx: &mut PlatformTx, new: NewAttempt) -> Result<()> {
    statement::<()>(
        "INSERT INTO identity_attempts (state_hash, browser_hash, nonce_hash, provider, next, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Bytea, _>(new.state_hash)
    .bind::<Bytea, _>(new.browser_hash)
    .bind::<Bytea, _>(new.nonce_hash)
    .bind::<Text, _>(new.provider)
    .bind::<Text, _>(new.next)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Timestamptz, _>(new.expires_at)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Takes the attempt of this state away and returns the nonce's digest and where to go: exactly one racer gets it, and
/// only with the cookie of the browser that began it, back from where that browser was sent.
pub async fn take(
    tx: &mut PlatformTx,
    state_hash: Vec<u8>,
    browser_hash: Vec<u8>,
    provider: &str,
    now: DateTime<Utc>,
) -> Result<(Vec<u8>, String)> {
    let rows: Vec<(Vec<u8>, String)> = statement::<(Bytea, Text)>(
        "DELETE FROM identity_attempts WHERE state_hash = ? AND browser_hash = ? AND provider = ? AND expires_at > ?
         RETURNING nonce_hash, next",
    )
    .bind::<Bytea, _>(state_hash)
    .bind::<Bytea, _>(browser_hash)
    .bind::<Text, _>(provider.to_owned())
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}
