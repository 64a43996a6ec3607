//! What browsers were given for tickets: cookies of a session's own origin.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bytea, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{CredentialId, GrantId, SessionId, StreamMode};

use crate::{OrgTx, Result, statement::statement};

/// A grant to insert.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// The id.
    pub id: GrantId,
    /// Digest of the secret.
    pub hash: Vec<u8>,
    /// The session it is good for.
    pub session_id: SessionId,
    /// The credential whose end is its end.
    pub credential: CredentialId,
    /// What its bearer may do.
    pub mode: StreamMode,
    /// The present.
    pub created_at: DateTime<Utc>,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
}

/// Inserts a grant of the transaction's user.
pub async fn insert(tx: &mut OrgTx, new: NewGrant) -> Result<()> {
    let (org_id, user_id) = (tx.context.org_id, tx.context.user_id);
    statement::<()>(
        "INSERT INTO stream_grants (id, hash, org_id, session_id, user_id, credential, mode, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Bytea, _>(new.hash)
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(new.session_id)
    .bind::<Uuid, _>(user_id)
    .bind::<Text, _>(new.credential)
    .bind::<Text, _>(new.mode)
    .bind::<Timestamptz, _>(new.created_at)
    .bind::<Timestamptz, _>(new.expires_at)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}
