//! Logging in and out: short tokens, and refresh tokens that rotate, both hanging on one row.

use std::{net::IpAddr, sync::Arc};

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_model::{CredentialId, LoginRequest, LoginSessionId, Provider, Secret, User, UserId};
use tidegate_persistence::{
    Error as DbError, Operator, Origin, UserTx, audit,
    auth::{self, PasswordLookup, RefreshLookup},
    login_session, user,
};

use crate::{
    BearerTokens, Caller, Core, Error, Keys, Nudge, Result, bearer_tokens::is_bearer_token, keys::is_key,
    options::Options, passwords::is_outdated, refresh_token, secrets::Purpose,
};

/// Logging in and out, and who a token stands for.
#[derive(Debug, Clone)]
pub struct Logins(pub(crate) Arc<Core>);

/// Somebody whose password was right a moment ago.
pub(crate) struct Verified {
    found: PasswordLookup,
    hash: String,
    better: Option<String>,
}

/// A fresh pair of tokens.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// Short-lived bearer token.
    pub token: String,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
    /// Good for one refresh.
    pub refresh_token: String,
    /// Who logged in; without an organization there is nothing to show.
    pub user: Option<User>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: UserId,
    /// The login, where it is one that this is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<LoginSessionId>,
    /// Any other credential, as [`CredentialId`] is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cred: Option<String>,
    iat: i64,
    exp: i64,
}

impl Claims {
    fn of(sub: UserId, credential: CredentialId, now: DateTime<Utc>, expires_at: DateTime<Utc>) -> Self {
        let sid = credential.login();
        let cred = sid.is_none().then(|| credential.to_string());
        Self { sub, sid, cred, iat: now.timestamp(), exp: expires_at.timestamp() }
    }

    fn credential(&self) -> Option<CredentialId> {
        match (self.sid, &self.cred) {
            (Some(sid), None) => Some(CredentialId::Login(sid)),
            (None, Some(cred)) => cred.parse().ok(),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }
}

const NOT_GOOD: Error = Error::Unauthenticated("the token is missing, wrong or has ended: log in again");

impl Logins {
    /// Logs in with a password. Unknown users, wrong passwords and deactivated users look the same, in words and time.
    /// Too many failures of an address or on a name are refused before any hashing; whoever logged in from this address
    /// before is held to failures of their own.
    pub async fn login(&self, request: LoginRequest, source: Option<IpAddr>) -> Result<LoggedIn> {
        let core = &self.0;
        let verified = self.verified(request, source).await?;
        let address = source.map(|source| source.to_string());
        let life = Options::seconds(core.options.login_days * 86_400);
        let login_id = LoginSessionId::new();
        let refresh = refresh_token::make(&core.vault, login_id)?;
        let digest = core.vault.digest(Purpose::Refresh, &refresh);
        let user_id = self
            .let_in(verified, login_id, source, async |tx, now| {
                login_session::insert(tx, login_id, digest, address, now, now + life).await
            })
            .await?;
        let user = self.shown(&self.caller(CredentialId::Login(login_id), None).await?).await?;
        self.issue(user_id, login_id, refresh, user)
    }

