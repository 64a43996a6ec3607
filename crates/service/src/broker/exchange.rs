//! Credentials for NATS: a token of five minutes for whatever credential one has, with permissions of constant size and the
//! grants of others on top.

use std::{net::IpAddr, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_broker::{MAX_GRANTS, Permissions, Principal, Seed, SubjectRules, WriteGrant};
use tidegate_model::{CredentialId, Operation, OrgId, Scope, Secret};
use tidegate_persistence::{
    OrgScope, nats_account, organization,
    source_grant::{self, WriteTargets},
};

use super::{
    accounts::{Tenant, account, key_of},
    keyed,
};
use crate::{
    Caller, Core, Error, Logins, Result,
    error::Named,
    permissions::{may, require, standing},
};

/// How long a token for NATS is good.
pub(super) const LIFETIME: TimeDelta = TimeDelta::minutes(5);
/// How many pipes of others are looked at for one: more than these are on none.
pub(crate) const MOST: i64 = 256;
const _: () = assert!(MAX_GRANTS == 256, "as many as a token has");
/// Where permissions to ask for messages begin, which are no permissions to send.
const ASKING: &str = "$JS.";

/// Credentials for NATS.
#[derive(Debug, Clone)]
pub struct Exchange(pub(crate) Arc<Core>);

/// What opens NATS, and the API beside it, until it expires.
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// A token for the API that stands for the same credential.
    pub jwt: String,
    /// Where NATS is.
    pub nats_url: String,
    /// The organization.
    pub account_id: OrgId,
    /// Its name.
    pub account_name: String,
    /// When both tokens end. Get others before.
    pub expires_at: DateTime<Utc>,
    /// The user's token for NATS.
    pub nats_user_jwt: String,
    /// The user's seed, which signs what NATS asks.
    pub nats_user_seed: Seed,
    /// The prefix that the client's inboxes must have.
    pub inbox_prefix: String,
    /// How many pipes of others the user may write to that the token has no room for: they are written to over HTTP.
    pub write_grants_left_out: i64,
    /// What the names of keyed messages are made with on NATS.
    pub message_key: Secret<String>,
}

impl Exchange {
    /// Exchanges a credential of any kind: 401 where it is not good, forbidden where its user is no member of the
    /// organization `account` (its id or name; none is the credential's own).
    pub async fn exchange(
        &self,
        credential: &str,
        account: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Exchanged> {
        let logins = Logins(Arc::clone(&self.0));
        let caller = logins.authenticate_from(credential, account, source).await?;
        self.exchange_for(&caller).await
    }

    /// The same for a caller whose credential was verified.
    pub async fn exchange_for(&self, caller: &Caller) -> Result<Exchanged> {
        let core = &self.0;
        let scope = caller.org().map_err(|error| match error {
            Error::NotFound(what) => Error::Forbidden(format!("you are no member of {what}")),
            other => other,
        })?;
        require(Operation::ReadSources, standing(scope, scope.role()))?;
        let credential = caller.credential();
        allowed_by_key(scope, Scope::PipesRead)?;
        let writes = may(scope, Operation::SendMessages) && allowed_by_key(scope, Scope::PipesWrite).is_ok();
        let live = core.broker.live()?;
        let account = account(core, Tenant::Member(scope)).await?;
        let now = core.clock.now();
        let me = scope.user_id();
        let principal = Principal::new(me.as_uuid());
        let (name, issued_at, Listed { grants, left_out }) = core
            .db
            // Under the organization's lock, as whatever takes a right away: what is read below is not taken away before
            // the row stands that says so.
            .in_org_locked(scope, async |tx, locked| {
                locked.named("organization")?;
                let issued_at = nats_account::note_principal(tx, credential, now, LIFETIME).await?;
                let targets = if writes {
                    source_grant::write_targets(tx, me, MOST).await?
                } else {
                    WriteTargets::default()
                };
                let listed = Listed::of(principal, &targets)?;
                let count = i32::try_from(listed.grants.len()).unwrap_or(i32::MAX);
                if count > 0 {
                    nats_account::note_grants(tx, credential, count).await?;
                }
                let name = organization::find(tx).await.named("organization")?.name;
                Ok::<_, Error>((name, issued_at, listed))
            })
            .await?;
        let permissions = permissions(principal, &grants, writes)?;
        let key = key_of(core, credential)?;
        let told = credential.to_string();
        let token = account.authority.mint(key.public(), &told, &permissions, issued_at, LIFETIME)?;
        let expires_at = issued_at + LIFETIME;
        Ok(Exchanged {
            jwt: Logins(Arc::clone(core)).short_token(caller, expires_at)?,
            nats_url: live.url.clone(),
            account_id: scope.org_id(),
            account_name: name,
            expires_at,
            nats_user_jwt: token.as_str().to_owned(),
            nats_user_seed: key.seed()?,
            inbox_prefix: principal.inbox_prefix(),
            write_grants_left_out: left_out,
            message_key: Secret::new(keyed::secret(core, scope.org_id(), me)),
        })
    }
}

/// The grants of others that stand on a token. Whatever others give, a token is made: what it has no room for is left out,
/// of whoever gave the most.
struct Listed {
    grants: Vec<WriteGrant>,
    /// How many there are besides.
    left_out: i64,
}

impl Listed {
    fn of(principal: Principal, targets: &WriteTargets) -> Result<Self> {
        let mut grants: Vec<WriteGrant> = targets
            .first
            .iter()
            .map(|(handle, pipe)| WriteGrant::new(handle, pipe))
            .collect::<tidegate_broker::Result<_>>()?;
        grants.truncate(principal.fitting(&grants));
        let left_out = targets.all - i64::try_from(grants.len()).unwrap_or(0);
        Ok(Self { grants, left_out })
    }
}

/// Refuses a pipe of another one's that the caller may write to, and that their token for NATS has no room for.
pub(super) async fn fits(core: &Core, scope: &OrgScope, handle: &str, pipe: &str) -> Result<()> {
    let me = scope.user_id();
    let work =
        core.db.in_org(scope, async |tx| Ok::<_, Error>(source_grant::write_targets(tx, me, MOST).await?));
    let targets = work.await?;
    let Listed { grants, left_out } = Listed::of(Principal::new(me.as_uuid()), &targets)?;
    let wanted = (handle.to_owned(), pipe.to_owned());
    if left_out == 0 || targets.first.iter().take(grants.len()).any(|listed| *listed == wanted) {
        return Ok(());
    }
    let message = format!(
        "you may write to {} pipes of others, of which a token for NATS names {}, and pipe {pipe} of source {handle} is not among them: send to it over HTTP, or have some of the rights ended",
        targets.all,
        grants.len()
    );
    Err(Error::Conflict { code: "E_TOO_MANY_GRANTS", message })
}

/// Refuses an API key that was not made for this.
pub(super) fn allowed_by_key(scope: &OrgScope, needed: Scope) -> Result<()> {
    let key = matches!(scope.credential(), CredentialId::ApiKey(_));
    if !key || scope.scopes().allow(needed) {
        return Ok(());
    }
    Err(Error::Forbidden(format!("this key needs the scope {needed}")))
}

/// What a token allows; without the right to send, only to ask for messages.
fn permissions(principal: Principal, grants: &[WriteGrant], writes: bool) -> Result<Permissions> {
    let mut permissions = principal.permissions(grants)?;
    if !writes {
        let asking =
            permissions.publish.allowed().iter().filter(|subject| subject.starts_with(ASKING)).cloned();
        permissions.publish = SubjectRules::only(asking.collect());
    }
    Ok(permissions)
}
