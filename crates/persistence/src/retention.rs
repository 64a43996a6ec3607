//! Rows that would grow for ever, and when they go: one entry a kind of row. Each statement deletes a bounded number,
//! the oldest first.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{BigInt, Bool, Integer, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;

use crate::{PlatformTx, Result, statement::statement};

/// How long what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Lines of the audit log.
    pub audit: TimeDelta,
    /// Finished commands.
    pub commands: TimeDelta,
    /// Lines of sessions' histories.
    pub session_events: TimeDelta,
    /// Events of commands and agents.
    pub events: TimeDelta,
    /// Sessions that ended, with whatever is left of them.
    pub sessions: TimeDelta,
    /// Ended logins.
    pub logins: TimeDelta,
    /// API keys that were revoked or have expired.
    pub keys: TimeDelta,
    /// Bearer tokens that were revoked or have expired.
    pub tokens: TimeDelta,
    /// Device codes, sign-ins that nobody came back from and forgotten passwords, past their time.
    pub codes: TimeDelta,
    /// Invites that were answered, taken back or have expired.
    pub invites: TimeDelta,
    /// Mails that were sent, dropped or given up.
    pub mails: TimeDelta,
    /// Answers kept for repeats.
    pub idempotency: TimeDelta,
    /// Used or late stream tickets, and ends of viewings.
    pub tickets: TimeDelta,
    /// Deliveries to plugins that are over.
    pub deliveries: TimeDelta,
    /// What NATS was told, and tokens for it that have expired.
    pub pipe_operations: TimeDelta,
    /// Shares of sessions that have expired.
    pub shares: TimeDelta,
    /// Quarantined sessions that were not seen again.
    pub quarantine: TimeDelta,
    /// What repositories no longer have and nobody installed, old versions of plugins, and removed repositories.
    pub catalog: TimeDelta,
    /// Files of repositories that nothing refers to.
    pub files: TimeDelta,
}

/// A kind of row that goes after its time. To let go of another kind, add an entry to [`KINDS`] and a field above.
#[derive(Debug)]
pub struct Kind {
    /// The table, as figures name it.
    pub table: &'static str,
    /// Rows deleted by one statement at most, so that none holds its locks for long.
    pub batch: i32,
    keep: fn(&Retention) -> TimeDelta,
    bound: Bound,
    /// Takes the bound and the number of rows.
    sql: &'static str,
}

/// What a statement compares with.
#[derive(Debug, Clone, Copy)]
enum Bound {
    /// Ids are ordered by time, so that no index on a time is needed.
    FirstId,
    /// A moment.
    Moment,
    /// A moment, for the one function that may delete: it answers how many went.
    Function,
}

