//! Device-code login (RFC 8628): a device asks, somebody lets it in by browser, it polls and gets a bearer token.

use std::{net::IpAddr, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    DeviceCode, DeviceCodeId, DeviceDecision, FieldErrors, OrgId, Secret, UserCode, UserId, client_name,
};
use tidegate_persistence::{
    Error as DbError, Operator, Origin, PlatformTx, UserTx, audit, credential,
    device_code::{self, Inserted, NewDeviceCode, Waiting},
};

use crate::{
    BearerTokens, Caller, Core, Error, IssuedToken, Result,
    bearer_tokens::Holder,
    options::Options,
    organizations::conflict,
    secrets::{Purpose, random, random_token},
};

/// Seconds between polls that a device begins with.
const POLL: u16 = 5;
/// User codes tried before giving up: of 25 thousand million, some are in use.
const TRIES: usize = 8;

const ENDED: Error = Error::Unauthenticated("what you logged in with has ended meanwhile: log in again");

/// Devices that ask to be let in.
#[derive(Debug, Clone)]
pub struct Devices(pub(crate) Arc<Core>);

/// A code pair, shown once.
#[derive(Debug, Clone)]
pub struct DeviceCodes {
    /// What the device polls with.
    pub device_code: Secret<String>,
    /// What somebody types.
    pub user_code: UserCode,
    /// Seconds between polls.
    pub interval: u16,
    /// Seconds until both end.
    pub expires_in: u32,
}

/// Why a device got no token (RFC 8628, 3.5).
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Nobody decided yet (seed B, `ErrDeviceCodePending`).
    #[error("nobody has let the device in yet")]
    Pending,
    /// The same, and the device polls too often: it must wait five seconds longer from here on.
    #[error("the device polls too often")]
    SlowDown,
    /// Too late (seed B, `ErrDeviceCodeExpired`).
    #[error("the device code has expired")]
    Expired,
    /// Somebody denied it, or who let it in may not act in the organization any more.
    #[error("the device was not let in")]
    Denied,
    /// Unknown, or used before (seed B, `ErrNotFound`).
    #[error("the device code is unknown or was used")]
    NotFound,
    /// Anything that has nothing to do with the code.
    #[error(transparent)]
    Other(#[from] Error),
}

impl From<DbError> for DeviceError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::NotFound => Self::NotFound,
            other => Self::Other(other.into()),
        }
    }
}

impl Devices {
    /// Makes a code pair (seed B, `CreateDeviceCode`). So many of a source a minute, and so many at all.
    pub async fn create_device_code(&self, name: &str, source: Option<IpAddr>) -> Result<DeviceCodes> {
        let (core, now, system) = (&self.0, self.0.clock.now(), Operator::system());
        let client_name = client_name(name).ok_or_else(|| {
            Error::Invalid(FieldErrors::one("client_name", "must have at most 100 characters"))
        })?;
        core.throttle.device_code(source, now)?;
        let (device_code, expires_in) = (random_token()?, core.options.device_code_seconds);
        for _ in 0..TRIES {
            let Some(user_code) = UserCode::of_random(&random::<32>()?) else { continue };
            let new = NewDeviceCode {
                id: DeviceCodeId::new(),
                device_hash: core.vault.digest(Purpose::DeviceCode, &device_code),
                user_hash: self.user_hash(&user_code),
                client_name: client_name.clone(),
                address: source.map(|source| source.to_string()),
                poll_seconds: i32::from(POLL),
                expires_at: now + Options::seconds(expires_in),
                now,
            };
            let inserted = core.db.in_platform(&system, async |tx| device_code::insert(tx, new).await);
            match inserted.await? {
                Inserted::Made => {
                    let device_code = Secret::new(device_code);
                    return Ok(DeviceCodes { device_code, user_code, interval: POLL, expires_in });
                }
                Inserted::Full => return Err(Error::RateLimited(Options::seconds(60))),
                Inserted::Taken => {}
            }
        }
        Err(Error::internal("every user code that was tried is in use"))
    }

    /// What a code is for (seed B, `LookupDeviceCode`). Codes that are unknown, have expired or were used are not found,
    /// and counted against whoever tries them and where from.
    pub async fn lookup_device_code(
        &self,
        caller: &Caller,
        typed: &str,
        source: Option<IpAddr>,
    ) -> Result<DeviceCode> {
        let code = self.known(caller, typed, source)?;
        let hash = self.user_hash(&code);
        let found = self.0.db.in_user(&caller.user, async |tx| self.find_in(tx, hash).await).await;
        self.counted(caller, source, found)
    }

    /// Lets a device act as the caller, in one organization of theirs to begin with (seed B, `ApproveDeviceCode`). The
    /// same again changes nothing; what somebody else decided, or was decided otherwise, stays.
    pub async fn approve_device_code(
        &self,
        caller: &Caller,
        typed: &str,
        org: OrgId,
        source: Option<IpAddr>,
    ) -> Result<DeviceCode> {
        // Proved by the row: an active organization, of which the caller is a member.
        let scope =
            crate::Logins(Arc::clone(&self.0)).caller(caller.credential(), Some(&org.to_string())).await?;
        scope.org()?;
        self.decide(caller, typed, Some(org), source).await
    }

    /// Refuses a device.
    pub async fn deny_device_code(
        &self,
        caller: &Caller,
        typed: &str,
        source: Option<IpAddr>,
    ) -> Result<DeviceCode> {
        self.decide(caller, typed, None, source).await
    }

