//! Whom a key stands for: one probe of a unique index, and a hash only where a key has no digest yet.

use std::{net::IpAddr, sync::Arc};

use tidegate_model::{ApiKey, ApiKeyId};
use tidegate_persistence::{
    Error as DbError, api_key,
    auth::{self, KeyLookup, KeyName},
};

use super::{Keys, key_prefix, plaintext::is_well_formed, verify_api_key};
use crate::{Caller, Error, Result, secrets::Purpose};

pub(super) const NOT_GOOD: Error =
    Error::Unauthenticated("the API key is wrong, revoked or has expired: ask for a new one");

/// Keys of one prefix that are tried by their hash: prefixes have 32 random bits, so more of them are no accident.
const CANDIDATES: i32 = 16;

impl Keys {
    /// Whom a key stands for. `wanted` is an organization's id or name; every one but the key's own is not found.
    /// Wrong keys of a source are counted, and answered with 429 once there were too many; a right one is let in
    /// whatever came before it.
    pub(crate) async fn authenticate(
        &self,
        plaintext: &str,
        wanted: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Caller> {
        let core = &self.0;
        let mut found = self.probe(plaintext, wanted).await?;
        if found.is_none() {
            found = self.by_hash(plaintext, wanted, source).await?;
        }
        let Some(found) = found else {
            core.throttle.failure(source, core.clock.now())?;
            return Err(NOT_GOOD);
        };
        core.uses.note(found.id, found.last_used_at, core.clock.now());
        Ok(caller(found, wanted))
    }

    /// The row of a key that stands (seed B, `LookupAPIKey`). Not found: unknown, revoked, expired, or without an owner
    /// who is an active member.
    pub async fn lookup_api_key(&self, plaintext: &str) -> Result<ApiKey> {
        let missing = || Error::not_found("an API key");
        let caller = self.authenticate(plaintext, None, None).await.map_err(|error| match error {
            Error::Unauthenticated(_) => missing(),
            other => other,
        })?;
        let (scope, tidegate_model::CredentialId::ApiKey(id)) =
            (caller.org.as_ref().ok_or_else(missing)?, caller.credential())
        else {
            return Err(missing());
        };
        Ok(self.0.db.in_org(scope, async |tx| api_key::find(tx, id).await).await?)
    }

    /// Whom a key stands for that was let in before.
    pub(crate) async fn caller(&self, id: ApiKeyId, wanted: Option<&str>) -> Result<Caller> {
        self.lookup(KeyName::Id(id), wanted).await?.map(|found| caller(found, wanted)).ok_or(NOT_GOOD)
    }

    async fn probe(&self, plaintext: &str, wanted: Option<&str>) -> Result<Option<KeyLookup>> {
        // What has not the form of a key is no key, and costs no probe.
        if !is_well_formed(plaintext) {
            return Ok(None);
        }
        let digest = self.0.vault.digest(Purpose::ApiKey, plaintext);
        self.lookup(KeyName::Digest(digest), wanted).await
    }

    async fn lookup(&self, name: KeyName, wanted: Option<&str>) -> Result<Option<KeyLookup>> {
        match auth::api_key(&self.0.db, name, wanted, self.0.clock.now()).await {
            Ok(found) => Ok(Some(found)),
            Err(DbError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A key whose digest is missing or of another pepper: computed once, then known by its digest.
    async fn by_hash(
        &self,
        plaintext: &str,
        wanted: Option<&str>,
        source: Option<IpAddr>,
    ) -> Result<Option<KeyLookup>> {
        let core = &self.0;
        if !is_well_formed(plaintext) {
            return Ok(None);
        }
        let version = core.vault.pepper_version();
        let candidates = auth::undigested(&core.db, key_prefix(plaintext), version, CANDIDATES).await?;
        if candidates.is_empty() {
            return Ok(None);
        }
        let (throttle, clock, key) =
            (Arc::clone(&core.throttle), Arc::clone(&core.clock), plaintext.to_owned());
        throttle.allows_key(source, clock.now())?;
        let fitting = core.passwords.work_for_key(move || {
            // Asked again when it is this one's turn: those before it may have failed.
            throttle.allows_key(source, clock.now())?;
            let fits = candidates.into_iter().find(|candidate| verify_api_key(&key, &candidate.key_hash));
            Ok(fits.map(|fitting| fitting.id))
        });
        let Some(id) = fitting.await? else { return Ok(None) };
        let found = self.lookup(KeyName::Id(id), wanted).await?;
        if let Some(scope) = found.as_ref().and_then(|found| found.org.as_ref()) {
            let digest = self.digest(plaintext);
            core.db.in_org(scope, async |tx| api_key::set_digest(tx, id, digest).await).await?;
        }
        Ok(found)
    }
}

fn caller(found: KeyLookup, wanted: Option<&str>) -> Caller {
    Caller { user: found.user, org: found.org, wanted: wanted.map(str::to_owned) }
}
