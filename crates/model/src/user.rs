//! People: the global identity that belongs to organizations through memberships.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    FieldErrors, Fields, FromFields, GroupId, LoginSessionId, OrgId, OrgRole, Secret, UnknownValue, UserId,
    UserQuota, text_enum::text_enum,
};

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

    /// Whether somebody of this role may give `other` to somebody, take it away, or touch whoever has it: nobody
    /// grants more than they hold, and nobody touches who holds more.
    pub fn may_grant(self, other: Self) -> bool {
        // Declared from the least to the most.
        self >= other
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

text_enum! {
    /// Where a user comes from (seed B, `UserMode`); a word that is neither is seed B's `ErrInvalidUserMode`,
    /// [`InvalidUserMode`].
    #[derive(Default)]
    UserMode, "user mode" {
        /// Signs in with GitHub.
        Github = "github",
        /// Everybody else.
        #[default]
        Internal = "internal",
    }
}

/// A word that is no user mode (seed B, `ErrInvalidUserMode`).
pub type InvalidUserMode = UnknownValue;

impl UserMode {
    /// The mode that a provider stands for: the one is derived from the other and stored nowhere.
    pub const fn of(provider: Provider) -> Self {
        match provider {
            Provider::Github => Self::Github,
            Provider::Local | Provider::Saml | Provider::Oidc => Self::Internal,
        }
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
    /// Where the user comes from, by `provider`.
    #[serde(default)]
    pub mode: UserMode,
    /// GitHub's number of the user, for those who sign in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github_id: Option<i64>,
    /// A picture, where the provider gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// Whether the user may log in at all.
    pub active: bool,
    /// The organization that made the account, and whose admins may change and end it.
    #[serde(default)]
    pub home_org_id: Option<OrgId>,
    /// When the user was made.
    pub created_at: DateTime<Utc>,
    /// Last change of a field other than `last_login`.
    pub updated_at: DateTime<Utc>,
    /// Last successful login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login: Option<DateTime<Utc>>,
    /// What the user may use in `org_id`, and uses, where a quota is set: in answers about one user alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Box<UserQuota>>,
    /// The groups of `org_id` that the user is in: in answers about one user alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupId>>,
}

/// A user as operators of the platform see it: in no organization's light.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlatformUser {
    /// The user's id.
    pub id: UserId,
    /// Unique across the platform without regard to case.
    pub username: String,
    /// Unique without regard to case; `null` when a provider gave none.
    pub email: Option<String>,
    /// Display name.
    pub full_name: String,
    /// System-wide role.
    pub role: SystemRole,
    /// How the user logs in.
    pub provider: Provider,
    /// Where the user comes from, by `provider`.
    pub mode: UserMode,
    /// GitHub's number of the user, for those who sign in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github_id: Option<i64>,
    /// A picture, where the provider gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// Whether the user may log in at all.
    pub active: bool,
    /// The organization that made the account.
    pub home_org_id: Option<OrgId>,
    /// Names of the user's organizations, in alphabetical order; the first hundred.
    pub organizations: Vec<String>,
    /// When the user was made.
    pub created_at: DateTime<Utc>,
    /// Last change of a field other than `last_login`.
    pub updated_at: DateTime<Utc>,
    /// Last successful login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_login: Option<DateTime<Utc>>,
}

/// A login of somebody's: what tokens hang on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct LoginSession {
    /// The login's id.
    pub id: LoginSessionId,
    /// Whether the request that shows it was made with it.
    pub current: bool,
    /// Where it was made from, as far as that is known.
    pub address: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its tokens were last renewed.
    pub refreshed_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
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

/// 1–200 characters.
pub fn validate_full_name(name: &str) -> Result<(), &'static str> {
    (1..=200).contains(&name.chars().count()).then_some(()).ok_or("must have 1 to 200 characters")
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
        errors.check("fullName", validate_full_name(full_name));
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
    fn a_mode_follows_from_the_provider_and_no_other_word_is_one() {
        let of = |provider| UserMode::of(provider).as_str();
        assert_eq!(
            Provider::ALL.iter().map(|provider| of(*provider)).collect::<Vec<_>>(),
            ["internal", "internal", "internal", "github"]
        );
        let refused: Result<UserMode, InvalidUserMode> = "service".parse();
        assert_eq!(
            refused.unwrap_err().to_string(),
            "unknown user mode `service`, expected one of: github, internal"
        );
    }

    #[test]
    fn a_role_on_the_platform_touches_none_above_it() {
        for (place, role) in SystemRole::ALL.iter().enumerate() {
            for (other_place, other) in SystemRole::ALL.iter().enumerate() {
                assert_eq!(role.may_grant(*other), place >= other_place, "{role} grants {other}");
            }
        }
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
