//! What an organization's account on NATS may promise and open: an operator's word, which NATS follows.

use serde_json::json;
use tidegate_model::FieldErrors;
use tidegate_persistence::{
    Error as DbError, Operator, OrgScope, audit,
    nats_account::{self, AccountLimits},
    pipe_operation,
};

use super::Broker;
use crate::{Error, Result};

/// What an organization may use of NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipeLimits {
    /// Bytes that its pipes may promise to keep, all together.
    pub disk_bytes: i64,
    /// Pipes in use.
    pub streams: i64,
    /// Readers of pipes.
    pub consumers: i64,
    /// Connections to NATS.
    pub connections: i64,
}

/// What of it changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PipeLimitsChange {
    /// Bytes.
    pub disk_bytes: Option<i64>,
    /// Pipes in use.
    pub streams: Option<i64>,
    /// Readers.
    pub consumers: Option<i64>,
    /// Connections.
    pub connections: Option<i64>,
}

impl PipeLimitsChange {
    fn check(self) -> Result<()> {
        let mut errors = FieldErrors::new();
        let count = i64::from(u32::MAX);
        for (field, value, most) in [
            ("diskBytes", self.disk_bytes, i64::MAX),
            ("streams", self.streams, count),
            ("consumers", self.consumers, count),
            ("connections", self.connections, count),
        ] {
            if value.is_some_and(|value| !(1..=most).contains(&value)) {
                errors.add(field, format!("must lie between 1 and {most}"));
            }
        }
        errors.into_result().map_err(Error::Invalid)
    }

    fn over(self, old: AccountLimits) -> AccountLimits {
        AccountLimits {
            disk_bytes: self.disk_bytes.unwrap_or(old.disk_bytes),
            streams: self.streams.unwrap_or(old.streams),
            consumers: self.consumers.unwrap_or(old.consumers),
            connections: self.connections.unwrap_or(old.connections),
        }
    }
}

impl From<AccountLimits> for PipeLimits {
    fn from(limits: AccountLimits) -> Self {
        let AccountLimits { disk_bytes, streams, consumers, connections } = limits;
        Self { disk_bytes, streams, consumers, connections }
    }
}

impl Broker {
    /// Changes what an organization may use of NATS, as far as it is given; what it uses already stays. NATS is told with
    /// the other changes. Without a change it only says what holds.
    pub async fn limits(
        &self,
        author: &Operator,
        scope: &OrgScope,
        change: PipeLimitsChange,
    ) -> Result<PipeLimits> {
        change.check()?;
        let (core, org, now) = (&self.0, scope.org_id(), self.0.clock.now());
        let changed = core
            .db
            .in_platform(author, async |tx| {
                let (account, _) = match nats_account::lock(tx, org).await {
                    Err(DbError::NotFound) => {
                        return Err(Error::not_found(format_args!(
                            "the account of organization {org} on NATS, which is made when its pipes are first used,"
                        )));
                    }
                    found => found?,
                };
                let limits = change.over(account.limits);
                if limits != account.limits {
                    nats_account::set_limits(tx, org, limits, now).await?;
                    pipe_operation::insert_push(tx, org, now).await?;
                    let (before, after) = (PipeLimits::from(account.limits), PipeLimits::from(limits));
                    let entry = audit::Entry {
                        action: "nats.limits",
                        resource: format!("organization:{org}"),
                        address: None,
                        detail: json!({"before": before, "after": after}),
                        at: now,
                    };
                    audit::insert_platform_about(tx, org, entry.clone()).await?;
                    audit::insert_platform(tx, entry).await?;
                }
                Ok(PipeLimits::from(limits))
            })
            .await?;
        core.broker.wake();
        Ok(changed)
    }
}
