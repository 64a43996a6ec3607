//! Accounts of organizations that were deleted: NATS forgets them once nothing is left in them.

use serde_json::json;
use tidegate_broker::AccountPublic;
use tidegate_persistence::{Operator, audit, nats_account, pipe_operation, pipe_stream};

use super::accounts::Tenant;
use crate::{Core, Error, Result};

/// Has NATS forget the account of a deleted organization, whose streams are gone there. Where something of it waits still,
/// or is signed anew meanwhile, it is left for the next time.
pub(super) async fn forget(core: &Core, tenant: Tenant<'_>) -> Result<()> {
    let (live, org) = (core.broker.live()?, tenant.org_id());
    let (row, waits) = tenant
        .within(&core.db, async |tx| {
            let row = nats_account::find(tx).await?;
            let waits = !pipe_operation::pending(tx, None, 1).await?.is_empty()
                || !pipe_stream::list(tx, None, 1).await?.is_empty();
            Ok((row, waits))
        })
        .await?;
    if waits || row.pushed_at.is_none() {
        return Ok(());
    }
    let account = AccountPublic::parse(&row.public_key)?;
    live.pool.close(&account).await;
    live.system().await?.forget(std::slice::from_ref(&account)).await?;
    let now = core.clock.now();
    // The row last: whoever is killed before that forgets it once more.
    core.db
        .in_platform(&Operator::system(), async |tx| {
            if nats_account::delete(tx, org, row.account_jwt).await? {
                let entry = audit::Entry {
                    action: "nats.account.forget",
                    resource: format!("organization:{org}"),
                    address: None,
                    detail: json!({"before": {"account": row.public_key}}),
                    at: now,
                };
                audit::insert_platform_about(tx, org, entry).await?;
            }
            Ok::<_, Error>(())
        })
        .await?;
    live.forget(org);
    Ok(())
}
