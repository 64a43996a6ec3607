//! Bearer tokens of devices: issued once somebody let the device in, listed and revoked by whose they are.

use std::{net::IpAddr, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::json;
use tidegate_model::{BearerToken, BearerTokenId, CredentialId, OrgId, Secret, UserId};
use tidegate_persistence::{
    Error as DbError, Operator, PlatformTx, UserTx, audit,
    auth::{self, TokenLookup, TokenName},
    bearer_token::{self, NewToken},
    membership,
};

use crate::{
    Caller, Core, Error, Listed, Nudge, Paging, Result,
    error::Named,
    options::Options,
    page,
    secrets::{Purpose, random},
};

/// Bearer tokens of the caller.
#[derive(Debug, Clone)]
pub struct BearerTokens(pub(crate) Arc<Core>);

/// What every token begins with.
const SENTINEL: &str = "ppz_oauth_";
/// Hexadecimal digits behind it: 256 random bits.
const DIGITS: usize = 64;
/// How many of them are shown to tell tokens apart.
const PREFIX: usize = 8;

const NOT_GOOD: Error = Error::Unauthenticated("the token is wrong, revoked or has expired: log in again");

/// A token just issued.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// The secret, shown this once.
    pub token: Secret<String>,
    /// Seconds until it ends by itself.
    pub expires_in: u32,
    /// The organization chosen for it (seed B, `account_id`).
    pub org_id: OrgId,
}

/// Whom a token is for.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) user_id: UserId,
    pub(crate) username: String,
    pub(crate) org_id: OrgId,
    pub(crate) client_name: String,
}

/// Whether a credential means to be a bearer token.
pub(crate) fn is_bearer_token(credential: &str) -> bool {
    credential.starts_with(SENTINEL)
}

