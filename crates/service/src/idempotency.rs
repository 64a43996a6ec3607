//! Repeats of creating requests: the same key and body get the first answer, another body is refused.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tidegate_model::CredentialId;
use tidegate_persistence::{OrgScope, OrgTx, PlatformTx, UserTx, idempotency};

use crate::{Core, Error, Result};

/// A client's `Idempotency-Key` with the body it came with.
#[derive(Debug, Clone)]
pub struct Idempotency {
    key: idempotency::Key,
    body_hash: Vec<u8>,
}

/// A kept answer, to be given again.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// HTTP status of the first answer.
    pub status: u16,
    /// The first answer.
    pub body: Value,
}

/// What asking for something gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Made<T> {
    /// Something new.
    New(T),
    /// The kept answer to an earlier request with the same key.
    Replay(Replay),
}

impl<T> Made<T> {
    /// What was made by a request without a key, which repeats nothing.
    pub(crate) fn made(self) -> Result<T> {
        match self {
            Self::New(made) => Ok(made),
            Self::Replay(_) => Err(Error::internal("a request without a key was taken for a repeat")),
        }
    }
}

/// How long answers are kept.
const KEPT: TimeDelta = TimeDelta::hours(24);

impl Idempotency {
    /// The key of a credential on a route, at most 255 visible characters. `digest` is of whatever must be the same for a
    /// request to be a repeat: see [`Services::fingerprint`](crate::Services::fingerprint).
    pub fn new(credential: CredentialId, route: &'static str, key: &str, digest: &[u8]) -> Result<Self> {
        let fits = (1..=255).contains(&key.len()) && key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !fits {
            let complaint = "must have 1 to 255 visible ASCII characters";
            return Err(Error::Invalid(tidegate_model::FieldErrors::one("Idempotency-Key", complaint)));
        }
        let key = idempotency::Key { credential, route, key: key.to_owned() };
        Ok(Self { key, body_hash: digest.to_vec() })
    }

    /// The key itself, where somebody else keeps what it stands for.
    pub(crate) fn text(&self) -> &str {
        &self.key.key
    }

    /// The kept answer, if this is a repeat.
    pub(crate) async fn find_in(&self, tx: &mut OrgTx, now: DateTime<Utc>) -> Result<Option<Replay>> {
        self.replay(idempotency::find(tx, &self.key, now - KEPT).await?)
    }

    /// The kept answer to a request that cannot be carried out any more: a repeat does not depend on what became of the
    /// things that the first one named. Else the reason why it cannot.
    pub(crate) async fn replay_or(
        key: Option<&Self>,
        core: &Core,
        scope: &OrgScope,
        why: Error,
    ) -> Result<Replay> {
        let Some(key) = key else { return Err(why) };
        let now = core.clock.now();
        core.db.in_org(scope, async |tx| key.find_in(tx, now).await).await?.ok_or(why)
    }

    /// The same of what somebody does as themselves.
    pub(crate) async fn find_own_in(&self, tx: &mut UserTx, now: DateTime<Utc>) -> Result<Option<Replay>> {
        self.replay(idempotency::find_own(tx, &self.key, now - KEPT).await?)
    }

    /// The same of what an operator does.
    pub(crate) async fn find_operators_in(
        &self,
        tx: &mut PlatformTx,
        now: DateTime<Utc>,
    ) -> Result<Option<Replay>> {
        self.replay(idempotency::find_operators(tx, &self.key, now - KEPT).await?)
    }

    fn replay(&self, kept: Option<idempotency::Kept>) -> Result<Option<Replay>> {
        let Some(kept) = kept else { return Ok(None) };
        if kept.body_hash != self.body_hash {
            return Err(Error::Conflict {
                code: "E_IDEMPOTENCY_MISMATCH",
                message: "this Idempotency-Key was used with another body: use a new key for a new request"
                    .into(),
            });
        }
        Ok(Some(Replay { status: u16::try_from(kept.status).unwrap_or(200), body: kept.body }))
    }

    /// Keeps the answer in the transaction of the change.
    pub(crate) async fn keep_in(
        &self,
        tx: &mut OrgTx,
        status: u16,
        body: Value,
        now: DateTime<Utc>,
    ) -> Result<()> {
        Ok(idempotency::insert(tx, &self.key, self.kept(status, body), now - KEPT, now).await?)
    }

    /// The same for what somebody does as themselves.
    pub(crate) async fn keep_own_in(
        &self,
        tx: &mut UserTx,
        status: u16,
        body: Value,
        now: DateTime<Utc>,
    ) -> Result<()> {
        Ok(idempotency::insert_own(tx, &self.key, self.kept(status, body), now - KEPT, now).await?)
    }

    /// The same for what an operator does.
    pub(crate) async fn keep_operators_in(
        &self,
        tx: &mut PlatformTx,
        status: u16,
        body: Value,
        now: DateTime<Utc>,
    ) -> Result<()> {
        Ok(idempotency::insert_operators(tx, &self.key, self.kept(status, body), now - KEPT, now).await?)
    }

    fn kept(&self, status: u16, body: Value) -> idempotency::Kept {
        idempotency::Kept { body_hash: self.body_hash.clone(), status: i32::from(status), body }
    }
}
