//! Repeats of creating requests: the same key and body get the first answer, another body is refused.

use chrono::TimeDelta;
use serde_json::Value;
use tidegate_model::CredentialId;
use tidegate_persistence::{OrgTx, idempotency};

use crate::{Error, Result};

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

    /// The kept answer, if this is a repeat.
    pub(crate) async fn find_in(
        &self,
        tx: &mut OrgTx,
        now: chrono::DateTime<chrono::Utc>,
    ) -> Result<Option<Replay>> {
        let Some(kept) = idempotency::find(tx, &self.key, now - KEPT).await? else { return Ok(None) };
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
        now: chrono::DateTime<chrono::Utc>,
    ) -> Result<()> {
        let kept = idempotency::Kept { body_hash: self.body_hash.clone(), status: i32::from(status), body };
        Ok(idempotency::insert(tx, &self.key, kept, now).await?)
    }
}
