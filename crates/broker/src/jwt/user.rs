//! What an account says of a user: which subjects, and until when.

use std::fmt;

use serde::Serialize;

use super::account::UNLIMITED;
use super::encode::{Envelope, VERSION, encode};
use crate::keys::{AccountKey, AccountPublic, UserPublic};
use crate::{Error, Result};

/// The greatest length of a user's token. It travels in one line of the protocol, whose greatest length
/// (`max_control_line`) is 32 KiB where it is ours.
pub const MAX_TOKEN_BYTES: usize = 24 * 1024;

/// The subjects a user may publish and subscribe to; without any rule, all of its account's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Permissions {
    /// What it may publish to.
    #[serde(rename = "pub")]
    pub publish: SubjectRules,
    /// What it may subscribe to.
    #[serde(rename = "sub")]
    pub subscribe: SubjectRules,
}

/// Rules for one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SubjectRules {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
}

impl SubjectRules {
    /// These subjects, wildcards included, and nothing else. No rule at all would allow everything, so nothing is not an
    /// empty list.
    pub fn only(subjects: Vec<String>) -> Self {
        Self { allow: subjects }
    }

    /// The subjects.
    pub fn allowed(&self) -> &[String] {
        &self.allow
    }
}

/// What an account says of a user.
pub(crate) struct UserClaims<'a> {
    pub(crate) user: &'a UserPublic,
    pub(crate) name: &'a str,
    pub(crate) account: &'a AccountPublic,
    pub(crate) permissions: &'a Permissions,
    /// Greatest message in bytes, headers included; none is the account's.
    pub(crate) payload_bytes: Option<u32>,
    /// How much it may listen to on one connection; none is without limit.
    pub(crate) subscriptions: Option<u32>,
    /// Seconds since 1970; none never expires.
    pub(crate) expires: Option<i64>,
}

#[derive(Serialize)]
struct Wire<'a> {
    #[serde(flatten)]
    permissions: &'a Permissions,
    subs: i64,
    data: i64,
    payload: i64,
    issuer_account: &'a AccountPublic,
    r#type: &'static str,
    version: u8,
}

impl UserClaims<'_> {
    /// Signed by one of the account's signing keys. `issued_at` in seconds since 1970.
    pub(crate) fn encode(&self, signer: &AccountKey, issued_at: i64) -> Result<UserToken> {
        let (issuer, subject) = (signer.public().as_str(), self.user.as_str());
        let wire = Wire {
            permissions: self.permissions,
            subs: self.subscriptions.map_or(UNLIMITED, i64::from),
            data: UNLIMITED,
            payload: self.payload_bytes.map_or(UNLIMITED, i64::from),
            issuer_account: self.account,
            r#type: "user",
            version: VERSION,
        };
        let envelope = Envelope {
            expires: self.expires,
            issued_at,
            issuer,
            name: self.name,
            subject,
            ..Envelope::default()
        };
        let token = encode(envelope, &wire, |bytes| signer.sign(bytes))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::TokenTooLarge { bytes: token.len(), limit: MAX_TOKEN_BYTES });
        }
        Ok(UserToken(token))
    }
}

/// A user's token: opens NATS only together with the user's seed, and is shown to its user alone.
#[derive(Clone, PartialEq, Eq)]
pub struct UserToken(String);

impl UserToken {
    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a token is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserToken({} bytes)", self.0.len())
    }
}
