//! Requests about repositories. What a remote wants to see is written and never read.

use serde::{Deserialize, Serialize};

use crate::{Fields, FromFields, PatchField, RepositoryAuth, RepositoryType, Secret};

/// Characters of a secret at most.
const LONGEST_SECRET: usize = 16 * 1024;

/// What a remote wants to see; which of these belong to which `authType` is checked where they meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepositorySecret {
    /// `basic`; for `token` where a server wants to hear a certain name before it.
    pub username: Option<String>,
    /// `basic`.
    pub password: Option<Secret<String>>,
    /// `token`.
    pub token: Option<Secret<String>>,
    /// `ssh`: a private key without a passphrase.
    pub private_key: Option<Secret<String>>,
    /// `ssh`: the server's host keys, as in `known_hosts`; others are refused.
    pub known_hosts: Option<String>,
}

impl RepositorySecret {
    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn from_fields(fields: &mut Fields) -> Self {
        let read = Self {
            username: fields.optional("username"),
            password: fields.optional("password"),
            token: fields.optional("token"),
            private_key: fields.optional("privateKey"),
            known_hosts: fields.optional("knownHosts"),
        };
        let given = [
            ("username", read.username.as_ref()),
            ("password", read.password.as_ref().map(Secret::expose)),
            ("token", read.token.as_ref().map(Secret::expose)),
            ("privateKey", read.private_key.as_ref().map(Secret::expose)),
            ("knownHosts", read.known_hosts.as_ref()),
        ];
        for (name, text) in given.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            if text.is_empty() || text.len() > LONGEST_SECRET {
                fields.errors().add(name, format!("must have 1 to {LONGEST_SECRET} characters"));
            }
            let many_lines = matches!(name, "privateKey" | "knownHosts");
            let fits = |c: char| !c.is_control() || (many_lines && matches!(c, '\n' | '\r' | '\t'));
            if !text.chars().all(fits) || (name == "username" && text.contains(':')) {
                fields.errors().add(name, "holds characters that cannot be sent");
            }
        }
        read
    }
}

/// `POST catalog/repositories`.
#[derive(Debug, Clone)]
pub struct AddRepositoryRequest {
    /// 1–100 characters.
    pub name: String,
    /// Where it is fetched from.
    pub url: String,
    /// The branch or tag; the remote's own default without it.
    pub branch: Option<String>,
    /// Git or archive. Default git.
    pub kind: RepositoryType,
    /// At most 500 characters.
    pub description: String,
    /// Default true.
    pub enabled: bool,
    /// What the remote wants to see. Default nothing.
    pub auth_type: RepositoryAuth,
    /// That.
    pub secret: RepositorySecret,
    /// What webhooks are signed with; at least 16 characters.
    pub webhook_secret: Option<Secret<String>>,
}

/// `PATCH catalog/repositories/{id}`.
#[derive(Debug, Clone, Default)]
pub struct UpdateRepositoryRequest {
    /// 1–100 characters.
    pub name: Option<String>,
    /// Where it is fetched from.
    pub url: Option<String>,
    /// The branch or tag; `null` for the remote's own default.
    pub branch: PatchField<String>,
    /// At most 500 characters; `null` for none.
    pub description: PatchField<String>,
    /// Whether it is synced and shown.
    pub enabled: Option<bool>,
    /// What the remote wants to see.
    pub auth_type: Option<RepositoryAuth>,
    /// That.
    pub secret: RepositorySecret,
    /// What webhooks are signed with; `null` for none.
    pub webhook_secret: PatchField<Secret<String>>,
}

fn check_name(fields: &mut Fields, name: Option<&String>) {
    let Some(name) = name else { return };
    fields.check_length("name", name, 1..=100);
    if name.trim() != name || name.chars().any(char::is_control) {
        fields.errors().add("name", "must hold no control characters, and no spaces at either end");
    }
}

fn check_description(fields: &mut Fields, text: &str) {
    fields.check_length("description", text, 0..=500);
    if text.chars().any(|c| c.is_control() && c != '\n') {
        fields.errors().add("description", "must hold no control characters");
    }
}

fn check_webhook_secret(fields: &mut Fields, secret: Option<&Secret<String>>) {
    if let Some(secret) = secret {
        fields.check_length("webhookSecret", secret.expose(), 16..=256);
    }
}

impl FromFields for AddRepositoryRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name = fields.required("name");
        check_name(fields, name.as_ref());
        let url = fields.required("url");
        let description: String = fields.optional("description").unwrap_or_default();
        check_description(fields, &description);
        let branch = fields.optional::<String>("branch").filter(|branch| !branch.is_empty());
        let kind = fields.optional("type").unwrap_or(RepositoryType::Git);
        let enabled = fields.optional("enabled").unwrap_or(true);
        let auth_type = fields.optional("authType").unwrap_or(RepositoryAuth::None);
        let secret = RepositorySecret::from_fields(fields);
        let webhook_secret = fields.optional("webhookSecret");
        check_webhook_secret(fields, webhook_secret.as_ref());
        Some(Self {
            name: name?,
            url: url?,
            branch,
            kind,
            description,
            enabled,
            auth_type,
            secret,
            webhook_secret,
        })
    }
}

impl FromFields for UpdateRepositoryRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name = fields.optional("name");
        check_name(fields, name.as_ref());
        let description = fields.patch::<String>("description");
        if let PatchField::Set(text) = &description {
            check_description(fields, text);
        }
        let webhook_secret = fields.patch("webhookSecret");
        if let PatchField::Set(secret) = &webhook_secret {
            check_webhook_secret(fields, Some(secret));
        }
        Some(Self {
            name,
            url: fields.optional("url"),
            branch: fields.patch("branch"),
            description,
            enabled: fields.optional("enabled"),
            auth_type: fields.optional("authType"),
            secret: RepositorySecret::from_fields(fields),
            webhook_secret,
        })
    }
}

/// What was said to a sync that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SyncRequested {
    /// False where one was asked for before and has not begun yet.
    pub requested: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_bad_field_is_named_and_no_secret_is_shown() {
        let bad = json!({"name": " x", "url": 1, "type": "svn", "description": "d".repeat(501), "authType": "magic",
            "token": "a\nb", "username": "a:b", "privateKey": "", "webhookSecret": "short", "more": 1});
        let errors = AddRepositoryRequest::from_json(bad).unwrap_err();
        let named: Vec<&str> = errors.iter().map(|(name, _)| name).collect();
        assert_eq!(
            named,
            [
                "authType",
                "description",
                "more",
                "name",
                "privateKey",
                "token",
                "type",
                "url",
                "username",
                "webhookSecret"
            ]
        );
        let good = json!({"name": "x", "url": "https://x/y", "authType": "token", "token": "hush-hush"});
        let read = AddRepositoryRequest::from_json(good).unwrap();
        assert!(!format!("{read:?}").contains("hush"));
    }

    #[test]
    fn what_is_absent_stays_and_what_is_null_goes() {
        let read = UpdateRepositoryRequest::from_json(json!({"branch": null, "enabled": false})).unwrap();
        assert_eq!((read.branch, read.description), (PatchField::Clear, PatchField::Absent));
        assert_eq!(read.enabled, Some(false));
    }
}
