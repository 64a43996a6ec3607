//! Lines of the audit log: who did what to what, with which credential, from where. No secret is ever one of them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AuditId, Fields, FromFields, OrgId, UserId};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// The line's id.
    pub id: AuditId,
    /// When it was done.
    pub at: DateTime<Utc>,
    /// The organization it was done in; none for what concerns the platform.
    pub org_id: Option<OrgId>,
    /// Who did it: `user:<id>`, `agent:<id>`, `console` or `system`.
    pub actor: String,
    /// The user, where it was one.
    pub actor_user_id: Option<UserId>,
    /// Their name at that time.
    pub actor_name: Option<String>,
    /// With what: `login:<id>` or `key:<id>`.
    pub credential: Option<String>,
    /// What was done, for example `member.remove`.
    pub action: String,
    /// To what, for example `user:<id>`.
    pub resource: String,
    /// The address that the request came from.
    pub address: Option<String>,
    /// The request, as its answer named it.
    pub request_id: Option<String>,
    /// What it was before, as far as it changed.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<Value>,
    /// What it is after, as far as it changed.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub after: Option<Value>,
    /// Whatever else is worth knowing.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub detail: Value,
}

/// Which lines are asked for. Every condition that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// A username in any case, or an actor as it stands in a line.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// To what.
    pub resource: Option<String>,
    /// From this moment on.
    pub since: Option<DateTime<Utc>>,
    /// Before this moment.
    pub until: Option<DateTime<Utc>>,
}

/// Longest text to look for.
const LONGEST: usize = 255;

impl FromFields for AuditFilter {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let read = Self {
            actor: text(fields, "actor").map(|actor| actor.to_lowercase()),
            action: text(fields, "action"),
            resource: text(fields, "resource"),
            since: moment(fields, "since"),
            until: moment(fields, "until"),
        };
        if let (Some(since), Some(until)) = (read.since, read.until)
            && since >= until
        {
            fields.errors().add("until", "must be later than since");
        }
        Some(read)
    }
}

fn text(fields: &mut Fields, name: &str) -> Option<String> {
    let text: String = fields.optional(name)?;
    if text.is_empty() || text.chars().count() > LONGEST || text.contains('\0') {
        fields.errors().add(name, format!("must have 1 to {LONGEST} characters"));
    }
    Some(text)
}

fn moment(fields: &mut Fields, name: &str) -> Option<DateTime<Utc>> {
    let text: String = fields.optional(name)?;
    let read = DateTime::parse_from_rfc3339(&text).ok().map(|moment| moment.with_timezone(&Utc));
    if read.is_none() {
        fields.errors().add(name, "must be a moment such as 2026-01-31T12:00:00Z");
    }
    read
}

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Names of fields that hold secrets, in lower case and without separators; a name that contains one of them counts.
const SECRET_NAMES: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "privatekey",
    "environment",
    "authorization",
    "cookie",
    "hash",
    "digest",
    "seed",
    "ticket",
];

/// Ends of names that tell of a secret and do not hold it.
const HARMLESS_ENDS: [&str; 4] = ["id", "prefix", "at", "count"];

/// Beginnings of texts that are secrets whatever the field is called: keys and tokens of ours, hashes, JWTs, PEM keys.
const SECRET_TEXTS: [&str; 6] = ["ppz_", "$argon2", "$2a$", "$2b$", "$2y$", "-----BEGIN"];

/// The same without secrets: what a field's name or a text's form gives away is left out.
pub fn redacted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let hide = |(name, value): (String, Value)| {
                let hidden = is_secret_name(&name) && !matches!(value, Value::Null | Value::Bool(_));
                let value = if hidden { Value::from(REDACTED) } else { redacted(value) };
                (name, value)
            };
            Value::Object(fields.into_iter().map(hide).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(redacted).collect()),
        Value::String(text) if is_secret_text(&text) => Value::from(REDACTED),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain,
    }
}

fn is_secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    SECRET_NAMES.iter().any(|secret| plain.contains(secret))
        && !HARMLESS_ENDS.iter().any(|end| plain.ends_with(end))
}

fn is_secret_text(text: &str) -> bool {
    let is_token = |word: &str| {
        SECRET_TEXTS.iter().any(|start| word.starts_with(start))
            || (word.starts_with("eyJ") && word.matches('.').count() == 2)
            || (word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    text.split(|letter: char| letter.is_whitespace() || "\"'=,;".contains(letter)).any(is_token)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_name_or_a_form_gives_away_is_left_out_wherever_it_stands() {
        let hash = "a".repeat(64);
        let line = json!({
            "password": "hunter22", "newPassword": "x", "api_key": "y", "refreshToken": {"deep": "z"}, "environment": {"A": "b"},
            "after": [{"label": "ppz_0123456789abcdef0123456789"}, {"note": format!("key={hash}")}, "eyJhbGciOi.eyJzdWIi.c2ln"],
            "keyPrefix": "01234567", "tokenId": "7", "passwordChanged": true, "ticket": null, "role": "admin", "n": 3,
        });
        assert_eq!(
            redacted(line),
            json!({
                "password": REDACTED, "newPassword": REDACTED, "api_key": REDACTED, "refreshToken": REDACTED, "environment": REDACTED,
                "after": [{"label": REDACTED}, {"note": REDACTED}, REDACTED],
                "keyPrefix": "01234567", "tokenId": "7", "passwordChanged": true, "ticket": null, "role": "admin", "n": 3,
            })
        );
    }

    #[test]
    fn a_filter_names_every_bad_field() {
        let bad =
            json!({"actor": "", "since": "yesterday", "until": "2026-01-01T00:00:00Z", "colour": "red"});
        let complaints = AuditFilter::from_json(bad).unwrap_err();
        assert_eq!(complaints.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["actor", "colour", "since"]);
        let backwards = json!({"since": "2026-01-01T00:00:00+01:00", "until": "2025-12-31T23:00:00Z"});
        assert!(AuditFilter::from_json(backwards).unwrap_err().to_string().contains("until"));
        let good = AuditFilter::from_json(json!({"actor": "Alice", "action": "key.create"})).unwrap();
        assert_eq!((good.actor.as_deref(), good.action.as_deref()), (Some("alice"), Some("key.create")));
    }
}
