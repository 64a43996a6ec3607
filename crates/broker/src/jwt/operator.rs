//! What the operator says: which keys sign for it, and which accounts shall be deleted.

use serde::Serialize;

use super::encode::{Envelope, VERSION, encode};
use crate::Result;
use crate::keys::{AccountPublic, OperatorKey, OperatorPublic};

/// The operator's own token, which a server is configured with.
#[derive(Debug, Clone)]
pub(crate) struct OperatorClaims<'a> {
    pub(crate) name: &'a str,
    /// Keys that sign accounts in its place.
    pub(crate) signing_keys: &'a [OperatorPublic],
    pub(crate) system_account: &'a AccountPublic,
}

#[derive(Serialize)]
struct Wire<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    signing_keys: &'a [OperatorPublic],
    system_account: &'a AccountPublic,
    r#type: &'static str,
    version: u8,
}

impl OperatorClaims<'_> {
    /// Signed by the identity itself. `issued_at` in seconds since 1970.
    pub(crate) fn encode(&self, identity: &OperatorKey, issued_at: i64) -> Result<String> {
        let public = identity.public().as_str();
        let envelope =
            Envelope { issued_at, issuer: public, name: self.name, subject: public, ..Envelope::default() };
        let wire = Wire {
            signing_keys: self.signing_keys,
            system_account: self.system_account,
            r#type: "operator",
            version: VERSION,
        };
        encode(envelope, &wire, |bytes| identity.sign(bytes))
    }
}

/// The request to forget accounts.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeletionClaims<'a> {
    accounts: &'a [AccountPublic],
    version: u8,
}

impl<'a> DeletionClaims<'a> {
    pub(crate) const fn of(accounts: &'a [AccountPublic]) -> Self {
        Self { accounts, version: VERSION }
    }

    /// Signed by, and about, the operator. `issued_at` in seconds since 1970.
    pub(crate) fn encode(&self, operator: &OperatorKey, issued_at: i64) -> Result<String> {
        let public = operator.public().as_str();
        let envelope = Envelope { issued_at, issuer: public, subject: public, ..Envelope::default() };
        encode(envelope, self, |bytes| operator.sign(bytes))
    }
}
