//! Accounts of organizations on NATS: made when first needed, signed anew whenever what is said of them changes.
//!
//! A token is signed under the lock of the account's row, from what the rows say then, and pushed after the commit. Pushes
//! may overtake each other on their way: whoever finds that the row has another token by now pushes once more, so that what
//! NATS has in the end is what the row has. What a crash leaves is found by the reconciler.

use serde_json::json;
use tidegate_broker::{
    AccountAuthority, AccountKey, AccountPublic, AccountToken, Limits, OrgAccount, OrgBroker, Revocations,
    Revoked, user_key,
};
use tidegate_model::{CredentialId, OrgId, OrgStatus};
use tidegate_persistence::{
    Db, Error as DbError, Operator, OrgScope, OrgTx, PlatformTx, SystemScope, audit,
    nats_account::{self, AccountLimits, NatsAccount, NewAccount},
};

use super::{exchange::LIFETIME, operator};
use crate::{Core, Error, Result};

/// How often a token is pushed that others sign anew meanwhile.
const ROUNDS: usize = 8;

/// Bytes that an account may keep while nothing is to be stored: none would take its streams away.
const CLOSED: u64 = 1;
/// Connections of ours to the account of a deleted organization, whose streams are being deleted.
const CLEARING: u32 = 16;
/// Credentials that a token revokes one by one; with more, everybody comes back with a new token: what NATS is told has
/// 1 MiB at most, and a revocation about a hundred bytes.
const REVOKED: usize = 5_000;

/// In whose name something is done inside an organization.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tenant<'a> {
    Member(&'a OrgScope),
    System(&'a SystemScope),
}

impl<'a> From<&'a OrgScope> for Tenant<'a> {
    fn from(scope: &'a OrgScope) -> Self {
        Self::Member(scope)
    }
}

impl<'a> From<&'a SystemScope> for Tenant<'a> {
    fn from(scope: &'a SystemScope) -> Self {
        Self::System(scope)
    }
}

impl Tenant<'_> {
    pub(super) fn org_id(self) -> OrgId {
        match self {
            Self::Member(scope) => scope.org_id(),
            Self::System(scope) => scope.org_id(),
        }
    }

    /// Runs `work` in a transaction of the organization.
    pub(super) async fn within<T>(
        self,
        db: &Db,
        work: impl AsyncFnOnce(&mut OrgTx) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Member(scope) => db.in_org(scope, work).await,
            Self::System(scope) => db.in_org_as_system(scope, work).await,
        }
    }
}

/// A connection to the organization's account. An account that NATS does not know, or knows no more, is pushed first.
pub(super) async fn connection(core: &Core, tenant: Tenant<'_>) -> Result<OrgBroker> {
    let live = core.broker.live()?;
    let account = account(core, tenant).await?;
    match live.pool.get(&account).await {
        Ok(broker) => Ok(broker),
        Err(error) => {
            let known = live.system().await?.account(account.authority.public()).await?;
            if known.is_some() {
                return Err(error.into());
            }
            push(core, tenant.org_id()).await?;
            Ok(live.pool.get(&account).await?)
        }
    }
}

/// The organization's account, which is made and pushed where it was not.
pub(super) async fn account(core: &Core, tenant: Tenant<'_>) -> Result<OrgAccount> {
    let (live, org) = (core.broker.live()?, tenant.org_id());
    if let Some(known) = live.known(org) {
        return Ok(known);
    }
    let row = match tenant.within(&core.db, find_in).await? {
        Some(row) => row,
        None => make(core, tenant).await?,
    };
    if row.pushed_at.is_none() {
        push(core, org).await?;
    }
    let account = OrgAccount { organization: org.as_uuid(), authority: opened(core, &row)? };
    live.remember(org, account.clone());
    Ok(account)
}

