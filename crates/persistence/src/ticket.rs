//! Single-use tickets for streams.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bytea, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{CredentialId, SessionId, StreamKind, StreamMode, TicketId};

use crate::{Error, OrgTx, Result, statement::statement};

/// A ticket to insert.
#[derive(Debug, Clone)]
pub struct NewTicket {
    /// The id.
    pub id: TicketId,
    /// Digest of the secret.
    pub hash: Vec<u8>,
    /// The session it is good for.
    pub session_id: SessionId,
    /// The credential that asked for it and whose end is its end.
    pub credential: CredentialId,
    /// What it opens.
    pub kind: StreamKind,
    /// What its bearer may do.
    pub mode: StreamMode,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
}

/// Inserts a ticket of the transaction's user.
pub async fn insert(tx: &mut OrgTx, new: NewTicket) -> Result<()> {
    let (org_id, user_id) = (tx.org_id(), tx.user_id()?);
    statement::<()>(
        "INSERT INTO stream_tickets (id, hash, org_id, session_id, user_id, login_id, credential, kind, mode, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Bytea, _>(new.hash)
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(new.session_id)
    .bind::<Uuid, _>(user_id)
    .bind::<Nullable<Uuid>, _>(new.credential.login())
    .bind::<Text, _>(new.credential)
    .bind::<Text, _>(new.kind)
    .bind::<Text, _>(new.mode)
    .bind::<Timestamptz, _>(new.expires_at)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Uses a ticket up; `NotFound` when it was used, has expired or is for another kind. Exactly one caller wins.
pub async fn consume(
    tx: &mut OrgTx,
    id: TicketId,
    kind: StreamKind,
    now: DateTime<Utc>,
) -> Result<StreamMode> {
    let rows: Vec<(StreamMode,)> = statement::<(Text,)>(
        "UPDATE stream_tickets SET consumed_at = ? WHERE id = ? AND kind = ? AND consumed_at IS NULL AND expires_at > ?
         RETURNING mode",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Text, _>(kind)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(|row| row.0).ok_or(Error::NotFound)
}