/// Every kind, those that hang on another one before it.
pub const KINDS: &[Kind] = &[
    Kind {
        table: "commands",
        batch: 5_000,
        keep: |keep| keep.commands,
        bound: Bound::FirstId,
        sql: "DELETE FROM commands WHERE id IN (SELECT id FROM commands WHERE id < ? AND status IN ('completed', 'failed') ORDER BY id LIMIT ?)",
    },
    Kind {
        table: "session_events",
        batch: 5_000,
        keep: |keep| keep.session_events,
        bound: Bound::FirstId,
        sql: "DELETE FROM session_events WHERE id IN (SELECT id FROM session_events WHERE id < ? ORDER BY id LIMIT ?)",
    },
    Kind {
        // The oldest of the stream are looked at, and no others: they are those to go.
        table: "events",
        batch: 5_000,
        keep: |keep| keep.events,
        bound: Bound::Moment,
        sql: "WITH past AS (SELECT ?::timestamptz AS bound), oldest AS MATERIALIZED (SELECT xact, seq, at FROM events ORDER BY xact, seq LIMIT ?)
              DELETE FROM events e USING oldest o, past p WHERE e.xact = o.xact AND e.seq = o.seq AND o.at < p.bound",
    },
    Kind {
        table: "event_tickets",
        batch: 5_000,
        keep: |keep| keep.tickets,
        bound: Bound::Moment,
        sql: "DELETE FROM event_tickets WHERE id IN (SELECT id FROM event_tickets WHERE expires_at < ? ORDER BY expires_at LIMIT ?)",
    },
    Kind {
        table: "stream_tickets",
        batch: 5_000,
        keep: |keep| keep.tickets,
        bound: Bound::Moment,
        sql: "DELETE FROM stream_tickets WHERE id IN (SELECT id FROM stream_tickets WHERE expires_at < ? ORDER BY expires_at LIMIT ?)",
    },
    Kind {
        table: "stream_grants",
        batch: 5_000,
        keep: |keep| keep.tickets,
        bound: Bound::Moment,
        sql: "DELETE FROM stream_grants WHERE id IN (SELECT id FROM stream_grants WHERE expires_at < ? ORDER BY expires_at LIMIT ?)",
    },
    Kind {
        // With what is left of it; a session that an agent has a command for is not over.
        table: "sessions",
        batch: 500,
        keep: |keep| keep.sessions,
        bound: Bound::Moment,
        sql: "WITH gone AS MATERIALIZED (SELECT s.id FROM sessions s WHERE s.state IN ('terminated', 'failed') AND s.ended_at < ?
                AND NOT EXISTS (SELECT 1 FROM commands c WHERE c.session_id = s.id AND c.completed_at IS NULL)
                ORDER BY s.ended_at LIMIT ?),
              events AS (DELETE FROM session_events WHERE session_id IN (SELECT id FROM gone)),
              orders AS (DELETE FROM commands WHERE session_id IN (SELECT id FROM gone)),
              specs AS (DELETE FROM session_specs WHERE session_id IN (SELECT id FROM gone)),
              tickets AS (DELETE FROM stream_tickets WHERE session_id IN (SELECT id FROM gone)),
              grants AS (DELETE FROM stream_grants WHERE session_id IN (SELECT id FROM gone))
              DELETE FROM sessions WHERE id IN (SELECT id FROM gone)",
    },
    Kind {
        // After the sessions that came from it.
        table: "installed_applications",
        batch: 500,
        keep: |keep| keep.sessions,
        bound: Bound::Moment,
        sql: "DELETE FROM installed_applications WHERE id IN (SELECT i.id FROM installed_applications i WHERE i.removed_at < ?
                AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.installed_application_id = i.id)
                ORDER BY i.removed_at LIMIT ?)",
    },
    Kind {
        table: "login_sessions",
        batch: 5_000,
        keep: |keep| keep.logins,
        bound: Bound::Moment,
        // Its tickets first: they hang on it, and are gone long before it is.
        sql: "DELETE FROM login_sessions WHERE id IN (SELECT l.id FROM login_sessions l WHERE LEAST(l.expires_at, l.revoked_at) < ?
                AND NOT EXISTS (SELECT 1 FROM stream_tickets t WHERE t.login_id = l.id)
                ORDER BY LEAST(l.expires_at, l.revoked_at) LIMIT ?)",
    },
    Kind {
        table: "api_keys",
        batch: 5_000,
        keep: |keep| keep.keys,
        bound: Bound::Moment,
        sql: "DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE LEAST(expires_at, revoked_at) < ?
                ORDER BY LEAST(expires_at, revoked_at) LIMIT ?)",
    },
    Kind {
        table: "bearer_tokens",
        batch: 5_000,
        keep: |keep| keep.tokens,
        bound: Bound::Moment,
        sql: "DELETE FROM bearer_tokens WHERE id IN (SELECT id FROM bearer_tokens WHERE LEAST(expires_at, revoked_at) < ?
                ORDER BY LEAST(expires_at, revoked_at) LIMIT ?)",
    },
    Kind {
        table: "device_codes",
        batch: 5_000,
        keep: |keep| keep.codes,
        bound: Bound::Moment,
        sql: "DELETE FROM device_codes WHERE id IN (SELECT id FROM device_codes WHERE expires_at < ? ORDER BY expires_at LIMIT ?)",
    },
    Kind {
        table: "identity_attempts",
        batch: 5_000,
        keep: |keep| keep.codes,
        bound: Bound::Moment,
        sql: "DELETE FROM identity_attempts WHERE state_hash IN (SELECT state_hash FROM identity_attempts WHERE expires_at < ? ORDER BY expires_at LIMIT ?)",
    },
    Kind {
        // None is good for longer than two hours after it was asked for.
        table: "password_resets",
        batch: 5_000,
        keep: |keep| keep.codes,
        bound: Bound::Moment,
        sql: "DELETE FROM password_resets WHERE id IN (SELECT id FROM password_resets WHERE created_at < ? ORDER BY created_at LIMIT ?)",
    },
    Kind {
        table: "mails",
        batch: 5_000,
        keep: |keep| keep.mails,
        bound: Bound::Moment,
        sql: "DELETE FROM mails WHERE id IN (SELECT id FROM mails WHERE finished_at < ? ORDER BY finished_at LIMIT ?)",
    },
    Kind {
        table: "plugin_deliveries",
        batch: 5_000,
        keep: |keep| keep.deliveries,
        bound: Bound::Moment,
        sql: "DELETE FROM plugin_deliveries WHERE id IN (SELECT id FROM plugin_deliveries WHERE finished_at < ? ORDER BY finished_at LIMIT ?)",
    },
    Kind {
        table: "invites",
        batch: 5_000,
        keep: |keep| keep.invites,
        bound: Bound::Moment,
        sql: "DELETE FROM invites WHERE id IN (SELECT id FROM invites WHERE LEAST(decided_at, expires_at) < ?
                ORDER BY LEAST(decided_at, expires_at) LIMIT ?)",
    },
    Kind {
        table: "idempotency_keys",
        batch: 5_000,
        keep: |keep| keep.idempotency,
        bound: Bound::Moment,
        sql: "DELETE FROM idempotency_keys WHERE ctid IN (SELECT ctid FROM idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?)",
    },
    Kind {
        table: "user_idempotency_keys",
        batch: 5_000,
        keep: |keep| keep.idempotency,
        bound: Bound::Moment,
        sql: "DELETE FROM user_idempotency_keys WHERE ctid IN (SELECT ctid FROM user_idempotency_keys WHERE created_at < ? ORDER BY created_at LIMIT ?)",
    },
    Kind {
        table: "session_shares",
        batch: 5_000,
        keep: |keep| keep.shares,
        bound: Bound::Moment,
        sql: "DELETE FROM session_shares WHERE id IN (SELECT id FROM session_shares WHERE expires_at < ? ORDER BY expires_at LIMIT ?)",
    },
    Kind {
        table: "pipe_operations",
        batch: 5_000,
        keep: |keep| keep.pipe_operations,
        bound: Bound::Moment,
        sql: "DELETE FROM pipe_operations WHERE id IN (SELECT id FROM pipe_operations WHERE finished_at < ? ORDER BY finished_at LIMIT ?)",
    },
    Kind {
        table: "nats_principals",
        batch: 5_000,
        keep: |keep| keep.pipe_operations,
        bound: Bound::Moment,
        sql: "DELETE FROM nats_principals WHERE ctid IN (SELECT ctid FROM nats_principals WHERE valid_until < ? ORDER BY valid_until LIMIT ?)",
    },
    Kind {
        table: "viewing_ends",
        batch: 5_000,
        keep: |keep| keep.tickets,
        bound: Bound::Moment,
        sql: "DELETE FROM viewing_ends WHERE ctid IN (SELECT ctid FROM viewing_ends WHERE at < ? ORDER BY at LIMIT ?)",
    },
    Kind {
        table: "quarantined_sessions",
        batch: 5_000,
        keep: |keep| keep.quarantine,
        bound: Bound::Moment,
        sql: "DELETE FROM quarantined_sessions WHERE ctid IN (SELECT ctid FROM quarantined_sessions WHERE last_seen < ? LIMIT ?)",
    },
    Kind {
        // With its ratings and counts.
        table: "catalog_templates",
        batch: 1_000,
        keep: |keep| keep.catalog,
        bound: Bound::Moment,
        sql: "DELETE FROM catalog_templates WHERE id IN (SELECT id FROM catalog_templates WHERE withdrawn_at < ?
                AND NOT catalog_template_in_use(id) ORDER BY withdrawn_at LIMIT ?)",
    },
    Kind {
        // With its versions, ratings and counts.
        table: "catalog_plugins",
        batch: 1_000,
        keep: |keep| keep.catalog,
        bound: Bound::Moment,
        sql: "DELETE FROM catalog_plugins WHERE id IN (SELECT id FROM catalog_plugins WHERE withdrawn_at < ?
                AND NOT catalog_plugin_in_use(id) ORDER BY withdrawn_at LIMIT ?)",
    },
    Kind {
        // The newest and the twenty that came last stay, so that there is something to roll back to.
        table: "plugin_versions",
        batch: 1_000,
        keep: |keep| keep.catalog,
        bound: Bound::Moment,
        sql: "DELETE FROM plugin_versions WHERE id IN (SELECT v.id FROM plugin_versions v JOIN catalog_plugins p ON p.id = v.plugin_id
                WHERE v.created_at < ? AND v.version <> p.version AND NOT catalog_version_in_use(v.plugin_id, v.version)
                AND v.id NOT IN (SELECT k.id FROM plugin_versions k WHERE k.plugin_id = v.plugin_id ORDER BY k.created_at DESC, k.id DESC LIMIT 20)
                ORDER BY v.created_at LIMIT ?)",
    },
    Kind {
        // What came from a removed repository goes by being withdrawn first.
        table: "repositories",
        batch: 100,
        keep: |keep| keep.catalog,
        bound: Bound::Moment,
        sql: "DELETE FROM repositories WHERE id IN (SELECT r.id FROM repositories r WHERE r.removed_at < ?
                AND NOT EXISTS (SELECT 1 FROM catalog_templates t WHERE t.repository_id = r.id)
                AND NOT EXISTS (SELECT 1 FROM catalog_plugins p WHERE p.repository_id = r.id) ORDER BY r.removed_at LIMIT ?)",
    },
    Kind {
        // The condition on `put_at` stands twice: whoever put it again while this waited for its lock is about to refer to it.
        table: "catalog_blobs",
        batch: 200,
        keep: |keep| keep.files,
        bound: Bound::Moment,
        sql: "WITH past AS (SELECT ?::timestamptz AS bound), gone AS MATERIALIZED (
                SELECT b.digest FROM catalog_blobs b, past p WHERE b.put_at < p.bound
                AND NOT EXISTS (SELECT 1 FROM catalog_templates t WHERE t.icon = b.digest)
                AND NOT EXISTS (SELECT 1 FROM catalog_plugins p WHERE p.icon = b.digest)
                AND NOT EXISTS (SELECT 1 FROM catalog_plugins p WHERE p.package = b.digest)
                AND NOT EXISTS (SELECT 1 FROM plugin_versions v WHERE v.package = b.digest)
                AND NOT catalog_blob_of_plugins(b.digest) AND NOT catalog_blob_of_applications(b.digest)
                ORDER BY b.put_at LIMIT ?)
              DELETE FROM catalog_blobs b USING gone g, past p WHERE b.digest = g.digest AND b.put_at < p.bound",
    },
    Kind {
        // What an organization that is no more had for itself alone, with what was kept and is still to be told. It hears of
        // the end itself first: what it is told is tried for a day.
        table: "installed_plugins",
        batch: 100,
        keep: |_| TimeDelta::days(1),
        bound: Bound::Moment,
        sql: "DELETE FROM installed_plugins WHERE id IN (SELECT p.id FROM installed_plugins p JOIN organizations o ON o.id = p.org_id
                WHERE o.status = 'deleted' AND o.updated_at < ? ORDER BY p.id LIMIT ?)",
    },
    Kind {
        // What everybody's plugins keep for it goes with it; this is what one that ran at that moment wrote after that.
        table: "plugin_store",
        batch: 5_000,
        keep: |_| TimeDelta::zero(),
        bound: Bound::Moment,
        sql: "DELETE FROM plugin_store WHERE ctid IN (SELECT s.ctid FROM organizations o JOIN plugin_store s ON s.org_id = o.id
                WHERE o.status = 'deleted' AND o.updated_at < ? LIMIT ?)",
    },
    Kind {
        // In turn with whoever changes plugins: nobody refers to one that is about to go.
        table: "plugin_packages",
        batch: 100,
        keep: |keep| keep.files,
        bound: Bound::Moment,
        sql: "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(31646429386697587)), gone AS MATERIALIZED (
                SELECT k.digest FROM turn CROSS JOIN plugin_packages k WHERE k.created_at < ?
                AND NOT EXISTS (SELECT 1 FROM installed_plugins p WHERE p.package = k.digest)
                AND NOT EXISTS (SELECT 1 FROM installed_plugins p WHERE p.previous_package = k.digest) LIMIT ?)
              DELETE FROM plugin_packages k USING gone g WHERE k.digest = g.digest",
    },
    Kind {
        table: "audit_log",
        batch: 5_000,
        keep: |keep| keep.audit,
        bound: Bound::Function,
        sql: "SELECT audit_forget(?, ?)",
    },
];

