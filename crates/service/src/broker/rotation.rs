//! Another signing key for the operator, without losing a message: made and kept first, signed with once every server
//! trusts it, and the old one ends once nothing is signed by it any more. Each step is a row's, so that whoever is killed in
//! between leaves a state that the next call goes on from.
//!
//! A server learns whom it trusts at its start alone: somebody starts it anew between the first two steps. For a private
//! server that is the control plane, by [`Broker::operators`].

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde_json::json;
use tidegate_broker::{OperatorKey, Servers};
use tidegate_model::OrgId;
use tidegate_persistence::{Operator, audit, nats_account};
use tokio::sync::watch;

use super::{Broker, accounts::push, operator};
use crate::{Core, Error, Result};

/// Accounts that are listed in one go, and pushed at one time.
const PAGE: i64 = 500;
const AT_ONE_TIME: usize = 8;

/// How a rotation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// A key was made.
    Anew,
    /// One was under way.
    UnderWay,
}

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// These servers do not trust the new key yet: they have to be started anew with the operator's current token.
    Waits(Vec<String>),
    /// Nothing is signed by an old key any more, and none is trusted. Servers forget the old one at their next start with
    /// the operator's current token.
    Done {
        /// Accounts that were signed anew by this call.
        accounts: usize,
    },
}

impl Broker {
    /// Makes the key that is to sign next, unless a rotation is under way: then that one is to be gone on with.
    pub async fn begin_rotation(&self, author: &Operator) -> Result<Begun> {
        let core = &self.0;
        // There is an operator first.
        operator::kept(core, None).await?;
        let (key, now) = (OperatorKey::generate(), core.clock.now());
        let sealed = operator::sealed_signing(core, &key)?;
        let public = key.public().to_string();
        let begun = core
            .db
            .in_platform(author, async |tx| {
                let begun = nats_account::announce_key(tx, public.clone(), sealed, now).await?;
                if begun {
                    let detail = json!({"after": {"nextKey": public}});
                    audit::insert_platform(tx, entry("nats.rotate.begin", detail, now)).await?;
                }
                Ok::<_, Error>(begun)
            })
            .await?;
        self.see_operator().await?;
        Ok(if begun { Begun::Anew } else { Begun::UnderWay })
    }

    /// Goes on with a rotation as far as it can be gone on with now; without one under way it signs whatever an earlier key
    /// signed. To be repeated while it waits.
    pub async fn continue_rotation(&self, author: &Operator) -> Result<Rotation> {
        let core = &self.0;
        let kept = row(core).await?;
        if let Some((next, _)) = &kept.next {
            let next_key = tidegate_broker::OperatorPublic::parse(next)?;
            let live = core.broker.live()?;
            let Servers { answered, known } = live.system().await?.servers().await?;
            let Some(known) = known else {
                let servers = answered.len();
                let unsettled = format!(
                    "{servers} servers answered, which have not found the others of their cluster yet: start all of them"
                );
                return Err(Error::BrokerUnavailable(unsettled.into()));
            };
            // One that comes back trusting the old key alone would refuse every account.
            let wanted = known.max(live.copies());
            if answered.len() < wanted {
                let away = format!("{} of {wanted} servers answered: start the others", answered.len());
                return Err(Error::BrokerUnavailable(away.into()));
            }
            let behind: Vec<String> = answered
                .into_iter()
                .filter(|server| !server.trusts(&next_key))
                .map(|server| server.name)
                .collect();
            if !behind.is_empty() {
                return Ok(Rotation::Waits(behind));
            }
            self.switch(author, next).await?;
        }
        let accounts = self.sign_all_anew().await?;
        self.end_old_keys(author).await?;
        self.see_operator().await?;
        Ok(Rotation::Done { accounts })
    }

    async fn switch(&self, author: &Operator, next: &str) -> Result<()> {
        let (core, now) = (&self.0, self.0.clock.now());
        let next = next.to_owned();
        core.db
            .in_platform(author, async |tx| {
                // False where another one did it meanwhile.
                if nats_account::switch_key(tx, next.clone(), now).await? {
                    let detail = json!({"after": {"signingKey": next}});
                    audit::insert_platform(tx, entry("nats.rotate.switch", detail, now)).await?;
                }
                Ok::<_, Error>(())
            })
            .await?;
        self.see_operator().await
    }

    pub(super) async fn sign_all_anew(&self) -> Result<usize> {
        let (core, system) = (&self.0, Operator::system());
        let signing = row(core).await?.signing_key;
        let (mut all, mut after): (usize, Option<OrgId>) = (0, None);
        loop {
            let page = core
                .db
                .in_platform(&system, async |tx| nats_account::unsettled(tx, &signing, after, PAGE).await)
                .await?;
            let pushed: Vec<Result<()>> = stream::iter(page.iter().copied())
                .map(|org| push(core, org))
                .buffer_unordered(AT_ONE_TIME)
                .collect()
                .await;
            for pushed in pushed {
                pushed?;
                all += 1;
            }
            after = page.last().copied();
            if i64::try_from(page.len()).is_ok_and(|found| found < PAGE) {
                return Ok(all);
            }
        }
    }

    async fn end_old_keys(&self, author: &Operator) -> Result<()> {
        let (core, now) = (&self.0, self.0.clock.now());
        let retired = row(core).await?.retired_keys;
        let ended = core
            .db
            .in_platform(author, async |tx| {
                let ended = nats_account::drop_retired_keys(tx, now).await?;
                if ended && !retired.is_empty() {
                    let detail = json!({"before": {"trustedKeys": retired}});
                    audit::insert_platform(tx, entry("nats.rotate.end", detail, now)).await?;
                }
                Ok::<_, Error>(ended)
            })
            .await?;
        if ended {
            Ok(())
        } else {
            Err(Error::NotReady("an account that others change at this moment".into()))
        }
    }

    /// Looks at the operator's row, which another process may have changed.
    pub async fn see_operator(&self) -> Result<()> {
        let Ok(live) = self.0.broker.live() else { return Ok(()) };
        live.see(operator::kept(&self.0, None).await?);
        Ok(())
    }

    /// Follows the operator: whoever runs a server starts it anew with [`Broker::trust`] when other keys are trusted.
    pub fn operators(&self) -> Result<watch::Receiver<Arc<super::Operator>>> {
        Ok(self.0.broker.live()?.authorities())
    }
}

pub(super) async fn row(core: &Core) -> Result<nats_account::NatsOperator> {
    let system = Operator::system();
    let found = core.db.in_platform(&system, async |tx| nats_account::operator(tx).await).await?;
    found.ok_or_else(|| Error::not_found("the operator of NATS"))
}

fn entry(action: &'static str, detail: serde_json::Value, at: chrono::DateTime<chrono::Utc>) -> audit::Entry {
    audit::Entry { action, resource: "nats:operator".to_owned(), address: None, detail, at }
}
