//! What a caller proved themselves with, by its row: never the secret itself.

use std::{fmt, str::FromStr};

use crate::{ApiKeyId, BearerTokenId, LoginSessionId};

/// The row behind a credential. Kept answers are scoped to it, tickets and open sockets end with it, and the audit log
/// records it, in the form `login:<id>`, `key:<id>` or `token:<id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow))]
#[cfg_attr(feature = "diesel", diesel(sql_type = diesel::sql_types::Text))]
pub enum CredentialId {
    /// A login with a password, by a program or a browser.
    Login(LoginSessionId),
    /// An API key.
    ApiKey(ApiKeyId),
    /// A bearer token that a device got.
    Token(BearerTokenId),
}

/// A text that names no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a credential has the form login:<id>, key:<id> or token:<id>")]
pub struct UnknownCredential;

impl CredentialId {
    /// The bare id, unique among the credentials of every kind.
    pub const fn as_uuid(self) -> uuid::Uuid {
        match self {
            Self::Login(id) => id.as_uuid(),
            Self::ApiKey(id) => id.as_uuid(),
            Self::Token(id) => id.as_uuid(),
        }
    }

    /// The login, where it is one.
    pub const fn login(self) -> Option<LoginSessionId> {
        match self {
            Self::Login(id) => Some(id),
            Self::ApiKey(_) | Self::Token(_) => None,
        }
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(id) => write!(f, "login:{id}"),
            Self::ApiKey(id) => write!(f, "key:{id}"),
            Self::Token(id) => write!(f, "token:{id}"),
        }
    }
}

impl FromStr for CredentialId {
    type Err = UnknownCredential;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, id) = text.split_once(':').ok_or(UnknownCredential)?;
        match kind {
            "login" => id.parse().map(Self::Login).map_err(|_| UnknownCredential),
            "key" => id.parse().map(Self::ApiKey).map_err(|_| UnknownCredential),
            "token" => id.parse().map(Self::Token).map_err(|_| UnknownCredential),
            _ => Err(UnknownCredential),
        }
    }
}

#[cfg(feature = "diesel")]
impl diesel::serialize::ToSql<diesel::sql_types::Text, diesel::pg::Pg> for CredentialId {
    fn to_sql<'b>(
        &'b self,
        out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>,
    ) -> diesel::serialize::Result {
        use std::io::Write;
        write!(out, "{self}")?;
        Ok(diesel::serialize::IsNull::No)
    }
}

#[cfg(feature = "diesel")]
impl diesel::deserialize::FromSql<diesel::sql_types::Text, diesel::pg::Pg> for CredentialId {
    fn from_sql(bytes: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
        let text =
            <String as diesel::deserialize::FromSql<diesel::sql_types::Text, diesel::pg::Pg>>::from_sql(
                bytes,
            )?;
        Ok(text.parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_read_as_it_was_written_and_nothing_else_is() {
        for credential in [
            CredentialId::Login(LoginSessionId::new()),
            CredentialId::ApiKey(ApiKeyId::new()),
            CredentialId::Token(BearerTokenId::new()),
        ] {
            assert_eq!(credential.to_string().parse(), Ok(credential));
            let bare = credential.as_uuid().to_string();
            assert_eq!(bare.parse::<CredentialId>(), Err(UnknownCredential));
            assert_eq!(format!("cookie:{bare}").parse::<CredentialId>(), Err(UnknownCredential));
        }
        assert_eq!("login:".parse::<CredentialId>(), Err(UnknownCredential));
    }
}
