//! Whoever may not be on NATS any more is cut off: their credential's key is revoked in the account, and NATS closes what is
//! open at once.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use metrics::counter;
use tidegate_model::{CredentialId, OrgId};
use tidegate_persistence::{Operator, nats_account, pipe_operation};

use super::{Broker, accounts::push, operations::attempt_one};
use crate::{Core, Result};

/// Credentials that are revoked in one go.
const BATCH: i32 = 1_000;
/// Credentials that are looked at each time, one after the other: those whose end nothing marked.
const LOOKED_AT: i32 = 1_000;
/// Organizations whose accounts are pushed at one time.
const AT_ONE_TIME: usize = 8;

impl Broker {
    /// Revokes what credentials hold that ended since they were exchanged: revoked, expired, of somebody who left, was
    /// deactivated or may do less now, or of an organization that is not active. Gives how many.
    pub async fn revoke_lapsed(&self) -> Result<usize> {
        let core = &self.0;
        let mut all = 0;
        loop {
            let place = core.broker.looked_at(None);
            let look = core.db.lapsed_principals(core.clock.now(), place, (BATCH, LOOKED_AT));
            let (lapsed, place) = look.await?;
            core.broker.looked_at(place);
            let found = lapsed.len();
            let mut of: BTreeMap<OrgId, Vec<CredentialId>> = BTreeMap::new();
            for (org, credential) in lapsed {
                of.entry(org).or_default().push(credential);
            }
            let revoked: Vec<Result<usize>> = stream::iter(of)
                .map(|(org, credentials)| revoke(core, org, credentials))
                .buffer_unordered(AT_ONE_TIME)
                .collect()
                .await;
            let mut here = 0;
            for revoked in revoked {
                here += revoked?;
            }
            all += here;
            counter!("tidegate_pipe_revocations_total").increment(here as u64);
            if here == 0 || i32::try_from(found).is_ok_and(|found| found < BATCH) {
                return Ok(all);
            }
        }
    }
}

/// The rows say it first, and that NATS is to be told: were this process to end here, another one would tell it.
async fn revoke(core: &Core, org: OrgId, mut credentials: Vec<CredentialId>) -> Result<usize> {
    // In one order, so that two who revoke wait for each other in no circle.
    credentials.sort_unstable();
    let (system, now) = (Operator::system(), core.clock.now());
    let (revoked, operation) = core
        .db
        .in_platform(&system, async |tx| {
            let operation = pipe_operation::insert_push(tx, org, now).await?;
            let mut revoked = 0;
            for credential in credentials {
                revoked += usize::from(nats_account::revoke_principal(tx, org, credential, now).await?);
            }
            Ok::<_, crate::Error>((revoked, operation))
        })
        .await?;
    if !attempt_one(core, operation).await? {
        // Another one waits before it, for whatever reason: this one does not.
        push(core, org).await?;
    }
    Ok(revoked)
}
