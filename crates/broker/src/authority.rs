//! The operator and its system account: the root of all trust in our NATS.
//! Never an organization's keys.

use chrono::{DateTime, Utc};

use crate::Result;
use crate::jwt::{
    AccountClaims, AccountToken, OperatorClaims, Permissions, Revocations, UserClaims, UserToken,
};
use crate::keys::{AccountKey, OperatorKey, OperatorPublic, UserPublic};

/// What the operator is called in NATS's own tools.
const NAME: &str = "tidegate";

/// The operator's keys and the system account's. Made once; the three seeds are kept encrypted by the caller.
#[derive(Debug, Clone)]
pub struct Authority {
    identity: OperatorKey,
    signing: OperatorKey,
    /// Keys that are trusted besides.
    others: Vec<OperatorPublic>,
    system: AccountKey,
}

/// What a server has to be told to trust an [`Authority`]: nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The operator's token.
    pub operator: String,
    /// The system account's public key.
    pub system_account: String,
    /// The system account's token, to start with.
    pub system_token: String,
}

impl Authority {
    /// New keys.
    pub fn generate() -> Self {
        Self::new(OperatorKey::generate(), OperatorKey::generate(), AccountKey::generate())
    }

    /// The operator of keys that were kept: its identity, the key it signs accounts with, and the system account's.
    pub const fn new(identity: OperatorKey, signing: OperatorKey, system: AccountKey) -> Self {
        Self { identity, signing, others: Vec::new(), system }
    }

    /// Trusts accounts that these keys sign, too: those that signed before, until all accounts are signed anew, and the one
    /// that signs next. A server learns it at its next start.
    #[must_use]
    pub fn also_trusting(mut self, others: impl IntoIterator<Item = OperatorPublic>) -> Self {
        self.others.extend(others);
        self
    }

    /// The identity, whose seed signs the operator's own token alone.
    pub const fn identity(&self) -> &OperatorKey {
        &self.identity
    }

    /// The key that signs accounts.
    pub const fn signing(&self) -> &OperatorKey {
        &self.signing
    }

    /// Every key that accounts may be signed with, the one that signs first.
    pub fn trusted(&self) -> Vec<OperatorPublic> {
        std::iter::once(self.signing.public()).chain(&self.others).cloned().collect()
    }

    /// The system account's key.
    pub const fn system(&self) -> &AccountKey {
        &self.system
    }

    /// What a server is configured with.
    pub fn trust(&self, now: DateTime<Utc>) -> Result<Trust> {
        let signing_keys = self.trusted();
        let claims =
            OperatorClaims { name: NAME, signing_keys: &signing_keys, system_account: self.system.public() };
        Ok(Trust {
            operator: claims.encode(&self.identity, now.timestamp())?,
            system_account: self.system.public().as_str().to_owned(),
            system_token: self.sign_account(&self.system_claims(), now)?.as_str().to_owned(),
        })
    }

    /// An account as a server believes it.
    pub fn sign_account(&self, claims: &AccountClaims, now: DateTime<Utc>) -> Result<AccountToken> {
        claims.encode(&self.signing, now.timestamp())
    }

    fn system_claims(&self) -> AccountClaims {
        AccountClaims {
            account: self.system.public().clone(),
            name: "SYS".to_owned(),
            signing_keys: Vec::new(),
            limits: None,
            revocations: Revocations::new(),
            payload_bytes: None,
            mappings: std::collections::BTreeMap::new(),
        }
    }

    /// A token of the system account for a connection of ours; it lives as long as the connection.
    pub(crate) fn mint_system(&self, user: &UserPublic, now: DateTime<Utc>) -> Result<UserToken> {
        let claims = UserClaims {
            user,
            name: NAME,
            account: self.system.public(),
            permissions: &Permissions::default(),
            payload_bytes: None,
            subscriptions: None,
            expires: None,
        };
        claims.encode(&self.system, now.timestamp())
    }
}
