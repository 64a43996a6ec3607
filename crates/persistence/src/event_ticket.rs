//! Single-use tickets for the stream of events.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bytea, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{CredentialId, OrgId, TicketId};

use crate::{Db, Error, OrgTx, Result, statement::statement};

/// A ticket to insert.
#[derive(Debug, Clone)]
pub struct NewTicket {
    /// The id.
    pub id: TicketId,
    /// Digest of the secret.
    pub hash: Vec<u8>,
    /// The credential that asked for it and whose end is its end.
    pub credential: CredentialId,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
}

/// Inserts a ticket of the transaction's user.
pub async fn insert(tx: &mut OrgTx, new: NewTicket) -> Result<()> {
    let (org_id, user_id) = (tx.org_id(), tx.user_id()?);
    statement::<()>(
        "INSERT INTO event_tickets (id, hash, org_id, user_id, credential, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Bytea, _>(new.hash)
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(user_id)
    .bind::<Text, _>(new.credential)
    .bind::<Timestamptz, _>(new.expires_at)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Whose a ticket is; it is consumed in a transaction of that organization.
#[derive(Debug, Clone, Copy)]
pub struct TicketLookup {
    /// The ticket.
    pub id: TicketId,
    /// The organization it is good in.
    pub org_id: OrgId,
    /// The credential that asked for it.
    pub credential: CredentialId,
}

/// The ticket with this digest, used or not.
pub async fn find(db: &Db, hash: Vec<u8>) -> Result<TicketLookup> {
    let mut connection = db.connection().await?;
    let rows: Vec<(TicketId, OrgId, CredentialId)> =
        statement::<(Uuid, Uuid, Text)>("SELECT id, org_id, credential FROM auth_event_ticket(?)")
            .bind::<Bytea, _>(hash)
            .load(&mut connection)
            .await?;
    let (id, org_id, credential) = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok(TicketLookup { id, org_id, credential })
}

/// Uses a ticket up; `NotFound` when it was used or has expired. Exactly one caller wins.
pub async fn consume(tx: &mut OrgTx, id: TicketId, now: DateTime<Utc>) -> Result<()> {
    let changed = statement::<()>(
        "UPDATE event_tickets SET consumed_at = ? WHERE id = ? AND consumed_at IS NULL AND expires_at > ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}
