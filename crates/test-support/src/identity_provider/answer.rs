//! What the provider answers, and what it refuses: as strict as the strictest of the real ones.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    Account, CLIENT_ID, CLIENT_SECRET, Inner, Lie, Promise, State,
    web::{Asked, Said},
};

type Parameters = HashMap<String, String>;

pub(super) fn answer(state: &State, asked: &Asked) -> Said {
    let mut inner = state.inner();
    *inner.asked.entry(asked.path.clone()).or_default() += 1;
    if inner.broken {
        return told(503, &json!({"error": "down for maintenance"}));
    }
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/.well-known/openid-configuration") => told(200, &discovery(&state.url)),
        ("GET", "/keys") => {
            let keys: Vec<Value> = inner.keys.iter().map(super::SigningKey::public).collect();
            told(200, &json!({"keys": keys}))
        }
        ("GET", "/authorize") => authorize(state, &mut inner, &asked.query, true),
        ("GET", "/login/oauth/authorize") => authorize(state, &mut inner, &asked.query, false),
        ("POST", "/token") => token(state, &mut inner, asked, true),
        // GitHub says what is wrong with a 200.
        ("POST", "/login/oauth/access_token") => {
            Said { status: 200, ..token(state, &mut inner, asked, false) }
        }
        ("GET", "/userinfo") => bearer(&inner, asked, profile),
        ("GET", "/api/v3/user") => bearer(&inner, asked, github_user),
        ("GET", "/api/v3/user/emails") => bearer(&inner, asked, |account| {
            let other = json!({"email": "other@people.example", "primary": false, "verified": true});
            let own = account.email.iter().map(
                |email| json!({"email": email, "primary": true, "verified": account.verified == json!(true)}),
            );
            std::iter::once(other).chain(own).collect()
        }),
        _ => told(404, &json!({"error": "nothing is here"})),
    }
}

fn told(status: u16, body: &Value) -> Said {
    Said { status, location: None, body: body.to_string() }
}

fn refused(why: &str) -> Said {
    told(400, &json!({"error": why, "error_description": "<script>alert('provider')</script>"}))
}

fn discovery(url: &str) -> Value {
    json!({
        "issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/keys"), "userinfo_endpoint": format!("{url}/userinfo"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"], "authorization_response_iss_parameter_supported": true,
    })
}

fn parameters(text: &str) -> Parameters {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn authorize(state: &State, inner: &mut Inner, query: &str, oidc: bool) -> Said {
    let asked = parameters(query);
    let get = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let scopes = get("scope");
    let complete = get("response_type") == "code"
        && get("client_id") == CLIENT_ID
        && get("code_challenge_method") == "S256"
        && get("code_challenge").len() == 43
        && get("state").len() >= 22
        && (!oidc || (scopes.split(' ').any(|scope| scope == "openid") && get("nonce").len() >= 22));
    if !complete {
        return refused("invalid_request");
    }
    let mut back = url::Url::parse(&get("redirect_uri")).unwrap();
    if let Some(account) = inner.visitor.clone() {
        inner.issued += 1;
        let code = format!("code-{}", inner.issued);
        let promise = Promise {
            account,
            redirect_uri: get("redirect_uri"),
            challenge: get("code_challenge"),
            nonce: asked.get("nonce").cloned(),
            client_id: get("client_id"),
        };
        back.query_pairs_mut().append_pair("code", &code);
        inner.promises.insert(code, promise);
    } else {
        let words = "<img src=x onerror=alert(1)>";
        back.query_pairs_mut().append_pair("error", "access_denied").append_pair("error_description", words);
    }
    back.query_pairs_mut().append_pair("state", &get("state"));
    if oidc {
        back.query_pairs_mut().append_pair("iss", &state.url);
    }
    Said { status: 302, location: Some(back.to_string()), body: String::new() }
}

fn token(state: &State, inner: &mut Inner, asked: &Asked, oidc: bool) -> Said {
    let form = parameters(&asked.body);
    let get = |name: &str| form.get(name).cloned().unwrap_or_default();
    if !is_client(asked.authorization.as_deref(), &form) {
        return refused("invalid_client");
    }
    // Gone at the first look, whoever looks.
    let Some(promise) = inner.promises.remove(&get("code")) else { return refused("invalid_grant") };
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, get("code_verifier").as_bytes()));
    let kept = get("grant_type") == "authorization_code"
        && promise.redirect_uri == get("redirect_uri")
        && promise.challenge == challenge;
    if !kept {
        return refused("invalid_grant");
    }
    inner.issued += 1;
    let access = format!("access-{}", inner.issued);
    inner.tokens.insert(access.clone(), promise.account.clone());
    let mut answer = json!({"access_token": access, "token_type": "Bearer", "expires_in": 300});
    if oidc {
        answer["id_token"] = json!(id_token(state, inner, &promise));
    }
    told(200, &answer)
}

fn is_client(authorization: Option<&str>, form: &Parameters) -> bool {
    let Some(basic) = authorization.and_then(|value| value.strip_prefix("Basic ")) else {
        return form.get("client_id").is_some_and(|id| id == CLIENT_ID)
            && form.get("client_secret").is_some_and(|secret| secret == CLIENT_SECRET);
    };
    let pair = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
    let decoded: Vec<String> =
        pair.split(':').map(|part| parameters(&format!("x={part}"))["x"].clone()).collect();
    decoded == [CLIENT_ID, CLIENT_SECRET]
}

fn id_token(state: &State, inner: &mut Inner, promise: &Promise) -> String {
    let now = state.clock.now().timestamp();
    let account = &promise.account;
    let mut claims =
        if inner.thin_tokens { json!({"sub": account.id.to_string()}) } else { profile(account) };
    let fixed = [
        ("iss", json!(state.url)),
        ("aud", json!(promise.client_id)),
        ("iat", json!(now)),
        ("exp", json!(now + 300)),
        ("nonce", json!(promise.nonce)),
    ];
    for (name, value) in fixed {
        claims[name] = value;
    }
    let key = inner.keys[0].clone();
    match inner.lie.take() {
        None => key.sign(&claims),
        Some(Lie::Claim(name, value)) => {
            claims[name] = value;
            if claims[name].is_null() {
                claims.as_object_mut().unwrap().remove(name);
            }
            key.sign(&claims)
        }
        Some(Lie::Unsigned) => {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            format!("{}.{}.", part(&json!({"alg": "none", "typ": "JWT"})), part(&claims))
        }
        Some(Lie::SharedSecret) => key.sign_with_public(&claims),
        Some(Lie::HiddenKey) => inner.hidden.sign(&claims),
        Some(Lie::ForgedKey) => inner.hidden.named_as(&key).sign(&claims),
    }
}

fn profile(account: &Account) -> Value {
    json!({
        "sub": account.id.to_string(), "preferred_username": account.login, "name": format!("{} of Elsewhere", account.login),
        "email": account.email, "email_verified": account.verified, "picture": "https://pictures.example/1.png",
    })
}

fn github_user(account: &Account) -> Value {
    json!({
        "id": account.id, "login": account.login, "name": Value::Null, "email": "public@people.example",
        "avatar_url": format!("https://pictures.example/u/{}", account.id),
    })
}

fn bearer(inner: &Inner, asked: &Asked, shown: impl FnOnce(&Account) -> Value) -> Said {
    let token = asked.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
    match token.and_then(|token| inner.tokens.get(token)) {
        Some(account) => told(200, &shown(account)),
        None => told(401, &json!({"message": "Bad credentials"})),
    }
}