    async fn decide(
        &self,
        caller: &Caller,
        typed: &str,
        org: Option<OrgId>,
        source: Option<IpAddr>,
    ) -> Result<DeviceCode> {
        let (code, now) = (self.known(caller, typed, source)?, self.0.clock.now());
        let hash = self.user_hash(&code);
        let decided = self
            .0
            .db
            .in_user(&caller.user, async |tx| {
                // What lets a device in must not end before it is let in.
                if !credential::hold_own(tx, now).await? {
                    return Err(ENDED);
                }
                let first = device_code::decide(tx, hash.clone(), org, now).await?;
                let after = self.find_in(tx, hash).await?;
                let wanted = if org.is_some() { DeviceDecision::Approved } else { DeviceDecision::Denied };
                if !(after.mine && after.decision == Some(wanted) && after.org_id == org) {
                    return Err(conflict(
                        "E_DEVICE_DECIDED",
                        "this device was let in or refused already: ask for a new code on it",
                    ));
                }
                if first {
                    audit::insert_user(tx, org, line(&after, source, now)).await?;
                }
                Ok(after)
            })
            .await;
        self.counted(caller, source, decided)
    }

    /// The device's poll (seed B, `ConsumeDeviceCode`): the token of a device that was let in, once.
    pub async fn consume_device_code(
        &self,
        device_code: &str,
        source: Option<IpAddr>,
    ) -> Result<IssuedToken, DeviceError> {
        let (core, now) = (&self.0, self.0.clock.now());
        let system = Operator::system().with_origin(Origin::new(source, None));
        let hash = core.vault.digest(Purpose::DeviceCode, device_code);
        let polled = core.db.in_platform(&system, async |tx| {
            let waiting = match device_code::waiting(tx, hash).await {
                Ok(waiting) => waiting,
                Err(DbError::NotFound) => return Ok(Err(DeviceError::NotFound)),
                Err(error) => return Err(Error::from(error)),
            };
            self.poll_in(tx, waiting, now).await
        });
        let outcome = polled.await?;
        if matches!(outcome, Err(DeviceError::NotFound)) {
            core.throttle.failure(source, now)?;
        }
        outcome
    }

    /// What becomes of a poll. What is refused is no failure of the transaction: that a device polled too soon is kept.
    async fn poll_in(
        &self,
        tx: &mut PlatformTx,
        waiting: Waiting,
        now: DateTime<Utc>,
    ) -> Result<Result<IssuedToken, DeviceError>> {
        if waiting.consumed {
            return Ok(Err(DeviceError::NotFound));
        }
        if waiting.expires_at <= now {
            return Ok(Err(DeviceError::Expired));
        }
        match waiting.decision {
            None if device_code::polled(tx, waiting.id, now).await? => Ok(Err(DeviceError::SlowDown)),
            None => Ok(Err(DeviceError::Pending)),
            Some((DeviceDecision::Approved, user, Some(org))) => {
                self.consume_in(tx, waiting.id, (user, org, waiting.client_name), now).await
            }
            Some((DeviceDecision::Denied | DeviceDecision::Approved, ..)) => Ok(Err(DeviceError::Denied)),
        }
    }

    async fn consume_in(
        &self,
        tx: &mut PlatformTx,
        id: DeviceCodeId,
        (user_id, org_id, client_name): (UserId, OrgId, String),
        now: DateTime<Utc>,
    ) -> Result<Result<IssuedToken, DeviceError>> {
        let Some(username) = device_code::may_act(tx, user_id, org_id).await? else {
            return Ok(Err(DeviceError::Denied));
        };
        if !device_code::consume(tx, id, now).await? {
            return Ok(Err(DeviceError::NotFound));
        }
        let tokens = BearerTokens(Arc::clone(&self.0));
        let holder = Holder { user_id, username, org_id, client_name };
        tokens.issue_bearer_token_in(tx, holder, now).await.map(Ok)
    }

    async fn find_in(&self, tx: &mut UserTx, hash: Vec<u8>) -> Result<DeviceCode> {
        let found = match device_code::find(tx, hash).await {
            Ok(found) => found,
            Err(DbError::NotFound) => return Err(no_such_code()),
            Err(error) => return Err(error.into()),
        };
        let stands = found.expires_at > self.0.clock.now() && found.consumed_at.is_none();
        // Whoever let it in may ask again, and hear the same.
        if stands || found.mine { Ok(found) } else { Err(no_such_code()) }
    }

    /// The code that was typed, unless whoever typed it has tried too many.
    fn known(&self, caller: &Caller, typed: &str, source: Option<IpAddr>) -> Result<UserCode> {
        let (throttle, now) = (&self.0.throttle, self.0.clock.now());
        throttle.allows_user_code(source, caller.user.user_id(), now)?;
        typed.parse().map_err(|_| {
            throttle.wrong_user_code(source, caller.user.user_id(), now);
            no_such_code()
        })
    }

    fn counted<T>(&self, caller: &Caller, source: Option<IpAddr>, outcome: Result<T>) -> Result<T> {
        if matches!(outcome, Err(Error::NotFound(_))) {
            self.0.throttle.wrong_user_code(source, caller.user.user_id(), self.0.clock.now());
        }
        outcome
    }

    fn user_hash(&self, code: &UserCode) -> Vec<u8> {
        self.0.vault.digest(Purpose::UserCode, &code.to_string())
    }
}

fn no_such_code() -> Error {
    Error::not_found("a device that waits with this code")
}

fn line(code: &DeviceCode, source: Option<IpAddr>, at: DateTime<Utc>) -> audit::Entry {
    let detail: Value = json!({
        "clientName": code.client_name, "askedFrom": code.address, "before": {"decision": null},
        "after": {"decision": code.decision, "organizationId": code.org_id},
    });
    audit::Entry {
        action: if code.org_id.is_some() { "device.approve" } else { "device.deny" },
        resource: format!("device:{}", code.id),
        address: source.map(|source| source.to_string()),
        detail,
        at,
    }
}
