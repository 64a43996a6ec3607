//! The one tenant (seed A's Organization, seed B's Account).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{OrgId, UserId, text_enum::text_enum};

text_enum! {
    /// A member's role within an organization (seed A, `OrgRole`).
    OrgRole, "organization role" {
        /// Manages users, roles, templates and settings.
        Admin = "org_admin",
        /// Manages templates and everyone's sessions, not people.
        Maintainer = "maintainer",
        /// Manages their own sessions.
        User = "user",
        /// Reads lists and metrics.
        Viewer = "viewer",
    }
}

impl OrgRole {
    /// Whether the role may act on other members' sessions.
    pub const fn manages_sessions(self) -> bool {
        matches!(self, Self::Admin | Self::Maintainer)
    }

    /// Whether the role may start sessions at all.
    pub const fn may_start_sessions(self) -> bool {
        !matches!(self, Self::Viewer)
    }
}

text_enum! {
    /// An organization's state.
    OrgStatus, "organization status" {
        /// Normal operation.
        Active = "active",
        /// No login and no new session.
        Suspended = "suspended",
        /// Soft-deleted, waiting for cleanup.
        Deleted = "deleted",
    }
}

/// An organization (seed A, `Organization`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// The organization's id.
    pub id: OrgId,
    /// Unique across the platform.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Namespace of its sessions on Kubernetes agents; default `tidegate-{name}`.
    pub k8s_namespace: String,
    /// Active, suspended or deleted.
    pub status: OrgStatus,
    /// Who owns it, once somebody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_user_id: Option<UserId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
}

/// `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, 3–50 characters; groups follow the same rule.
pub fn validate_org_name(name: &str) -> Result<(), &'static str> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let fits = (3..=50).contains(&name.len()) && plain && !name.starts_with('-') && !name.ends_with('-');
    fits.then_some(()).ok_or("must have 3 to 50 characters out of a-z, 0-9 and -, with no - at either end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_words_are_the_roles() {
        let words: Vec<&str> = OrgRole::ALL.iter().map(|role| role.as_str()).collect();
        assert_eq!(words, ["org_admin", "maintainer", "user", "viewer"]);
        assert!("owner".parse::<OrgRole>().is_err());
    }

    #[test]
    fn an_organization_name_is_a_slug() {
        for good in ["acme", "a-1", "research-lab"] {
            assert!(validate_org_name(good).is_ok(), "{good}");
        }
        for bad in ["ab", "-acme", "acme-", "Acme", "a b c", "ac_me", &"a".repeat(51)] {
            assert!(validate_org_name(bad).is_err(), "{bad}");
        }
    }
}
