//! One organization's account: its identity, the key that signs its users, and what the operator is asked to say of it.
//! Never whether the organization may have one.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::Result;
use crate::jwt::{AccountClaims, Limits, Permissions, Revocations, UserClaims, UserToken};
use crate::keys::{AccountKey, AccountPublic, UserPublic};
use crate::listened;
use crate::org::MAX_WIRE_BYTES;

/// What our own connections are called in NATS's own tools.
const NAME: &str = "tidegate";
/// How much one connection of a user may listen to: answers to what it asked, which one subscription with a wildcard gets.
const MAX_SUBSCRIPTIONS: u32 = 1_000;

/// The keys of an account; both seeds are kept encrypted by the caller.
#[derive(Debug, Clone)]
pub struct AccountAuthority {
    identity: AccountPublic,
    signing: AccountKey,
}

/// An account, and whose it is: what our own connection to it needs.
#[derive(Debug, Clone)]
pub struct OrgAccount {
    /// The organization.
    pub organization: Uuid,
    /// Its account.
    pub authority: AccountAuthority,
}

impl AccountAuthority {
    /// New keys. The identity's seed is nowhere needed again: [`AccountAuthority::generate_with_identity`] gives it to
    /// those who keep it.
    pub fn generate() -> Self {
        Self::generate_with_identity().1
    }

    /// New keys, and the identity's own.
    pub fn generate_with_identity() -> (AccountKey, Self) {
        let identity = AccountKey::generate();
        let authority = Self { identity: identity.public().clone(), signing: AccountKey::generate() };
        (identity, authority)
    }

    /// The account of keys that were kept.
    pub const fn new(identity: AccountPublic, signing: AccountKey) -> Self {
        Self { identity, signing }
    }

    /// The account's name in NATS: its identity's public key.
    pub const fn public(&self) -> &AccountPublic {
        &self.identity
    }

    /// The key that signs its users.
    pub const fn signing(&self) -> &AccountKey {
        &self.signing
    }

    /// What the operator shall say of the account: nobody revoked; set [`AccountClaims::revocations`] before it is signed.
    pub fn claims(&self, organization: Uuid, limits: Limits) -> AccountClaims {
        AccountClaims {
            account: self.identity.clone(),
            name: organization.to_string(),
            signing_keys: vec![self.signing.public().clone()],
            limits: Some(limits),
            revocations: Revocations::new(),
            payload_bytes: Some(MAX_WIRE_BYTES),
            mappings: BTreeMap::from([listened::mapping(organization)]),
        }
    }

    /// A user's token, for `lifetime` from `now`. Longer than [`crate::MAX_TOKEN_BYTES`] is refused.
    pub fn mint(
        &self,
        user: &UserPublic,
        name: &str,
        permissions: &Permissions,
        now: DateTime<Utc>,
        lifetime: TimeDelta,
    ) -> Result<UserToken> {
        self.encode(user, name, permissions, Some((now + lifetime).timestamp()), now)
    }

    /// A token for a connection of ours, which may do everything in its account and lives as long as the connection.
    pub(crate) fn mint_own(&self, user: &UserPublic, now: DateTime<Utc>) -> Result<UserToken> {
        self.encode(user, NAME, &Permissions::default(), None, now)
    }

    fn encode(
        &self,
        user: &UserPublic,
        name: &str,
        permissions: &Permissions,
        expires: Option<i64>,
        now: DateTime<Utc>,
    ) -> Result<UserToken> {
        let claims = UserClaims {
            user,
            name,
            account: &self.identity,
            permissions,
            payload_bytes: Some(MAX_WIRE_BYTES),
            // Whoever has all of an account is us.
            subscriptions: expires.map(|_| MAX_SUBSCRIPTIONS),
            expires,
        };
        claims.encode(&self.signing, now.timestamp())
    }
}
