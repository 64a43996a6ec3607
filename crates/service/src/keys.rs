//! API keys: who may make them and for what, and whom they stand for.
//!
//! A key acts as its maker, inside one organization, within its scopes: never more than the maker may do at that
//! moment, and never able to make a key that may do more or stands longer.

mod authenticate;
mod plaintext;
mod uses;

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    ApiKey, ApiKeyId, CredentialId, FieldErrors, NewApiKey, Operation, OrgRole, Scopes, Secret, Standing,
    SystemRole,
};
use tidegate_persistence::{
    Error as DbError, OrgScope, OrgTx,
    api_key::{self, After, Digest, NewKey},
    audit, credential,
    organization::{self, Locked},
};

pub(crate) use self::{plaintext::is_key, uses::Uses};
pub use plaintext::{generate_plaintext_key, hash_api_key, key_prefix, verify_api_key};

use crate::{
    Core, Error, Idempotency, Nudge, Replay, Result, error::Named, page::known_moment, secrets::Purpose,
};

/// API keys of an organization.
#[derive(Debug, Clone)]
pub struct Keys(pub(crate) Arc<Core>);

/// What asking for a key gave.
#[derive(Debug, Clone)]
pub enum Minted {
    /// The key, and the secret that is shown this once.
    New(ApiKey, Secret<String>),
    /// The kept answer to an earlier request with the same idempotency key, without the secret.
    Replay(Replay),
}

/// A page of keys.
#[derive(Debug, Clone)]
pub struct KeyPage {
    /// Those that stand first, each part by age.
    pub keys: Vec<ApiKey>,
    /// How many there are, exact up to 10 000.
    pub total: i64,
    /// Whether `total` is exact.
    pub total_is_exact: bool,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// A secret with what of it is stored; made before any transaction.
struct Prepared {
    id: ApiKeyId,
    plaintext: Secret<String>,
    hash: String,
    digest: Digest,
}

impl Keys {
    /// Makes a key of the caller. The answer's body, which repeats with the same idempotency key get again, is made by
    /// `answer`, which is not told the secret.
    pub async fn insert_api_key(
        &self,
        scope: &OrgScope,
        new: &NewApiKey,
        source: Option<IpAddr>,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&ApiKey) -> Value + Send + Sync,
    ) -> Result<Minted> {
        self.check_manager(scope).await?;
        let work = async |tx: &mut OrgTx, role: OrgRole, ready: &Prepared| {
            let limits = Limits::read_in(tx, scope, role, self.0.clock.now()).await?;
            let new = limits.admit(new.clone())?;
            let key = self.insert_in(tx, ready, &new).await?;
            let detail = json!({"after": shown(&key)});
            audit_in(tx, "key.create", key.id, detail, source, key.created_at).await?;
            Ok(key)
        };
        self.minted(scope, idempotency, &answer, work).await
    }

