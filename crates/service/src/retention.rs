//! How long what is kept, and letting it go: one control plane at a time, a bounded number of rows at a time.

use std::sync::Arc;

use chrono::TimeDelta;
use metrics::counter;
use tidegate_model::FieldErrors;
use tidegate_persistence::{
    Operator,
    retention::{self, KINDS, Kind},
};

use crate::{Core, Error, Operators, Result};

/// Statements for one kind of row in one sweep at most: what is left then waits for the next one.
const ROUNDS: usize = 20;
/// The database itself keeps lines of the audit log this long, whatever is asked of it.
const AUDIT_DAYS: u32 = 7;

/// Days that rows are kept after their end; at least one each.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Lines of the audit log. Default 365, at least 7.
    pub audit_days: u32,
    /// Finished commands. Default 30.
    pub commands_days: u32,
    /// Lines of sessions' histories. Default 30.
    pub session_events_days: u32,
    /// Events of commands and agents; those of sessions are lines of their histories. Default 30.
    pub events_days: u32,
    /// Sessions that ended, with whatever is left of them. Default 90.
    pub sessions_days: u32,
    /// Ended logins. Default 1.
    pub logins_days: u32,
    /// API keys that were revoked or have expired. Default 365.
    pub keys_days: u32,
    /// Bearer tokens of devices that were revoked or have expired. Default 30.
    pub tokens_days: u32,
    /// Device codes, sign-ins that nobody came back from and forgotten passwords, past their time. Default 1.
    pub codes_days: u32,
    /// Invites that were answered, taken back or have expired. Default 90.
    pub invites_days: u32,
    /// Mails that were sent, dropped or given up. Default 30.
    pub mails_days: u32,
    /// Answers kept for repeats with the same `Idempotency-Key`. Default 1.
    pub idempotency_days: u32,
    /// Used or late stream tickets. Default 1.
    pub tickets_days: u32,
    /// Deliveries to plugins that are over. Default 7.
    pub deliveries_days: u32,
    /// What NATS was told, and tokens for it that have expired. Default 7.
    pub pipe_operations_days: u32,
    /// Shares of sessions that have expired. Default 7.
    pub shares_days: u32,
    /// Quarantined sessions that were not seen again. Default 30.
    pub quarantine_days: u32,
    /// Templates and plugins that their repositories no longer have and nobody installed, old versions of plugins, and
    /// repositories that were removed. Default 30.
    pub catalog_days: u32,
    /// Files of repositories that nothing refers to. Default 1.
    pub files_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            audit_days: 365,
            commands_days: 30,
            session_events_days: 30,
            events_days: 30,
            sessions_days: 90,
            logins_days: 1,
            keys_days: 365,
            tokens_days: 30,
            codes_days: 1,
            invites_days: 90,
            mails_days: 30,
            idempotency_days: 1,
            tickets_days: 1,
            deliveries_days: 7,
            pipe_operations_days: 7,
            shares_days: 7,
            quarantine_days: 30,
            catalog_days: 30,
            files_days: 1,
        }
    }
}

impl Retention {
    /// Complains about every setting that is too short.
    pub fn check(&self) -> std::result::Result<(), FieldErrors> {
        let mut errors = FieldErrors::new();
        for (name, days, least) in [
            ("audit_days", self.audit_days, AUDIT_DAYS),
            ("commands_days", self.commands_days, 1),
            ("session_events_days", self.session_events_days, 1),
            ("events_days", self.events_days, 1),
            ("sessions_days", self.sessions_days, 1),
            ("logins_days", self.logins_days, 1),
            ("keys_days", self.keys_days, 1),
            ("tokens_days", self.tokens_days, 1),
            ("codes_days", self.codes_days, 1),
            ("invites_days", self.invites_days, 1),
            ("mails_days", self.mails_days, 1),
            ("idempotency_days", self.idempotency_days, 1),
            ("tickets_days", self.tickets_days, 1),
            ("deliveries_days", self.deliveries_days, 1),
            ("pipe_operations_days", self.pipe_operations_days, 1),
            ("shares_days", self.shares_days, 1),
            ("quarantine_days", self.quarantine_days, 1),
            ("catalog_days", self.catalog_days, 1),
            ("files_days", self.files_days, 1),
        ] {
            if days < least {
                errors.add(format!("retention.{name}"), format!("must be at least {least}"));
            }
        }
        errors.into_result()
    }

    fn spans(&self) -> retention::Retention {
        let days = |days: u32| TimeDelta::days(i64::from(days));
        retention::Retention {
            audit: days(self.audit_days.max(AUDIT_DAYS)),
            commands: days(self.commands_days),
            session_events: days(self.session_events_days),
            events: days(self.events_days),
            sessions: days(self.sessions_days),
            logins: days(self.logins_days),
            keys: days(self.keys_days),
            tokens: days(self.tokens_days),
            codes: days(self.codes_days),
            invites: days(self.invites_days),
            mails: days(self.mails_days),
            idempotency: days(self.idempotency_days),
            tickets: days(self.tickets_days),
            deliveries: days(self.deliveries_days),
            pipe_operations: days(self.pipe_operations_days),
            shares: days(self.shares_days),
            quarantine: days(self.quarantine_days),
            catalog: days(self.catalog_days),
            files: days(self.files_days),
        }
    }
}

impl Operators {
    /// Deletes what is past its retention, in bounded bites; called every few minutes by the platform itself. Gives how
    /// many rows of each table went, which `tidegate_retention_deleted_total` counts, too. What fails keeps nothing else
    /// from going, and is told at the end.
    pub async fn tidy(&self) -> Result<Vec<(&'static str, usize)>> {
        let (mut gone, mut first) = (Vec::new(), None);
        for kind in KINDS {
            let (rows, failed) = sweep(&self.0, kind).await;
            if rows > 0 {
                counter!("tidegate_retention_deleted_total", "table" => kind.table).increment(rows as u64);
                gone.push((kind.table, rows));
            }
            if let Some(error) = failed {
                tracing::warn!(table = kind.table, %error, "rows past their time could not be deleted");
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(gone), Err)
    }
}

/// How many rows of a kind went, and what kept the others.
async fn sweep(core: &Arc<Core>, kind: &'static Kind) -> (usize, Option<Error>) {
    let (keep, now, mut gone) = (core.options.retention.spans(), core.clock.now(), 0);
    let full = usize::try_from(kind.batch).unwrap_or(usize::MAX);
    for _ in 0..ROUNDS {
        let system = Operator::system();
        let swept = core.db.in_platform(&system, async |tx| retention::sweep(tx, kind, &keep, now).await);
        let rows = match swept.await {
            Ok(Some(rows)) => rows,
            Ok(None) => break,
            Err(error) => return (gone, Some(error.into())),
        };
        gone += rows;
        if rows < full {
            break;
        }
    }
    (gone, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_every_setting_that_is_too_short_is_named() {
        assert_eq!(Retention::default().check(), Ok(()));
        let short = Retention { audit_days: 6, tickets_days: 0, ..Retention::default() };
        let complaints = short.check().unwrap_err();
        let named: Vec<&str> = complaints.iter().map(|(name, _)| name).collect();
        assert_eq!(named, ["retention.audit_days", "retention.tickets_days"]);
    }
}
