//! People: the global identity that belongs to organizations through memberships.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{FieldErrors, Fields, FromFields, OrgId, OrgRole, Secret, UserId, text_enum::text_enum};

text_enum! {
    /// System-wide permission level (seed A, `User.Role`).
    SystemRole, "role" {
        /// Manages their own sessions.
        User = "user",
        /// Sees all sessions, manages quotas and agents.
        Operator = "operator",
        /// Full access to the platform.
        Admin = "admin",
    }
}

impl SystemRole {
    /// Whether the role opens the routes under `/admin`.
    pub const fn is_operator(self) -> bool {
        matches!(self, Self::Operator | Self::Admin)
    }
}

text_enum! {
    /// How a user proves who they are. `saml` users can be stored and cannot log in yet.
    Provider, "provider" {
        /// Username and password.
        Local = "local",
        /// SAML 2.0.
        Saml = "saml",
        /// OpenID Connect.
        Oidc = "oidc",
        /// GitHub's OAuth (seed B, mode `github`).
        Github = "github",
    }
}

/// A user as answers show it (seed A, `User`); the password hash never leaves the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// The organization of the request that shows the user.
    pub org_id: OrgId,
    /// Unique across the platform without regard to case.
    pub username: String,
    /// Unique without regard to case; `null` when a provider gave none.
    pub email: Option<String>,
    /// Display name.
    pub full_name: String,
    /// System-wide role.
    pub role: SystemRole,
    /// Role in `org_id`.
    pub org_role: OrgRole,
    /// How the user logs in.
    pub provider: Provider,
    /// Whether the user may log in at all.
    pub active: bool,
    /// When the user was made.
    pub created_at: DateTime<Utc>,
    /// Last change of a field other than `last_login`.
    pub updated_at: DateTime<Utc>,
    /// Last successful login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login: Option<DateTime<Utc>>,
}

/// Body of `POST auth/login`.
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// Username, in any case.
    pub username: String,
    /// Password.
    pub password: Secret<String>,
}

impl FromFields for LoginRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let username = fields.required("username");
        let password: Option<String> = fields.required("password");
        Some(Self { username: username?, password: Secret::new(password?) })
    }
}

/// 3–32 of `A-Z a-z 0-9 _ -`.
pub fn validate_username(name: &str) -> Result<(), &'static str> {
    let fits = (3..=32).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    fits.then_some(()).ok_or("must have 3 to 32 characters out of A-Z, a-z, 0-9, - and _")
}

/// An RFC 5322 addr-spec.
pub fn validate_email(email: &str) -> Result<(), &'static str> {
    email_address::EmailAddress::is_valid(email)
        .then_some(())
        .ok_or("must be an e-mail address, for example alice@example.com")
}

/// Passwords nobody may choose: the most common ones of at least eight characters.
const COMMON_PASSWORDS: &str = include_str!("common_passwords.txt");

/// 8–256 characters, not a common password and not the username.
pub fn validate_password(password: &str, username: &str) -> Result<(), &'static str> {
    let length = password.chars().count();
    let lower = password.to_lowercase();
    if !(8..=256).contains(&length) {
        Err("must have 8 to 256 characters")
    } else if lower == username.to_lowercase() {
        Err("must not be the username")
    } else if COMMON_PASSWORDS.lines().any(|common| common == lower) {
        Err("is one of the most common passwords, choose another one")
    } else {
        Ok(())
    }
}

impl User {
    /// Checks the three fields that a new local user brings.
    pub fn check_new(username: &str, email: Option<&str>, full_name: &str) -> Result<(), FieldErrors> {
        let mut errors = FieldErrors::new();
        errors.check("username", validate_username(username));
        if let Some(email) = email {
            errors.check("email", validate_email(email));
        }
        if !(1..=200).contains(&full_name.chars().count()) {
            errors.add("fullName", "must have 1 to 200 characters");
        }
        errors.into_result()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_refused_when_short_common_or_the_username() {
        assert!(validate_password("short", "alice").is_err());
        assert!(validate_password("Password123", "alice").is_err());
        assert!(validate_password("Alice-Smith", "alice-smith").is_err());
        assert!(validate_password(&"é".repeat(257), "alice").is_err());
        assert!(validate_password("tidewater gate", "alice").is_ok());
    }

    #[test]
    fn a_username_has_three_to_thirty_two_plain_characters() {
        for good in ["bob", "Bob-Smith_9", &"a".repeat(32)] {
            assert!(validate_username(good).is_ok(), "{good}");
        }
        for bad in ["ab", &"a".repeat(33), "bob smith", "böb", "bob.smith", ""] {
            assert!(validate_username(bad).is_err(), "{bad}");
        }
    }
}
