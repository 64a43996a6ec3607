//! What the verbs about API keys and tokens of devices do.

use chrono::{DateTime, Utc};
use serde_json::json;
use tidegate_model::{ApiKey, BearerToken};
use tidegate_service::{Operator, OrgScope, Services};

use crate::{
    agents::{or_never, time},
    args::{KeyVerb, TokenVerb},
    output,
    pages::all,
};

pub(crate) async fn keys(services: &Services, verb: KeyVerb, as_json: bool) -> anyhow::Result<()> {
    match verb {
        KeyVerb::List { inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            let found = all_keys(services, &scope).await?;
            let now = services.clock().now();
            let row = |key: &ApiKey| {
                vec![
                    key.id.to_string(),
                    format!("ppz_{}…", key.key_prefix),
                    key.label.clone(),
                    key.scopes.to_string(),
                    key.created_by_user_id.to_string(),
                    standing(key.revoked_at, key.expires_at, now),
                    or_never(key.last_used_at),
                ]
            };
            let rows = found.iter().map(row).collect();
            let headings = ["ID", "KEY", "FOR", "SCOPES", "OF", "STATE", "LAST USED"];
            output::list(as_json, &json!({"keys": found, "total": found.len()}), &headings, rows)
        }
        KeyVerb::Revoke { key, inside } => {
            let scope = services.operators.enter(&inside.organization).await?;
            let revoked = services.keys.revoke_api_key(&scope, key, None).await?;
            output::said(as_json, &revoked, &format!("key {} is revoked", revoked.id))
        }
    }
}

async fn all_keys(services: &Services, scope: &OrgScope) -> anyhow::Result<Vec<ApiKey>> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = services.keys.list_api_keys_for_org(scope, 100, cursor.as_deref()).await?;
        found.extend(page.keys);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

pub(crate) async fn tokens(
    services: &Services,
    operator: &Operator,
    verb: TokenVerb,
    as_json: bool,
) -> anyhow::Result<()> {
    let users = &services.all_users;
    match verb {
        TokenVerb::List { user } => {
            let id = users.id_of(operator, &user).await?;
            let found = all(async |paging| users.tokens(operator, id, paging).await).await?;
            let now = services.clock().now();
            let row = |token: &BearerToken| {
                vec![
                    token.id.to_string(),
                    format!("ppz_oauth_{}…", token.prefix),
                    token.client_name.clone(),
                    standing(token.revoked_at, Some(token.expires_at), now),
                    or_never(token.last_used_at),
                    time(token.created_at),
                ]
            };
            let rows = found.iter().map(row).collect();
            let headings = ["ID", "TOKEN", "DEVICE", "STATE", "LAST USED", "ISSUED"];
            output::list(as_json, &json!({"tokens": found, "total": found.len()}), &headings, rows)
        }
        TokenVerb::Revoke { tokens, user } => {
            let id = users.id_of(operator, &user).await?;
            let mut revoked = Vec::new();
            for token in tokens {
                revoked.push(users.revoke_token(operator, id, token).await?);
            }
            let names: Vec<String> =
                revoked.iter().map(|token| format!("token {} is revoked", token.id)).collect();
            output::said(as_json, &json!({"tokens": revoked}), &names.join("\n"))
        }
    }
}

/// How a credential stands, for people.
fn standing(revoked: Option<DateTime<Utc>>, expires: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    match (revoked, expires) {
        (Some(_), _) => "revoked".into(),
        (None, Some(end)) if end <= now => "expired".into(),
        (None, Some(end)) => format!("until {}", time(end)),
        (None, None) => "stands".into(),
    }
}