pub(super) async fn find_in(tx: &mut OrgTx) -> Result<Option<NatsAccount>> {
    match nats_account::find(tx).await {
        Ok(row) => Ok(Some(row)),
        Err(DbError::NotFound) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// Makes an account; of several who do so at once, one does.
async fn make(core: &Core, tenant: Tenant<'_>) -> Result<NatsAccount> {
    let (live, org, now) = (core.broker.live()?, tenant.org_id(), core.clock.now());
    let (identity, authority) = AccountAuthority::generate_with_identity();
    let claims = authority.claims(org.as_uuid(), Limits::default());
    // Signed once more before it is pushed, by the key of then.
    let operator = live.authority();
    let token = operator.sign_account(&claims, now)?;
    let seal = |what, key: &AccountKey| core.vault.seal(&place(org, what), key.seed()?.expose().as_bytes());
    let new = NewAccount {
        public_key: authority.public().to_string(),
        signing_key: authority.signing().public().to_string(),
        account_jwt: token.as_str().to_owned(),
        identity_seed: seal("identity", &identity)?,
        signing_seed: seal("signing", authority.signing())?,
        signed_by: operator.signing().public().to_string(),
        now,
    };
    tenant
        .within(&core.db, async |tx| {
            let (row, made) = nats_account::set(tx, new).await?;
            if made {
                let entry = audit::Entry {
                    action: "nats.account",
                    resource: format!("organization:{org}"),
                    address: None,
                    detail: json!({"after": {"account": row.public_key}}),
                    at: now,
                };
                audit::insert_org(tx, entry).await?;
            }
            Ok(row)
        })
        .await
}

/// Where an account's seed is sealed for.
fn place(org: OrgId, what: &str) -> Vec<u8> {
    format!("nats account {org} {what}").into_bytes()
}

fn opened(core: &Core, row: &NatsAccount) -> Result<AccountAuthority> {
    let seed = operator::seed(core, &place(row.org_id, "signing"), &row.signing_seed)?;
    Ok(AccountAuthority::new(AccountPublic::parse(&row.public_key)?, AccountKey::from_seed(&seed)?))
}

/// The key of a credential on NATS: derived, so that it is never stored.
pub(super) fn key_of(core: &Core, credential: CredentialId) -> Result<tidegate_broker::UserKey> {
    Ok(user_key(core.vault.nats_users(), credential.as_uuid())?)
}

/// Signs the account anew from what the rows say, and makes NATS believe it. An organization that is not active is cut off;
/// one whose account was ended, because it is deleted, has nothing to be pushed.
pub(super) async fn push(core: &Core, org: OrgId) -> Result<()> {
    let (live, system) = (core.broker.live()?, Operator::system());
    let nats = live.system().await?;
    let mut told: Option<AccountPublic> = None;
    for _ in 0..ROUNDS {
        let Some(signed) = core.db.in_platform(&system, async |tx| sign_in(core, tx, org).await).await?
        else {
            if told.is_some() {
                // Others ended it while it was pushed: it is not to stay.
                nats.forget(told.as_slice()).await?;
            }
            return Ok(());
        };
        nats.push(&signed.token).await?;
        told = Some(signed.token.account().clone());
        if !signed.open {
            live.pool.close(signed.token.account()).await;
            live.forget(org);
        }
        let (text, now) = (signed.token.as_str().to_owned(), core.clock.now());
        if core.db.in_platform(&system, async |tx| nats_account::pushed(tx, org, text, now).await).await? {
            return Ok(());
        }
    }
    Err(Error::BrokerUnavailable("others sign the account anew all the time".into()))
}

struct Signed {
    token: AccountToken,
    /// Whether anybody may connect.
    open: bool,
}

/// Signs under the lock of the account's row: who signs later sees what this one saw, and more. The key is the operator's
/// of this moment, whatever this process saw of it before. None where there is no account any more.
async fn sign_in(core: &Core, tx: &mut PlatformTx, org: OrgId) -> Result<Option<Signed>> {
    let (authority, closed) = operator::signing_in(core, tx).await?;
    let (row, status) = match nats_account::lock(tx, org).await {
        Err(DbError::NotFound) => return Ok(None),
        found => found?,
    };
    let now = core.clock.now();
    // Tokens that were issued before have expired.
    let revoked = nats_account::revoked(tx, org, now - LIFETIME * 2).await?;
    let mut revocations = Revocations::new();
    let too_many = revoked.len() > REVOKED;
    for (credential, at) in revoked {
        let whom = if too_many {
            Revoked::Everybody
        } else {
            Revoked::User(key_of(core, credential)?.public().clone())
        };
        revocations.revoke(whom, at);
    }
    let mut limits = limits(row.limits);
    if closed {
        limits.storage_bytes = CLOSED;
    }
    let open = match status {
        OrgStatus::Active => true,
        OrgStatus::Suspended | OrgStatus::Deleted => {
            // Nobody gets a token any more; ours, of after this second, take away what a deleted one leaves.
            limits.connections = Some(if status == OrgStatus::Deleted { CLEARING } else { 0 });
            revocations.revoke(Revoked::Everybody, now);
            false
        }
    };
    let mut claims = opened(core, &row)?.claims(org.as_uuid(), limits);
    claims.revocations = revocations;
    let token = authority.sign_account(&claims, now)?;
    let signed_by = authority.signing().public().to_string();
    nats_account::set_token(tx, org, token.as_str().to_owned(), signed_by, now).await?;
    Ok(Some(Signed { token, open }))
}

fn limits(row: AccountLimits) -> Limits {
    let count = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    Limits {
        storage_bytes: row.disk_bytes.max(0).unsigned_abs(),
        streams: count(row.streams),
        readers: Some(count(row.consumers)),
        connections: Some(count(row.connections)),
    }
}
