//! Rows that would grow for ever, and when they go. Each call deletes a bounded number, the oldest first.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{BigInt, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;

use crate::{PlatformTx, Result, statement::statement};

/// Rows deleted by one statement at most, so that no sweep holds its locks for long.
pub const BATCH: i64 = 5_000;

/// How long what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Finished commands.
    pub commands: TimeDelta,
    /// Lines of sessions' histories, and quarantined sessions that were not seen again.
    pub session_events: TimeDelta,
    /// Lines of the audit log.
    pub audit: TimeDelta,
    /// Ended logins.
    pub logins: TimeDelta,
    /// API keys and bearer tokens that were revoked or have expired.
    pub keys: TimeDelta,
    /// Answers kept for repeats, used or late tickets, and device codes past their time.
    pub answers: TimeDelta,
}

/// The smallest UUIDv7 of a moment: ids are ordered by time, so that no index on a time is needed.
fn first_id_of(moment: DateTime<Utc>) -> uuid::Uuid {
    let millis = u64::try_from(moment.timestamp_millis()).unwrap_or(0);
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    uuid::Uuid::from_bytes(bytes)
}

/// Deletes what is past its time, at most [`BATCH`] rows of each kind; returns how many went.
pub async fn sweep(tx: &mut PlatformTx, keep: Retention, now: DateTime<Utc>) -> Result<usize> {
    const BY_ID: [&str; 3] = [
        "DELETE FROM commands WHERE id IN (SELECT id FROM commands WHERE id < ? AND status IN ('completed', 'failed') ORDER BY id LIMIT ?)",
        "DELETE FROM session_events WHERE id IN (SELECT id FROM session_events WHERE id < ? ORDER BY id LIMIT ?)",
        "DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE id < ? ORDER BY id LIMIT ?)",
    ];
    const BY_TIME: [&str; 5] = [
        "DELETE FROM idempotency_keys WHERE ctid IN (SELECT ctid FROM idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?)",
        "DELETE FROM stream_tickets WHERE id IN (SELECT id FROM stream_tickets WHERE expires_at < ? ORDER BY expires_at LIMIT ?)",
        // Its tickets first: they hang on it, and are gone long before it is.
        "DELETE FROM login_sessions WHERE id IN (SELECT l.id FROM login_sessions l WHERE LEAST(l.expires_at, l.revoked_at) < ?
           AND NOT EXISTS (SELECT 1 FROM stream_tickets t WHERE t.login_id = l.id) LIMIT ?)",
        "DELETE FROM quarantined_sessions WHERE ctid IN (SELECT ctid FROM quarantined_sessions WHERE last_seen < ? LIMIT ?)",
        "DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE LEAST(expires_at, revoked_at) < ?
           ORDER BY LEAST(expires_at, revoked_at) LIMIT ?)",
    ];
    let mut gone = 0;
    for (sql, age) in BY_ID.into_iter().zip([keep.commands, keep.session_events, keep.audit]) {
        let delete = statement::<()>(sql).bind::<Uuid, _>(first_id_of(now - age)).bind::<BigInt, _>(BATCH);
        gone += delete.execute(tx.conn()?).await?;
    }
    let ages = [keep.answers, keep.answers, keep.logins, keep.session_events, keep.keys];
    for (sql, age) in BY_TIME.into_iter().zip(ages) {
        let delete = statement::<()>(sql).bind::<Timestamptz, _>(now - age).bind::<BigInt, _>(BATCH);
        gone += delete.execute(tx.conn()?).await?;
    }
    gone += crate::device_code::sweep(tx, now - keep.answers).await?;
    gone += crate::bearer_token::sweep(tx, now - keep.keys).await?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_made_later_is_past_the_bound() {
        let moment = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
        let later = uuid::Uuid::try_parse("018bcfe5-687b-7000-8000-000000000000").unwrap();
        assert!(first_id_of(moment) < later);
        assert!(first_id_of(moment + TimeDelta::milliseconds(1)) > later);
    }
}
