//! How NATS stands, for operators and for the figures: its servers, the operator's keys, what waits and what differs.

use metrics::gauge;
use tidegate_broker::{AccountPublic, ServerState};
use tidegate_model::OrgId;
use tidegate_persistence::{
    Error as DbError, Operator, PlatformTx, SystemScope, nats_account, pipe_operation,
};

use super::{Broker, operator, rotation::row};
use crate::Result;

/// Organizations that are read in one go.
const PAGE: i32 = 500;

/// The operator's keys and what they signed. Nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorStanding {
    /// The operator's name on NATS.
    pub operator: String,
    /// The key that signs accounts.
    pub signing_key: String,
    /// The key that is to sign next, while a rotation waits for servers.
    pub next_key: Option<String>,
    /// Keys that signed before and are trusted until the rotation is over.
    pub retired_keys: Vec<String>,
    /// The system account.
    pub system_account: String,
    /// Organizations with an account.
    pub accounts: i64,
    /// Accounts that NATS has not taken yet as the signing key signs them.
    pub accounts_waiting: i64,
    /// Changes that NATS has not followed yet.
    pub operations_waiting: i64,
    /// Seconds since the oldest of them was asked for.
    pub oldest_operation_seconds: Option<i64>,
}

impl OperatorStanding {
    /// Every key that accounts may be signed with, the one that signs first; as [`super::Operator::trusted`] has them.
    pub fn trusted(&self) -> Vec<String> {
        std::iter::once(&self.signing_key).chain(&self.retired_keys).chain(&self.next_key).cloned().collect()
    }
}

/// NATS as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsStanding {
    /// The operator.
    pub operator: OperatorStanding,
    /// Every server.
    pub servers: Vec<ServerState>,
    /// Servers that do not trust every key that the operator trusts, by name.
    pub behind: Vec<String>,
    /// Servers that trust keys that the operator trusts no more, by name.
    pub lenient: Vec<String>,
}

impl Broker {
    /// Whether there is an operator: the first start of a control plane makes it.
    pub async fn is_set_up(&self) -> Result<bool> {
        let find = async |tx: &mut PlatformTx| nats_account::operator(tx).await;
        Ok(self.0.db.in_platform(&Operator::system(), find).await?.is_some())
    }

    /// Compares what NATS was told of organizations' accounts with the rows, and changes nothing. Gives how many there are,
    /// and those that differ.
    pub async fn compare_accounts(&self) -> Result<(usize, Vec<OrgId>)> {
        let core = &self.0;
        let nats = core.broker.live()?.system().await?;
        let (mut all, mut differ, mut after) = (0, Vec::new(), None);
        loop {
            let page = core.db.nats_organizations(after, PAGE).await?;
            for scope in &page {
                let found = core.db.in_org_as_system(scope, async |tx| nats_account::find(tx).await).await;
                let row = match found {
                    // Of a deleted organization, and forgotten meanwhile.
                    Err(DbError::NotFound) => continue,
                    found => found?,
                };
                let told = nats.account(&AccountPublic::parse(&row.public_key)?).await?;
                if told.as_deref() != Some(row.account_jwt.as_str()) {
                    differ.push(scope.org_id());
                }
            }
            all += page.len();
            after = page.last().map(SystemScope::org_id);
            if i32::try_from(page.len()).is_ok_and(|found| found < PAGE) {
                return Ok((all, differ));
            }
        }
    }

    /// What the rows say of the operator, which is made where there is none.
    pub async fn operator(&self) -> Result<OperatorStanding> {
        let core = &self.0;
        operator::kept(core, None).await?;
        let (kept, now) = (row(core).await?, core.clock.now());
        let signing = kept.signing_key.clone();
        let ((accounts, accounts_waiting), (operations_waiting, oldest)) = core
            .db
            .in_platform(&Operator::system(), async |tx| {
                let accounts = nats_account::count_accounts(tx, &signing).await?;
                Ok::<_, crate::Error>((accounts, pipe_operation::backlog(tx).await?))
            })
            .await?;
        Ok(OperatorStanding {
            operator: kept.identity_key,
            signing_key: kept.signing_key,
            next_key: kept.next.map(|(key, _)| key),
            retired_keys: kept.retired_keys,
            system_account: kept.system_key,
            accounts,
            accounts_waiting,
            operations_waiting,
            oldest_operation_seconds: oldest.map(|oldest| (now - oldest).num_seconds().max(0)),
        })
    }

    /// What NATS says of itself, beside the rows.
    pub async fn standing(&self) -> Result<NatsStanding> {
        let core = &self.0;
        let operator = self.operator().await?;
        let servers = core.broker.live()?.system().await?.servers().await?.answered;
        let trusted = operator.trusted();
        let named = |which: &dyn Fn(&ServerState) -> bool| {
            servers.iter().filter(|server| which(server)).map(|server| server.name.clone()).collect()
        };
        let behind = named(&|server| !trusted.iter().all(|key| server.trusted.contains(key)));
        let known = |key: &String| *key == operator.operator || trusted.contains(key);
        let lenient = named(&|server| !server.trusted.iter().all(known));
        Ok(NatsStanding { operator, servers, behind, lenient })
    }

    /// Sets the figures of what waits and of the room that is left.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(super) async fn measure(&self) -> Result<()> {
        let live = self.0.broker.live()?;
        if let Some(free) = live.disk.as_ref().and_then(super::disk::Guard::free) {
            gauge!("tidegate_pipe_disk_free_bytes").set(free as f64);
        }
        let (system, now) = (Operator::system(), self.0.clock.now());
        let (waiting, oldest) =
            self.0.db.in_platform(&system, async |tx| pipe_operation::backlog(tx).await).await?;
        gauge!("tidegate_pipe_operations_waiting").set(waiting as f64);
        let age = oldest.map_or(0, |oldest| (now - oldest).num_seconds().max(0));
        gauge!("tidegate_pipe_operations_oldest_seconds").set(age as f64);
        Ok(())
    }
}
