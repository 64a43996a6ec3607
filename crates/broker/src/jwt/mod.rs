//! Tokens of NATS's operator mode (version 2, `ed25519-nkey`): what they say, in the order the reference implementation
//! says it, so that golden vectors of it hold byte for byte.
//! Never who may have one.

mod account;
mod encode;
mod operator;
mod user;

pub use account::{AccountClaims, AccountToken, Limits, Revocations, Revoked};
pub(crate) use operator::{DeletionClaims, OperatorClaims};
pub(crate) use user::UserClaims;
pub use user::{MAX_TOKEN_BYTES, Permissions, SubjectRules, UserToken};

#[cfg(test)]
mod golden;