    /// Puts a new key in the place of one of the caller's own, with the same label and scopes; the old one ends in the
    /// same moment. Without `expires_at` it stands as long again as the old one did, and never longer than a key that
    /// asks for it.
    pub async fn rotate_api_key(
        &self,
        scope: &OrgScope,
        id: ApiKeyId,
        expires_at: Option<DateTime<Utc>>,
        source: Option<IpAddr>,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&ApiKey) -> Value + Send + Sync,
    ) -> Result<Minted> {
        // Before the key is looked at, which the first request has revoked.
        if let Some(replay) = self.replay(scope, idempotency).await? {
            return Ok(Minted::Replay(replay));
        }
        self.get_own(scope, id).await?;
        let work = async |tx: &mut OrgTx, role: OrgRole, ready: &Prepared| {
            let now = self.0.clock.now();
            let limits = Limits::read_in(tx, scope, role, now).await?;
            let old = api_key::find(tx, id).await.named(format_args!("API key {id}"))?;
            let again = old.expires_at.map(|end| now + (end - old.created_at));
            let expires_at = expires_at.or_else(|| again.map(|end| limits.shorten(end)));
            let new = NewApiKey { label: old.label.clone(), scopes: old.scopes, expires_at };
            let new = limits.admit(new)?;
            // Of racers exactly one revokes it, and that one alone gets the new key.
            if !api_key::revoke(tx, id, now).await? {
                return Err(revoked(id));
            }
            let key = self.insert_in(tx, ready, &new).await?;
            let detail = json!({"before": shown(&old), "after": shown(&key)});
            audit_in(tx, "key.rotate", id, detail, source, now).await?;
            Ok(key)
        };
        let minted = self.minted(scope, idempotency, &answer, work).await?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(minted)
    }

    /// The keys of the organization, revoked ones too: those that stand first, each part by age.
    pub async fn list_api_keys_for_org(
        &self,
        scope: &OrgScope,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<KeyPage> {
        self.check_manager(scope).await?;
        let after = cursor.map(read_cursor).transpose()?;
        let limit = limit.clamp(1, 100) as usize;
        // One more than asked for says whether there is a next page.
        let most = i64::try_from(limit + 1).unwrap_or(101);
        let (mut keys, total) =
            self.0.db.in_org(scope, async |tx| api_key::list(tx, after, most).await).await?;
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next_cursor = more.then(|| keys.last().map(write_cursor)).flatten();
        let total_is_exact = total <= api_key::EXACT_TOTAL;
        Ok(KeyPage { keys, total: total.min(api_key::EXACT_TOTAL), total_is_exact, next_cursor })
    }

    /// Revokes a key of the organization, and what it opened, at once: one's own, or anybody's for who manages keys.
    /// Revoking it again changes nothing.
    pub async fn revoke_api_key(
        &self,
        scope: &OrgScope,
        id: ApiKeyId,
        source: Option<IpAddr>,
    ) -> Result<ApiKey> {
        let now = self.0.clock.now();
        let key = self
            .0
            .db
            .in_org(scope, async |tx| {
                let key = api_key::find(tx, id).await.named(format_args!("API key {id}"))?;
                if key.created_by_user_id != scope.user_id() {
                    manager_in(tx, scope.role()).await?;
                }
                credential::end_of_member(tx, key.created_by_user_id).await?;
                if !api_key::revoke(tx, id, now).await? {
                    return Ok(api_key::find(tx, id).await?);
                }
                let detail = json!({"before": shown(&key)});
                audit_in(tx, "key.revoke", id, detail, source, now).await?;
                Ok::<_, Error>(ApiKey { revoked_at: Some(now), ..key })
            })
            .await?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(key)
    }

    /// A key of the organization, for who may do something with it.
    pub async fn get(&self, scope: &OrgScope, id: ApiKeyId) -> Result<ApiKey> {
        self.0
            .db
            .in_org(scope, async |tx| {
                let key = api_key::find(tx, id).await.named(format_args!("API key {id}"))?;
                if key.created_by_user_id != scope.user_id() {
                    manager_in(tx, scope.role()).await?;
                }
                Ok(key)
            })
            .await
    }

    /// Refuses whoever may not make keys: that is what admins of the organization and its owner do.
    pub async fn check_manager(&self, scope: &OrgScope) -> Result<()> {
        self.0.db.in_org(scope, async |tx| manager_in(tx, scope.role()).await.map(drop)).await
    }

    /// One of the caller's own keys. Another member's secret is theirs alone: it would act as them.
    async fn get_own(&self, scope: &OrgScope, id: ApiKeyId) -> Result<ApiKey> {
        let key = self.get(scope, id).await?;
        if key.created_by_user_id != scope.user_id() {
            return Err(Error::Forbidden(format!(
                "API key {id} acts as another member: they rotate it, you may revoke it"
            )));
        }
        if key.revoked_at.is_some() {
            return Err(revoked(id));
        }
        Ok(key)
    }

    /// Hashes outside of the transaction, then does `work` in it, beside the kept answer.
    async fn minted(
        &self,
        scope: &OrgScope,
        idempotency: Option<&Idempotency>,
        answer: &(impl Fn(&ApiKey) -> Value + Send + Sync),
        work: impl AsyncFn(&mut OrgTx, OrgRole, &Prepared) -> Result<ApiKey>,
    ) -> Result<Minted> {
        // A repeat costs no hash.
        if let Some(replay) = self.replay(scope, idempotency).await? {
            return Ok(Minted::Replay(replay));
        }
        let ready = self.prepare().await?;
        let now = self.0.clock.now();
        let made = self
            .0
            .db
            .in_org_locked(scope, async |tx, locked: Result<Locked, DbError>| {
                let role = manager_in(tx, locked.named("organization")?.role).await?;
                // What makes a key must not end before the key is made: hashing took its time.
                if !credential::hold(tx, now).await? {
                    return Err(ENDED);
                }
                let key = work(tx, role, &ready).await?;
                if let Some(idempotency) = idempotency {
                    idempotency.keep_in(tx, 201, answer(&key), now).await?;
                }
                Ok::<_, Error>(key)
            })
            .await;
        match made {
            Ok(key) => {
                tracing::info!(key = %key.id, org = %key.org_id, "an API key was made");
                Ok(Minted::New(key, ready.plaintext))
            }
            // A racer with the same idempotency key won while this one hashed: its answer is there now.
            Err(lost @ Error::Conflict { .. }) => match self.replay(scope, idempotency).await? {
                Some(replay) => Ok(Minted::Replay(replay)),
                None => Err(lost),
            },
            Err(error) => Err(error),
        }
    }

    async fn replay(&self, scope: &OrgScope, idempotency: Option<&Idempotency>) -> Result<Option<Replay>> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let now = self.0.clock.now();
        self.0.db.in_org(scope, async |tx| idempotency.find_in(tx, now).await).await
    }

    async fn prepare(&self) -> Result<Prepared> {
        let plaintext = generate_plaintext_key()?;
        let text = plaintext.clone();
        let hash = self.0.passwords.work_for_key(move || hash_api_key(text.expose())).await?;
        let digest = self.digest(plaintext.expose());
        Ok(Prepared { id: ApiKeyId::new(), plaintext, hash, digest })
    }

    fn digest(&self, plaintext: &str) -> Digest {
        let vault = &self.0.vault;
        Digest { bytes: vault.digest(Purpose::ApiKey, plaintext), version: vault.pepper_version() }
    }

    async fn insert_in(&self, tx: &mut OrgTx, ready: &Prepared, new: &NewApiKey) -> Result<ApiKey> {
        let new = NewKey {
            id: ready.id,
            key_hash: ready.hash.clone(),
            digest: ready.digest.clone(),
            key_prefix: key_prefix(ready.plaintext.expose()).to_owned(),
            label: new.label.clone(),
            scopes: new.scopes,
            expires_at: new.expires_at,
            now: self.0.clock.now(),
        };
        Ok(api_key::insert(tx, new).await?)
    }
}