/// The smallest UUIDv7 of a moment.
fn first_id_of(moment: DateTime<Utc>) -> uuid::Uuid {
    let millis = u64::try_from(moment.timestamp_millis()).unwrap_or(0);
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    uuid::Uuid::from_bytes(bytes)
}

/// Deletes rows of one kind that are past their time, at most one batch, and returns how many went; none while another
/// control plane sweeps.
pub async fn sweep(
    tx: &mut PlatformTx,
    kind: &Kind,
    keep: &Retention,
    now: DateTime<Utc>,
) -> Result<Option<usize>> {
    let conn = tx.conn()?;
    // "retained" in ASCII; it ends with the transaction, whatever becomes of the process.
    let mine: Vec<bool> =
        statement::<Bool>("SELECT pg_try_advisory_xact_lock(8243122675226502500)").load(conn).await?;
    if mine != [true] {
        return Ok(None);
    }
    let (bound, batch) = (now - (kind.keep)(keep), kind.batch);
    let gone = match kind.bound {
        Bound::FirstId => {
            let delete = statement::<()>(kind.sql).bind::<Uuid, _>(first_id_of(bound));
            delete.bind::<Integer, _>(batch).execute(conn).await?
        }
        Bound::Moment => {
            let delete = statement::<()>(kind.sql).bind::<Timestamptz, _>(bound);
            delete.bind::<Integer, _>(batch).execute(conn).await?
        }
        Bound::Function => {
            let call = statement::<BigInt>(kind.sql).bind::<Timestamptz, _>(bound);
            let gone: Vec<i64> = call.bind::<Integer, _>(batch).load(conn).await?;
            gone.into_iter().next().and_then(|gone| usize::try_from(gone).ok()).unwrap_or(0)
        }
    };
    Ok(Some(gone))
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
