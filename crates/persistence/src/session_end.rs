//! A session that ends without its agent's word: beside `session`, whose rows are moved by requests and reports.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::SessionId;

use crate::{OrgTx, Result, statement::statement};

/// Ends a session that is being terminated, and forgets what its next start would have needed. False when it is not
/// being terminated any more.
pub async fn end(tx: &mut OrgTx, id: SessionId, reason: &str, now: DateTime<Utc>) -> Result<bool> {
    let ended: Vec<i64> = statement::<BigInt>(
        "WITH ended AS (
             UPDATE sessions SET state = 'terminated', state_reason = ?, state_since = ?, streaming_ready = false,
                 ended_at = COALESCE(ended_at, ?)
             WHERE id = ? AND hidden_at IS NULL AND state = 'terminating' RETURNING id),
         forgotten AS (DELETE FROM session_specs WHERE session_id IN (SELECT id FROM ended))
         SELECT count(*) FROM ended",
    )
    .bind::<Text, _>(reason.to_owned())
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    Ok(ended == [1])
}
