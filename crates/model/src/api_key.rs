//! API keys (seed B, `APIKey`): what programs prove themselves with.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, Fields, FromFields, OrgId, Scope, Scopes, UserId};

/// A key as answers show it. Its hash stays in the database, and the key itself is shown once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// The key's id; good for nothing but naming it.
    pub id: ApiKeyId,
    /// The one organization it opens.
    pub org_id: OrgId,
    /// Who made it, and as whom it acts.
    pub created_by_user_id: UserId,
    /// The 8 characters after `ppz_`, to tell keys apart.
    pub key_prefix: String,
    /// What it is for.
    pub label: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself; `null` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked; `null` for a key that stands.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Body of `POST organizations/{id}/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewApiKey {
    /// What it is for, 1–100 characters.
    pub label: String,
    /// What it may be used for; everything that its maker's role allows where it is not said.
    pub scopes: Scopes,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

impl FromFields for NewApiKey {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let label: Option<String> = fields.required("label");
        if let Some(label) = &label {
            fields.check_length("label", label, 1..=100);
            if label.chars().any(char::is_control) {
                fields.errors().add("label", "must not hold control characters");
            }
        }
        let scopes: Option<Scopes> = fields.optional("scopes");
        if scopes.is_some_and(Scopes::is_empty) {
            fields.errors().add("scopes", "must name at least one scope");
        }
        let scopes = scopes.unwrap_or_else(|| [Scope::Everything].into_iter().collect());
        Some(Self { label: label?, scopes, expires_at: fields.optional("expiresAt") })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_without_scopes_is_good_for_everything_of_its_maker_and_never_for_the_platform() {
        let new = NewApiKey::from_json(json!({"label": "ci"})).unwrap();
        assert!(new.scopes.allow(Scope::Keys) && !new.scopes.allow(Scope::Admin));
        assert_eq!(new.expires_at, None);
    }

    #[test]
    fn every_bad_field_of_a_new_key_is_named() {
        let bad = json!({"label": "a\u{7}", "scopes": [], "expiresAt": "soon", "admin": true});
        let errors = NewApiKey::from_json(bad).unwrap_err();
        let names: Vec<&str> = errors.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["admin", "expiresAt", "label", "scopes"]);
        let unknown = NewApiKey::from_json(json!({"label": "a", "scopes": ["root"]})).unwrap_err();
        assert!(unknown.to_string().contains("scopes"), "{unknown}");
        assert!(NewApiKey::from_json(json!({"label": "a".repeat(101)})).is_err());
        assert!(NewApiKey::from_json(json!({})).is_err());
    }
}