/// Said of a login or key that ended while it made a key.
const ENDED: Error = Error::Unauthenticated("the login or API key has ended: log in again");

/// The most that a key may be which somebody makes with their credential.
struct Limits {
    scopes: Scopes,
    until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

impl Limits {
    /// Reads them in the transaction that makes the key: a credential that ended meanwhile makes none.
    async fn read_in(tx: &mut OrgTx, scope: &OrgScope, role: OrgRole, now: DateTime<Utc>) -> Result<Self> {
        let most = Scopes::of_role(role, scope.as_user().role());
        let scopes = scope.scopes().within(most);
        let until = match scope.credential() {
            CredentialId::Login(_) | CredentialId::Token(_) => None,
            CredentialId::ApiKey(id) => {
                let own = api_key::find(tx, id).await?;
                if own.revoked_at.is_some() || own.expires_at.is_some_and(|end| end <= now) {
                    return Err(authenticate::NOT_GOOD);
                }
                own.expires_at
            }
        };
        Ok(Self { scopes, until, now })
    }

    /// The key as it may be made.
    fn admit(&self, new: NewApiKey) -> Result<NewApiKey> {
        if !self.scopes.cover(new.scopes) {
            let (wanted, have) = (new.scopes, self.scopes);
            return Err(Error::Forbidden(format!(
                "a key may not do more than what makes it: `{wanted}` is more than `{have}`"
            )));
        }
        if new.expires_at.is_some_and(|end| end <= self.now) {
            return Err(Error::Invalid(FieldErrors::one("expiresAt", "must be in the future")));
        }
        let expires_at = new.expires_at.or(self.until);
        if self.until.is_some_and(|until| expires_at.is_none_or(|end| end > until)) {
            return Err(Error::Forbidden("a key may not stand longer than the key that makes it".into()));
        }
        Ok(NewApiKey { expires_at, ..new })
    }

    fn shorten(&self, end: DateTime<Utc>) -> DateTime<Utc> {
        self.until.map_or(end, |until| until.min(end))
    }
}

/// The role that somebody who manages keys acts with: an owner's is that of an admin.
async fn manager_in(tx: &mut OrgTx, role: OrgRole) -> Result<OrgRole> {
    let standing = Standing { system: SystemRole::User, org: Some(role), owner: false };
    if !Operation::ManageKeys.allows(standing) && !organization::is_owned(tx).await? {
        let who = Operation::ManageKeys.who();
        return Err(Error::Forbidden(format!("API keys are the organization's: this needs {who}")));
    }
    Ok(OrgRole::Admin)
}

fn revoked(id: ApiKeyId) -> Error {
    Error::Conflict {
        code: "E_KEY_REVOKED",
        message: format!("API key {id} is revoked: make a new one instead"),
    }
}

/// What the audit log says of a key.
fn shown(key: &ApiKey) -> Value {
    json!({
        "id": key.id, "keyPrefix": key.key_prefix, "label": key.label, "scopes": key.scopes,
        "createdByUserId": key.created_by_user_id, "expiresAt": key.expires_at,
    })
}

async fn audit_in(
    tx: &mut OrgTx,
    action: &'static str,
    id: ApiKeyId,
    detail: Value,
    source: Option<IpAddr>,
    at: DateTime<Utc>,
) -> Result<()> {
    let address = source.map(|source| source.to_string());
    let entry = audit::Entry { action, resource: format!("key:{id}"), address, detail, at };
    Ok(audit::insert_org(tx, entry).await?)
}

fn write_cursor(key: &ApiKey) -> String {
    let part = u8::from(key.revoked_at.is_some());
    URL_SAFE_NO_PAD.encode(format!("{part}/{}/{}", key.created_at.timestamp_micros(), key.id))
}

fn read_cursor(cursor: &str) -> Result<After> {
    let bad = || Error::Invalid(FieldErrors::one("cursor", "must be the nextCursor of a page before"));
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let [part, micros, id] = text.split('/').collect::<Vec<_>>()[..] else { return Err(bad()) };
    let created_at = micros.parse().ok().and_then(known_moment).ok_or_else(bad)?;
    Ok(After { revoked: part == "1", created_at, id: id.parse().map_err(|_| bad())? })
}
