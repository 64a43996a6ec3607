//! The three kinds of keys of operator mode, each a type of its own, and the key of a credential, which is derived.
//! Never printed: a seed is shown by [`Seed::expose`] alone.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, Result};

/// Separates this use of the master-derived key from every other.
const USER_KEY_LABEL: &[u8] = b"tidegate nats user key v1";

/// The text of a private key (`SO…`, `SA…`, `SU…`), to be kept encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(String);

impl Seed {
    /// A seed that was kept somewhere. Whether it is one shows when a key is made of it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The seed's text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed([redacted])")
    }
}

/// Declares a private key and its public half.
macro_rules! keys {
    ($($(#[$meta:meta])* $key:ident, $(#[$public_meta:meta])* $public:ident, $kind:ident, $what:literal;)+) => { $(
        $(#[$meta])*
        #[derive(Clone)]
        pub struct $key { pair: Arc<KeyPair>, public: $public }

        impl $key {
            /// A new random key.
            pub fn generate() -> Self {
                Self::of(KeyPair::new(KeyPairType::$kind))
            }

            /// The key of a seed that was kept.
            pub fn from_seed(seed: &Seed) -> Result<Self> {
                let pair = KeyPair::from_seed(seed.expose())
                    .map_err(|_| Error::invalid(concat!("the seed of the ", $what), "is not readable"))?;
                if pair.key_pair_type() != KeyPairType::$kind {
                    return Err(Error::invalid(concat!("the seed of the ", $what), "is one of another kind of key"));
                }
                Ok(Self::of(pair))
            }

            fn of(pair: KeyPair) -> Self {
                let public = $public(pair.public_key());
                Self { pair: Arc::new(pair), public }
            }

            /// The seed, to be kept encrypted.
            pub fn seed(&self) -> Result<Seed> {
                let seed = self.pair.seed().map_err(|_| Error::invalid(concat!("the key of the ", $what), "has no seed"))?;
                Ok(Seed(seed))
            }

            /// The public half.
            pub fn public(&self) -> &$public {
                &self.public
            }

            /// Signs bytes (Ed25519).
            pub(crate) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
                self.pair.sign(bytes).map_err(|_| Error::invalid(concat!("the key of the ", $what), "cannot sign"))
            }
        }

        impl fmt::Debug for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($key)).field(&self.public.0).finish()
            }
        }

        $(#[$public_meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $public(String);

        impl $public {
            /// The public key of a text that was kept or received.
            pub fn parse(text: &str) -> Result<Self> {
                let pair = KeyPair::from_public_key(text)
                    .map_err(|_| Error::invalid(concat!("the public key of the ", $what), "is not readable"))?;
                if pair.key_pair_type() != KeyPairType::$kind {
                    return Err(Error::invalid(concat!("the public key of the ", $what), "is one of another kind"));
                }
                Ok(Self(text.to_owned()))
            }

            /// The key's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $public {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+ };
}

keys! {
    /// A key of the operator: its identity, or one it signs accounts with.
    OperatorKey,
    /// The public half of an operator's key (`O…`).
    OperatorPublic, Operator, "operator";
    /// A key of an account: its identity, or one it signs users with.
    AccountKey,
    /// The public half of an account's key (`A…`); the identity's is the account's name in NATS.
    AccountPublic, Account, "account";
    /// The key of a user, which is one credential or one connection of ours.
    UserKey,
    /// The public half of a user's key (`U…`), by which a credential is revoked.
    UserPublic, User, "user";
}

/// The key of a credential: always the same for the same credential, so that it is never stored and can be revoked by the
/// credential's id alone. `derived_key` is a key of its own, derived from the master key for this use.
pub fn user_key(derived_key: &[u8; 32], credential: Uuid) -> Result<UserKey> {
    let seed = keyed_hash(derived_key, credential);
    let pair = KeyPair::new_from_raw(KeyPairType::User, seed)
        .map_err(|_| Error::invalid("the key of the user", "cannot be derived"))?;
    Ok(UserKey::of(pair))
}

/// HMAC-SHA-256 of the label and an id.
fn keyed_hash(key: &[u8; 32], id: Uuid) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(USER_KEY_LABEL);
    context.update(id.as_bytes());
    let tag = context.sign();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_key_is_always_the_same_and_nobody_elses() {
        let key =
            |secret: u8, id: u128| user_key(&[secret; 32], Uuid::from_u128(id)).unwrap().public().clone();
        assert_eq!(key(1, 1), key(1, 1));
        assert_ne!(key(1, 1), key(1, 2));
        assert_ne!(key(1, 1), key(2, 1));
        // Pinned: another value would leave every credential that was revoked in NATS open again.
        assert_eq!(key(1, 1).as_str(), "UD5NA5NJ33DCEJIP2CPKEIEOH27DNIS7F7NZW7EKH7Q2JGSHVTS6MHRT");
    }

    #[test]
    fn a_seed_makes_its_own_kind_of_key_alone_and_is_not_printed() {
        let account = AccountKey::generate();
        let seed = account.seed().unwrap();
        assert_eq!(AccountKey::from_seed(&seed).unwrap().public(), account.public());
        assert!(OperatorKey::from_seed(&seed).is_err());
        assert!(UserKey::from_seed(&Seed::new("SUnonsense")).is_err());
        assert!(OperatorPublic::parse(account.public().as_str()).is_err());
        assert_eq!(format!("{seed:?}"), "Seed([redacted])");
        assert!(!format!("{account:?}").contains(seed.expose()));
    }
}
