//! The one tenant (seed A's Organization, seed B's Account).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Fields, FromFields, OrgId, PatchField, UserId, text_enum::text_enum};

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
    if uuid::Uuid::try_parse(name).is_ok() {
        // Wherever a name fits an id does: one must not be taken for the other.
        return Err("must not have the form of an id");
    }
    fits.then_some(()).ok_or("must have 3 to 50 characters out of a-z, 0-9 and -, with no - at either end")
}

/// A member of an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The user.
    pub user_id: UserId,
    /// The username.
    pub username: String,
    /// Display name.
    pub full_name: String,
    /// Role in the organization.
    pub role: OrgRole,
    /// Whether the organization is theirs.
    pub owner: bool,
    /// Whether the user may log in at all.
    pub active: bool,
    /// When they became a member.
    pub joined_at: DateTime<Utc>,
}

/// Body of `POST organizations` (seed A, `CreateOrganizationRequest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOrganizationRequest {
    /// Unique across the platform, 3–50 of `a-z 0-9 -`.
    pub name: String,
    /// For people, 3–100 characters.
    pub display_name: String,
    /// At most 500 characters.
    pub description: String,
    /// A DNS-1123 label, 3–63 characters; default `tidegate-{name}`.
    pub k8s_namespace: String,
}

impl FromFields for CreateOrganizationRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name: Option<String> = fields.required("name");
        let display_name: Option<String> = fields.required("displayName");
        let description: String = fields.optional("description").unwrap_or_default();
        let namespace: Option<String> = fields.optional("k8sNamespace");
        if let Some(name) = &name {
            fields.errors().check("name", validate_org_name(name));
        }
        if let Some(display_name) = &display_name {
            fields.check_length("displayName", display_name, DISPLAY_NAME);
        }
        fields.check_length("description", &description, DESCRIPTION);
        if let Some(namespace) = &namespace {
            fields.errors().check("k8sNamespace", validate_namespace(namespace));
        }
        let (name, display_name) = (name?, display_name?);
        let k8s_namespace = namespace.unwrap_or_else(|| default_namespace(&name));
        Some(Self { name, display_name, description, k8s_namespace })
    }
}

/// Body of `PATCH organizations/{id}` (seed A, `UpdateOrganizationRequest`): what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateOrganizationRequest {
    /// For people, 3–100 characters.
    pub display_name: Option<String>,
    /// At most 500 characters; `null` clears it.
    pub description: Option<String>,
    /// A DNS-1123 label, 3–63 characters.
    pub k8s_namespace: Option<String>,
    /// Only the platform's admins change it.
    pub status: Option<OrgStatus>,
}

impl FromFields for UpdateOrganizationRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let display_name: Option<String> = not_null(fields, "displayName");
        let description = match fields.patch::<String>("description") {
            PatchField::Absent => None,
            PatchField::Clear => Some(String::new()),
            PatchField::Set(text) => Some(text),
        };
        let k8s_namespace: Option<String> = not_null(fields, "k8sNamespace");
        let status = not_null(fields, "status");
        if let Some(text) = &display_name {
            fields.check_length("displayName", text, DISPLAY_NAME);
        }
        if let Some(text) = &description {
            fields.check_length("description", text, DESCRIPTION);
        }
        if let Some(namespace) = &k8s_namespace {
            fields.errors().check("k8sNamespace", validate_namespace(namespace));
        }
        Some(Self { display_name, description, k8s_namespace, status })
    }
}

const DISPLAY_NAME: std::ops::RangeInclusive<usize> = 3..=100;
const DESCRIPTION: std::ops::RangeInclusive<usize> = 0..=500;

/// A field of a PATCH body that can be changed and not cleared.
fn not_null<T: serde::de::DeserializeOwned>(fields: &mut Fields, name: &str) -> Option<T> {
    match fields.patch(name) {
        PatchField::Absent => None,
        PatchField::Clear => {
            fields.errors().add(name, "cannot be null");
            None
        }
        PatchField::Set(value) => Some(value),
    }
}

/// Where the sessions of an organization run on Kubernetes agents, unless it says otherwise.
pub fn default_namespace(name: &str) -> String {
    format!("tidegate-{name}")
}

/// A DNS-1123 label of 3–63 characters.
pub fn validate_namespace(name: &str) -> Result<(), &'static str> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let fits = (3..=63).contains(&name.len()) && plain && !name.starts_with('-') && !name.ends_with('-');
    fits.then_some(()).ok_or("must have 3 to 63 characters out of a-z, 0-9 and -, with no - at either end")
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

    fn complaints<T: FromFields>(body: serde_json::Value) -> Vec<String> {
        let Err(errors) = T::from_json(body) else { return Vec::new() };
        errors.iter().map(|(field, _)| field.to_owned()).collect()
    }

    #[test]
    fn a_new_organization_names_every_bad_field() {
        let bad = serde_json::json!({"name": "A", "displayName": "é", "description": "x".repeat(501),
                                     "k8sNamespace": "-a", "owner": "me"});
        let all = ["description", "displayName", "k8sNamespace", "name", "owner"];
        assert_eq!(complaints::<CreateOrganizationRequest>(bad), all);
        assert_eq!(complaints::<CreateOrganizationRequest>(serde_json::json!({})), ["displayName", "name"]);
        let good = serde_json::json!({"name": "acme", "displayName": "Ümé"});
        let good = CreateOrganizationRequest::from_json(good).unwrap();
        assert_eq!((good.description.as_str(), good.k8s_namespace.as_str()), ("", "tidegate-acme"));
    }

    #[test]
    fn a_change_clears_the_description_alone() {
        let clear = serde_json::json!({"description": null});
        let change = UpdateOrganizationRequest::from_json(clear).unwrap();
        let wanted = UpdateOrganizationRequest { description: Some(String::new()), ..Default::default() };
        assert_eq!(change, wanted);
        let bad = serde_json::json!({"displayName": null, "k8sNamespace": null, "status": "gone"});
        assert_eq!(complaints::<UpdateOrganizationRequest>(bad), ["displayName", "k8sNamespace", "status"]);
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
