//! API keys over HTTP: made once, shown once, good for what they say.

use serde_json::{Value, json};
use tidegate_model::OrgRole;

use crate::support::{Answer, World};

/// An organization's admin, and a key of theirs.
struct Stand {
    world: World,
    admin: String,
    id: String,
    key: String,
}

impl Stand {
    async fn new(scopes: Value) -> Self {
        let world = World::new().await;
        let admin = world.member("acme", OrgRole::Admin).await;
        let made = create(&world, &admin, json!({"label": "ci", "scopes": scopes})).await;
        assert_eq!((made.status, &made.body["secretShown"]), (201, &json!(false)), "{made:?}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (id, key) = (text(&made.body["key"]["id"]), text(&made.body["plaintext"]));
        Self { world, admin, id, key }
    }

    async fn with_key(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.world.call(method, path, &self.key, body).await
    }
}

async fn create(world: &World, token: &str, body: Value) -> Answer {
    world.call("POST", "/api/v1/organizations/acme/keys", token, Some(body)).await
}

#[tokio::test]
async fn a_key_is_shown_once_and_opens_what_a_token_opens() {
    let stand = Stand::new(json!(["*"])).await;
    assert_eq!(stand.with_key("GET", "/api/v1/sessions", None).await.status, 200);
    let header = [("X-API-Key", stand.key.clone())];
    assert_eq!(stand.world.raw("GET", "/api/v1/sessions", &header, b"").await.status, 200);
    for path in ["/api/v1/organizations/acme/keys", "/api/v1/orgs/acme/keys"] {
        let listed = stand.with_key("GET", path, None).await;
        assert_eq!((listed.status, &listed.body["total"]), (200, &json!(1)), "{listed:?}");
        assert_eq!(listed.body["keys"][0]["keyPrefix"], stand.key[4..12]);
        assert!(!listed.body.to_string().contains(&stand.key[12..]), "{path}");
        assert!(!listed.body.to_string().contains("argon2"), "{path}");
    }
    let by_alias =
        stand.world.call("POST", "/api/v1/orgs/acme/keys", &stand.key, Some(json!({"label": "x"})));
    assert_eq!(by_alias.await.status, 201);
}

#[tokio::test]
async fn a_repeat_is_answered_without_the_secret() {
    let stand = Stand::new(json!(["*"])).await;
    let headers =
        [("Authorization", format!("Bearer {}", stand.admin)), ("Idempotency-Key", "once".to_owned())];
    let ask = async |path: &str, body: &[u8]| stand.world.raw("POST", path, &headers, body).await;
    let body = br#"{"label":"again"}"#;
    let first = ask("/api/v1/organizations/acme/keys", body).await;
    let second = ask("/api/v1/organizations/acme/keys", body).await;
    assert_eq!((first.status, second.status), (201, 201));
    assert_eq!(second.body["key"]["id"], first.body["key"]["id"]);
    assert_eq!((&second.body["secretShown"], &second.body["plaintext"]), (&json!(true), &Value::Null));
    let other = ask("/api/v1/organizations/acme/keys", br#"{"label":"else"}"#).await;
    other.refused(409, "E_IDEMPOTENCY_MISMATCH");
    // A rotation's repeat too, although the key it is about is revoked by then.
    let rotate = format!("/api/v1/keys/{}/rotate", stand.id);
    let (first, second) = (ask(&rotate, b"").await, ask(&rotate, b"").await);
    assert_eq!((first.status, second.status), (201, 201), "{second:?}");
    assert_eq!(second.body["key"]["id"], first.body["key"]["id"]);
    assert_eq!(second.body["plaintext"], Value::Null);
}

#[tokio::test]
async fn a_revoked_key_is_401_on_the_next_request() {
    let stand = Stand::new(json!(["*"])).await;
    let path = format!("/api/v1/keys/{}/revoke", stand.id);
    for _ in 0..2 {
        let revoked = stand.world.call("POST", &path, &stand.admin, None).await;
        assert_eq!(revoked.status, 200);
        assert!(revoked.body["key"]["revokedAt"].is_string(), "{revoked:?}");
    }
    stand.with_key("GET", "/api/v1/sessions", None).await.refused(401, "E_UNAUTHENTICATED");
}

#[tokio::test]
async fn a_rotated_key_gives_way_to_the_new_one() {
    let stand = Stand::new(json!(["sessions:read", "keys"])).await;
    let path = format!("/api/v1/keys/{}/rotate", stand.id);
    let rotated = stand.with_key("POST", &path, None).await;
    assert_eq!((rotated.status, &rotated.body["key"]["scopes"]), (201, &json!(["sessions:read", "keys"])));
    stand.with_key("GET", "/api/v1/sessions", None).await.refused(401, "E_UNAUTHENTICATED");
    let new = rotated.body["plaintext"].as_str().unwrap();
    assert_eq!(stand.world.call("GET", "/api/v1/sessions", new, None).await.status, 200);
    stand.world.call("POST", &path, &stand.admin, None).await.refused(409, "E_KEY_REVOKED");
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_nothing_else() {
    let stand = Stand::new(json!(["sessions:read"])).await;
    let session = format!("/api/v1/sessions/{}", stand.id);
    assert_eq!(stand.with_key("GET", "/api/v1/sessions", None).await.status, 200);
    assert_eq!(stand.with_key("GET", "/api/v1/users/me", None).await.status, 200);
    stand.with_key("GET", &session, None).await.refused(404, "E_NOT_FOUND");
    for (method, path) in [
        ("POST", "/api/v1/sessions".to_owned()),
        ("DELETE", session.clone()),
        ("POST", format!("{session}/connect")),
        ("GET", format!("{session}/logs")),
        ("GET", format!("{session}/terminal")),
        ("GET", "/api/v1/organizations/acme/keys".to_owned()),
        ("POST", format!("/api/v1/keys/{}/revoke", stand.id)),
        ("GET", "/api/v1/admin/agents".to_owned()),
        ("POST", "/api/v1/auth/logout".to_owned()),
    ] {
        let refused = stand.with_key(method, &path, Some(json!({}))).await;
        refused.refused(403, "E_FORBIDDEN");
    }
    let whole = Stand::new(json!(["*"])).await;
    whole.with_key("POST", "/api/v1/auth/logout", None).await.refused(403, "E_FORBIDDEN");
    whole.with_key("GET", "/api/v1/admin/agents", None).await.refused(403, "E_FORBIDDEN");
}

#[tokio::test]
async fn a_bad_or_forbidden_key_request_is_refused_in_order() {
    let stand = Stand::new(json!(["keys"])).await;
    let bad = json!({"label": "", "scopes": ["root"], "expiresAt": "soon"});
    let refused = create(&stand.world, &stand.admin, bad.clone()).await;
    assert_eq!(refused.refused(400, "E_INVALID").fields(), ["expiresAt", "label", "scopes"]);
    let member = stand.world.member("acme", OrgRole::User).await;
    create(&stand.world, &member, bad.clone()).await.refused(403, "E_FORBIDDEN");
    let stranger = stand.world.member("rival", OrgRole::Admin).await;
    create(&stand.world, &stranger, bad).await.refused(404, "E_NOT_FOUND");
    create(&stand.world, &stand.key, json!({"label": "wider"})).await.refused(403, "E_FORBIDDEN");
    // A key opens its own organization alone, whatever its maker is a member of.
    let there = stand.world.call("GET", "/api/v1/organizations/rival/keys", &stand.key, None).await;
    there.refused(404, "E_NOT_FOUND");
}

#[tokio::test]
async fn a_wrong_key_is_401_and_an_outage_503() {
    let world = World::new().await;
    let wrong = "ppz_0123456789abcdef0123456789";
    world.call("GET", "/api/v1/sessions", wrong, None).await.refused(401, "E_UNAUTHENTICATED");
    let header = [("X-API-Key", "not a key".to_owned())];
    world.raw("GET", "/api/v1/sessions", &header, b"").await.refused(401, "E_UNAUTHENTICATED");
    let outage = world.db.outage().await;
    world.call("GET", "/api/v1/sessions", wrong, None).await.refused(503, "E_UNAVAILABLE");
    outage.end().await;
}

#[tokio::test]
async fn what_a_key_may_do_is_what_its_scopes_leave_of_its_owners_rights() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let body = json!({"label": "reads", "scopes": ["sessions:write", "org:read"]});
    let path = "/api/v1/organizations/acme/keys";
    let made = world.call("POST", path, &owner.token, Some(body)).await.body;
    let key = made["plaintext"].as_str().unwrap();
    let mine = world.call("GET", "/api/v1/me/permissions", key, None).await.body;
    assert_eq!(mine["scopes"], json!(["sessions:read", "sessions:write", "org:read"]));
    let may = |name: &str| mine["permissions"].as_array().unwrap().contains(&json!(name));
    for name in ["session.own", "session.start", "session.manage", "organization.read", "audit.read"] {
        assert!(may(name), "{name}: {mine}");
    }
    for name in ["organization.update", "member.manage", "key.manage", "organization.delete", "user.own"] {
        assert!(!may(name), "{name}: {mine}");
    }
    let login = world.call("GET", "/api/v1/me/permissions", &owner.token, None).await.body;
    assert!(login["permissions"].as_array().unwrap().contains(&json!("organization.delete")));
    assert_eq!(login["scopes"], Value::Null);
}