    /// Whose name and password these are.
    pub(crate) async fn verified(&self, request: LoginRequest, source: Option<IpAddr>) -> Result<Verified> {
        let core = &self.0;
        let attempt = core.throttle.attempt(&request.username, source, Arc::clone(&core.clock));
        attempt.allowed()?;
        let found = match auth::user_by_name(&core.db, &request.username).await {
            Ok(found) => Some(found),
            Err(DbError::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        let unusable = unusable(found.as_ref());
        let hash = found.as_ref().and_then(|found| found.password_hash.clone());
        let stored = hash.clone().filter(|_| unusable.is_none());
        // A refusal for too many attempts leaves here, and writes nothing.
        let fits = core.passwords.verify(request.password.clone(), stored, attempt).await?;
        let user = found.as_ref().map(|found| found.user_id);
        let (Some(found), Some(hash), None, true) = (found, hash, unusable, fits) else {
            return Err(self.refused(user, unusable.unwrap_or("wrong password"), source).await);
        };
        let better = self.better_hash(request.password, &hash).await;
        Ok(Verified { found, hash, better })
    }

    /// Makes a login of somebody whose password was verified; `insert` writes its row.
    pub(crate) async fn let_in(
        &self,
        verified: Verified,
        login_id: LoginSessionId,
        source: Option<IpAddr>,
        insert: impl AsyncFnOnce(&mut UserTx, DateTime<Utc>) -> Result<(), DbError>,
    ) -> Result<UserId> {
        let core = &self.0;
        let Verified { found, hash, better } = verified;
        let (user_id, now) = (found.user_id, core.clock.now());
        let scope = found.into_scope(login_id).with_origin(Origin::new(source, None));
        let let_in = core
            .db
            .in_user(&scope, async |tx| {
                // First, and under the row's lock: who was deactivated or has another password since is not let in.
                if !user::touch_login(tx, hash, better, now).await? {
                    return Ok(false);
                }
                insert(tx, now).await?;
                audit::insert_user(tx, None, entry("login.create", Some(user_id), json!({}), now)).await?;
                Ok::<_, DbError>(true)
            })
            .await?;
        if let_in { Ok(user_id) } else { Err(self.refused(Some(user_id), "changed meanwhile", source).await) }
    }

    /// Writes a failure into the platform's log, whether there is such a user or not. What was typed as a name may be a
    /// password, and is written nowhere.
    async fn refused(&self, known: Option<UserId>, reason: &'static str, source: Option<IpAddr>) -> Error {
        let system = Operator::system().with_origin(Origin::new(source, None));
        let line = entry("login.refuse", known, json!({"reason": reason}), self.0.clock.now());
        let written = self.0.db.in_platform(&system, async |tx| audit::insert_platform(tx, line).await).await;
        written.map_or_else(Error::from, |()| Error::InvalidCredentials)
    }

    /// A hash of ours for a password that was verified against another kind. Where there is no room to make one, the
    /// next login may.
    async fn better_hash(&self, password: Secret<String>, stored: &str) -> Option<String> {
        if !is_outdated(stored) {
            return None;
        }
        self.0.passwords.hash(password).await.ok()
    }

    /// Exchanges a refresh token for a new pair. Any token of the login but the current one is a replay, however old it
    /// is: it ends the login.
    pub async fn refresh(&self, presented: &Secret<String>, source: Option<IpAddr>) -> Result<LoggedIn> {
        let core = &self.0;
        let old = core.vault.digest(Purpose::Refresh, presented.expose());
        let (login_id, current) = match auth::refresh(&core.db, old.clone()).await {
            Ok(RefreshLookup { login_id, current }) => (login_id, current),
            Err(DbError::NotFound) => {
                // One of ours is older than the one before the current one.
                let Some(login_id) = refresh_token::login_of(&core.vault, presented) else {
                    core.throttle.failure(source, core.clock.now())?;
                    return Err(NOT_GOOD);
                };
                (login_id, false)
            }
            Err(error) => return Err(error.into()),
        };
        let caller = self.caller(CredentialId::Login(login_id), None).await?;
        let (now, refresh) = (core.clock.now(), refresh_token::make(&core.vault, login_id)?);
        // Read before the rotation: the one racer who rotates is answered, though the others end the login after it.
        let user = if current { self.shown(&caller).await? } else { None };
        let new = core.vault.digest(Purpose::Refresh, &refresh);
        let scope = caller.user.with_origin(Origin::new(source, None));
        let user_id = scope.user_id();
        let rotated = core
            .db
            .in_user(&scope, async |tx| {
                let rotated = current && login_session::rotate(tx, login_id, old, new, now).await?;
                if !rotated && login_session::revoke(tx, login_id, now).await? {
                    let line = entry("login.replay", Some(user_id), json!({"loginId": login_id}), now);
                    audit::insert_user(tx, None, line).await?;
                }
                Ok::<_, DbError>(rotated)
            })
            .await?;
        if !rotated {
            core.nudges.send(Nudge::Revalidate);
            return Err(NOT_GOOD);
        }
        self.issue(user_id, login_id, refresh, user)
    }

    /// Ends the caller's login at once, or revokes the bearer token that a device brings. An API key is no login: it is
    /// revoked instead.
    pub async fn logout(&self, caller: &Caller) -> Result<()> {
        let (core, now) = (&self.0, self.0.clock.now());
        let id = match caller.credential() {
            CredentialId::Login(id) => id,
            CredentialId::Token(id) => {
                return BearerTokens(Arc::clone(core)).revoke(caller, id, None).await.map(drop);
            }
            CredentialId::ApiKey(_) => {
                let sentence = "an API key has no login to end: revoke the key instead";
                return Err(Error::Forbidden(sentence.into()));
            }
        };
        let user_id = caller.user.user_id();
        core.db
            .in_user(&caller.user, async |tx| {
                login_session::revoke(tx, id, now).await?;
                audit::insert_user(tx, None, entry("login.end", Some(user_id), json!({}), now)).await
            })
            .await?;
        core.nudges.send(Nudge::Revalidate);
        Ok(())
    }

    /// Who a credential stands for, in one round trip. `wanted` is an organization's id or name.
    pub async fn authenticate(&self, credential: &str, wanted: Option<&str>) -> Result<Caller> {
        self.authenticate_from(credential, wanted, None).await
    }

    /// The same for a credential that came from `source`, whose wrong keys are counted.
    pub async fn authenticate_from(
        &self,
        credential: &str,
        wanted: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Caller> {
        if is_key(credential) {
            return Keys(Arc::clone(&self.0)).authenticate(credential, wanted, source).await;
        }
        if is_bearer_token(credential) {
            return BearerTokens(Arc::clone(&self.0)).authenticate(credential, wanted, source).await;
        }
        self.authenticate_token(credential, wanted).await
    }

    async fn authenticate_token(&self, token: &str, wanted: Option<&str>) -> Result<Caller> {
        let core = &self.0;
        let mut validation = Validation::new(Algorithm::HS256);
        // The library reads the machine's clock; ours decides below, on a claim that must be a number.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let key = DecodingKey::from_secret(core.vault.jwt());
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|_| NOT_GOOD)?.claims;
        let now = core.clock.now();
        if claims.exp <= now.timestamp() {
            return Err(NOT_GOOD);
        }
        let caller = self.caller(claims.credential().ok_or(NOT_GOOD)?, wanted).await?;
        if caller.user.user_id() == claims.sub { Ok(caller) } else { Err(NOT_GOOD) }
    }

    /// Whether a caller's credential and membership still stand with the same rights, read again.
    pub async fn still_stands(&self, caller: &Caller) -> Result<bool> {
        if caller.user.is_console() {
            // Nobody takes a shell away from here.
            return Ok(true);
        }
        let org = caller.org.as_ref().map(|org| org.org_id().to_string());
        match self.caller(caller.credential(), org.as_deref()).await {
            Ok(now) => Ok(caller.has_the_rights_of(&now)),
            Err(Error::Unauthenticated(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The caller's own user.
    pub async fn me(&self, caller: &Caller) -> Result<User> {
        let id = caller.user.user_id();
        Ok(self.0.db.in_org(caller.org()?, async |tx| user::find_member(tx, id).await).await?)
    }

    /// Whom a credential stands for that was let in before.
    pub(crate) async fn caller(&self, credential: CredentialId, wanted: Option<&str>) -> Result<Caller> {
        let core = &self.0;
        let id = match credential {
            CredentialId::Login(id) => id,
            CredentialId::ApiKey(id) => return Keys(Arc::clone(core)).caller(id, wanted).await,
            CredentialId::Token(id) => return BearerTokens(Arc::clone(core)).caller(id, wanted).await,
        };
        let login =
            auth::login(&core.db, id, wanted, core.clock.now()).await.map_err(|error| match error {
                DbError::NotFound => NOT_GOOD,
                other => other.into(),
            })?;
        Ok(Caller { user: login.user, org: login.org, wanted: wanted.map(str::to_owned) })
    }

    /// The caller's own user in their organization, if they have one.
    async fn shown(&self, caller: &Caller) -> Result<Option<User>> {
        match &caller.org {
            Some(_) => Ok(Some(self.me(caller).await?)),
            None => Ok(None),
        }
    }

    fn issue(
        &self,
        sub: UserId,
        sid: LoginSessionId,
        refresh_token: String,
        user: Option<User>,
    ) -> Result<LoggedIn> {
        let core = &self.0;
        let now = core.clock.now();
        let expires_at = now + Options::seconds(core.options.token_minutes * 60);
        let token = self.sign(&Claims::of(sub, CredentialId::Login(sid), now, expires_at))?;
        Ok(LoggedIn { token, expires_at, refresh_token, user })
    }

    /// A token that stands for a credential which was looked at just now, and is good no longer than it.
    pub(crate) fn short_token(&self, caller: &Caller, expires_at: DateTime<Utc>) -> Result<String> {
        let now = self.0.clock.now();
        self.sign(&Claims::of(caller.user.user_id(), caller.credential(), now, expires_at))
    }

    fn sign(&self, claims: &Claims) -> Result<String> {
        let key = EncodingKey::from_secret(self.0.vault.jwt());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).map_err(Error::internal)
    }
}

fn entry(action: &'static str, user: Option<UserId>, detail: Value, at: DateTime<Utc>) -> audit::Entry {
    let resource = user.map_or_else(|| "user:unknown".to_owned(), |id| format!("user:{id}"));
    audit::Entry { action, resource, address: None, detail, at }
}

/// Why nobody logs in as this user with a password, if nobody does.
fn unusable(found: Option<&PasswordLookup>) -> Option<&'static str> {
    match found {
        None => Some("no such user"),
        Some(found) if !found.active => Some("deactivated"),
        Some(found) if found.provider != Provider::Local => Some("signs in elsewhere"),
        Some(found) if found.password_hash.is_none() => Some("has no password"),
        Some(_) => None,
    }
}
