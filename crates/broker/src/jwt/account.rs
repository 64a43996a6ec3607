//! What the operator says of an account: its limits, the keys that sign its users, and whom it does not let in any more.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::encode::{Envelope, VERSION, encode};
use crate::Result;
use crate::keys::{AccountPublic, OperatorKey, UserPublic};

/// No limit.
pub(super) const UNLIMITED: i64 = -1;

/// What an account may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that its streams may promise to hold, together.
    pub storage_bytes: u64,
    /// The number of its streams.
    pub streams: u32,
    /// The number of its readers over all streams; none is unlimited.
    pub readers: Option<u32>,
    /// The number of its connections; none is unlimited. 0 is what a suspended organization has.
    pub connections: Option<u32>,
}

impl Default for Limits {
    /// 64 GiB promised, 20 000 streams, readers without limit, 10 000 connections.
    fn default() -> Self {
        Self { storage_bytes: 64 << 30, streams: 20_000, readers: None, connections: Some(10_000) }
    }
}

/// Whom a revocation is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// Everybody in the account, our own connections too.
    Everybody,
    /// One credential.
    User(UserPublic),
}

impl Revoked {
    fn as_str(&self) -> &str {
        match self {
            Self::Everybody => "*",
            Self::User(key) => key.as_str(),
        }
    }
}

/// Whom an account does not let in: every token issued up to a second, that one included.
///
/// A token issued in the second of its revocation is refused: whoever is let in again gets a token one second later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations(BTreeMap<Revoked, i64>);

impl Revocations {
    /// Nobody is revoked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses every token of `whom` that was issued until `at`; an earlier revocation is not taken back.
    pub fn revoke(&mut self, whom: Revoked, at: DateTime<Utc>) {
        let until = self.0.entry(whom).or_insert(i64::MIN);
        *until = (*until).max(at.timestamp());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn wire(&self) -> BTreeMap<&str, i64> {
        self.0.iter().map(|(whom, until)| (whom.as_str(), *until)).collect()
    }
}

impl FromIterator<(Revoked, DateTime<Utc>)> for Revocations {
    fn from_iter<I: IntoIterator<Item = (Revoked, DateTime<Utc>)>>(entries: I) -> Self {
        let mut revocations = Self::new();
        for (whom, at) in entries {
            revocations.revoke(whom, at);
        }
        revocations
    }
}

/// What the operator says of an account.
#[derive(Debug, Clone)]
pub struct AccountClaims {
    /// The account's identity.
    pub account: AccountPublic,
    /// What people see in NATS's own tools; nothing depends on it.
    pub name: String,
    /// Keys that sign its users.
    pub signing_keys: Vec<AccountPublic>,
    /// What it may use; none for an account without JetStream and without limits, which the system account is.
    pub limits: Option<Limits>,
    /// Whom it does not let in.
    pub revocations: Revocations,
    /// The greatest size in bytes of a message that its clients publish, headers included; none is unlimited.
    pub payload_bytes: Option<u32>,
    /// Subjects that are replaced by another when a client publishes to them.
    pub mappings: BTreeMap<String, String>,
}

impl AccountClaims {
    /// Signed by one of the operator's keys. `issued_at` in seconds since 1970.
    pub(crate) fn encode(&self, operator: &OperatorKey, issued_at: i64) -> Result<AccountToken> {
        let issuer = operator.public().as_str();
        let subject = self.account.as_str();
        let envelope = Envelope { issued_at, issuer, name: &self.name, subject, ..Envelope::default() };
        let token = encode(envelope, &self.wire(), |bytes| operator.sign(bytes))?;
        Ok(AccountToken { account: self.account.clone(), token })
    }

    fn wire(&self) -> Wire<'_> {
        let map = |to| vec![Mapping { subject: to, weight: 100 }];
        Wire {
            limits: self
                .limits
                .map_or_else(WireLimits::none, |limits| WireLimits::of(limits, self.payload_bytes)),
            signing_keys: &self.signing_keys,
            revocations: self.revocations.wire(),
            default_permissions: NoPermissions::default(),
            mappings: self.mappings.iter().map(|(from, to)| (from.as_str(), map(to))).collect(),
            authorization: Nothing {},
            r#type: "account",
            version: VERSION,
        }
    }
}

#[derive(Serialize)]
struct Wire<'a> {
    limits: WireLimits,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    signing_keys: &'a [AccountPublic],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    revocations: BTreeMap<&'a str, i64>,
    default_permissions: NoPermissions,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mappings: BTreeMap<&'a str, Vec<Mapping<'a>>>,
    authorization: Nothing,
    r#type: &'static str,
    version: u8,
}

/// A zero is left out, and what is left out is zero.
#[derive(Serialize)]
struct WireLimits {
    #[serde(skip_serializing_if = "is_zero")]
    subs: i64,
    #[serde(skip_serializing_if = "is_zero")]
    data: i64,
    #[serde(skip_serializing_if = "is_zero")]
    payload: i64,
    #[serde(skip_serializing_if = "is_zero")]
    imports: i64,
    #[serde(skip_serializing_if = "is_zero")]
    exports: i64,
    #[serde(skip_serializing_if = "is_false")]
    wildcards: bool,
    #[serde(skip_serializing_if = "is_false")]
    disallow_bearer: bool,
    #[serde(skip_serializing_if = "is_zero")]
    conn: i64,
    #[serde(skip_serializing_if = "is_zero")]
    leaf: i64,
    #[serde(skip_serializing_if = "is_zero")]
    disk_storage: i64,
    #[serde(skip_serializing_if = "is_zero")]
    streams: i64,
    #[serde(skip_serializing_if = "is_zero")]
    consumer: i64,
    #[serde(skip_serializing_if = "is_false")]
    max_bytes_required: bool,
}

impl WireLimits {
    /// No JetStream, no limit.
    fn none() -> Self {
        let all = UNLIMITED;
        Self {
            subs: all,
            data: all,
            payload: all,
            imports: all,
            exports: all,
            wildcards: true,
            disallow_bearer: false,
            conn: all,
            leaf: all,
            disk_storage: 0,
            streams: 0,
            consumer: 0,
            max_bytes_required: false,
        }
    }

    /// JetStream on disk; no imports, exports, leaf nodes or bearer tokens.
    fn of(limits: Limits, payload_bytes: Option<u32>) -> Self {
        Self {
            subs: UNLIMITED,
            data: UNLIMITED,
            payload: payload_bytes.map_or(UNLIMITED, i64::from),
            imports: 0,
            exports: 0,
            wildcards: false,
            disallow_bearer: true,
            conn: limits.connections.map_or(UNLIMITED, i64::from),
            leaf: 0,
            disk_storage: i64::try_from(limits.storage_bytes).unwrap_or(i64::MAX),
            streams: i64::from(limits.streams),
            consumer: limits.readers.map_or(UNLIMITED, i64::from),
            max_bytes_required: true,
        }
    }
}

#[derive(Serialize)]
struct Mapping<'a> {
    subject: &'a str,
    weight: u8,
}

#[derive(Default, Serialize)]
struct NoPermissions {
    r#pub: Nothing,
    sub: Nothing,
}

#[derive(Default, Serialize)]
struct Nothing {}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// An account as the operator has signed it: what a server is told, and no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountToken {
    account: AccountPublic,
    token: String,
}

impl AccountToken {
    /// The account's identity.
    pub const fn account(&self) -> &AccountPublic {
        &self.account
    }

    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for AccountToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountToken({}, {} bytes)", self.account, self.token.len())
    }
}