fn is_well_formed(credential: &str) -> bool {
    credential.strip_prefix(SENTINEL).is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl BearerTokens {
    /// Issues a token (seed B, `IssueBearerToken`): for whoever let its device in, in the transaction that uses the
    /// device's code up.
    pub(crate) async fn issue_bearer_token_in(
        &self,
        tx: &mut PlatformTx,
        holder: Holder,
        now: DateTime<Utc>,
    ) -> Result<IssuedToken> {
        let core = &self.0;
        let digits = hex::encode(random::<{ DIGITS / 2 }>()?);
        let token = format!("{SENTINEL}{digits}");
        let expires_in = core.options.bearer_token_days.saturating_mul(86_400);
        let Holder { user_id, username, org_id, client_name } = holder;
        let new = NewToken {
            id: BearerTokenId::new(),
            user_id,
            org_id,
            hash: core.vault.digest(Purpose::BearerToken, &token),
            prefix: digits[..PREFIX].to_owned(),
            client_name: client_name.clone(),
            expires_at: now + Options::seconds(expires_in),
            now,
        };
        // The device asked, somebody let it in: the line says who, because its actor cannot.
        let detail = json!({
            "approvedBy": username,
            "after": {"user": user_id, "clientName": client_name, "expiresAt": new.expires_at},
        });
        let line = entry("token.issue", new.id, detail, None, now);
        bearer_token::insert(tx, new).await?;
        audit::insert_platform_about(tx, org_id, line).await?;
        Ok(IssuedToken { token: Secret::new(token), expires_in, org_id })
    }

    /// The caller's tokens, revoked ones too, the newest first.
    pub async fn list(&self, caller: &Caller, paging: &Paging) -> Result<Listed<BearerToken>> {
        let (before, rows) = (paging.after_moment()?, paging.rows());
        let listed = self.0.db.in_user(&caller.user, async |tx| bearer_token::list(tx, before, rows).await);
        let (items, total) = listed.await?;
        Ok(paging.page(items, total, |token| page::moment(token.created_at, token.id)))
    }

    /// Revokes a token of the caller's: from the next request on it opens nothing, and the streams it opened end.
    /// Revoking it again changes nothing.
    pub async fn revoke(
        &self,
        caller: &Caller,
        id: BearerTokenId,
        source: Option<IpAddr>,
    ) -> Result<BearerToken> {
        let now = self.0.clock.now();
        let token = self
            .0
            .db
            .in_user(&caller.user, async |tx| {
                let revoked = bearer_token::revoke(tx, id, now).await?;
                let token = bearer_token::find(tx, id).await.named(format_args!("token {id}"))?;
                if revoked {
                    let address = source.map(|source| source.to_string());
                    let detail = json!({"before": {"clientName": token.client_name}});
                    let line = entry("token.revoke", id, detail, address, now);
                    let org = told_in(tx, token.org_id).await?;
                    audit::insert_user(tx, org, line).await?;
                }
                Ok::<_, Error>(token)
            })
            .await?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(token)
    }

    /// The row of a token that stands (seed B, `LookupBearerToken`). Not found: unknown, revoked, expired, or of a user
    /// who is not active.
    pub async fn lookup_bearer_token(&self, plaintext: &str) -> Result<BearerToken> {
        let missing = || Error::not_found("a bearer token");
        let caller = self.authenticate(plaintext, None, None).await.map_err(|error| match error {
            Error::Unauthenticated(_) => missing(),
            other => other,
        })?;
        let CredentialId::Token(id) = caller.credential() else { return Err(missing()) };
        Ok(self.0.db.in_user(&caller.user, async |tx| bearer_token::find(tx, id).await).await?)
    }

    /// Whom a token stands for. Wrong tokens of a source are counted, and answered with 429 once there were too many.
    pub(crate) async fn authenticate(
        &self,
        plaintext: &str,
        wanted: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Caller> {
        let core = &self.0;
        // What has not the form of a token is none, and costs no probe.
        let found = if is_well_formed(plaintext) {
            let digest = core.vault.digest(Purpose::BearerToken, plaintext);
            self.lookup(TokenName::Digest(digest), wanted).await?
        } else {
            None
        };
        let Some(found) = found else {
            core.throttle.failure(source, core.clock.now())?;
            return Err(NOT_GOOD);
        };
        core.token_uses.note(found.id, found.last_used_at, core.clock.now());
        Ok(caller(found, wanted))
    }

    /// Whom a token stands for that was let in before.
    pub(crate) async fn caller(&self, id: BearerTokenId, wanted: Option<&str>) -> Result<Caller> {
        self.lookup(TokenName::Id(id), wanted).await?.map(|found| caller(found, wanted)).ok_or(NOT_GOOD)
    }

    async fn lookup(&self, name: TokenName, wanted: Option<&str>) -> Result<Option<TokenLookup>> {
        match auth::bearer_token(&self.0.db, name, wanted, self.0.clock.now()).await {
            Ok(found) => Ok(Some(found)),
            Err(DbError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes down which tokens were used since the last call, as [`crate::Keys::flush_uses`] does for keys.
    pub async fn flush_uses(&self) -> Result<usize> {
        let (core, system, mut written) = (&self.0, Operator::system(), 0);
        loop {
            let uses = core.token_uses.take();
            if uses.is_empty() {
                return Ok(written);
            }
            let stamps = uses.clone();
            match core.db.in_platform(&system, async |tx| bearer_token::stamp(tx, stamps).await).await {
                Ok(count) => written += count,
                Err(error) => {
                    core.token_uses.put_back(uses);
                    return Err(error.into());
                }
            }
        }
    }
}

/// Whose log hears of a token's end: the organization's, unless its user is no member any more. Whoever ends the
/// membership waits for the token's row, so that this holds until the transaction ends.
async fn told_in(tx: &mut UserTx, org: Option<OrgId>) -> Result<Option<OrgId>> {
    Ok(match org {
        Some(org) if membership::is_own(tx, org).await? => Some(org),
        Some(_) | None => None,
    })
}

fn caller(found: TokenLookup, wanted: Option<&str>) -> Caller {
    Caller { user: found.user, org: found.org, wanted: wanted.map(str::to_owned) }
}

fn entry(
    action: &'static str,
    id: BearerTokenId,
    detail: serde_json::Value,
    address: Option<String>,
    at: DateTime<Utc>,
) -> audit::Entry {
    audit::Entry { action, resource: format!("token:{id}"), address, detail, at }
}
