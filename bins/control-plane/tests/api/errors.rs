//! Every refusal has one shape, whoever refuses.

use std::time::Duration;

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_test_support::eventually;

use crate::{
    support::{World, upgrade},
    walls::{OPEN, fill, operations},
};

#[tokio::test]
async fn an_unknown_path_is_refused_in_the_one_shape() {
    let world = World::new().await;
    world.call("GET", "/nothing", "", None).await.refused(404, "E_NOT_FOUND");
    world.call("GET", "/api/v1/nothing", "", None).await.refused(404, "E_NOT_FOUND");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let world = World::new().await;
    let token = world.member("acme", OrgRole::User).await;
    let cases = [
        ("DELETE", "/api/v1/auth/login", "POST"),
        ("POST", "/healthz", "GET"),
        ("PUT", "/api/v1/sessions", "GET, POST"),
        ("POST", "/api/v1/sessions/01970000-0000-7000-8000-000000000001", "GET, DELETE"),
    ];
    for (method, path, right) in cases {
        let answer = world.call(method, path, &token, None).await;
        answer.refused(405, "E_METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("allow"), Some(right), "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_the_credential_is_looked_at() {
    let world = World::with("[limits]\nbody_bytes = 1000").await;
    let body = json!({"template": "x".repeat(2_000)});
    world.call("POST", "/api/v1/sessions", "", Some(body)).await.refused(413, "E_TOO_LARGE");
}

#[tokio::test]
async fn a_missing_credential_beats_a_bad_body() {
    let world = World::new().await;
    let answer = world.raw("POST", "/api/v1/sessions", &[], b"{").await;
    answer.refused(401, "E_UNAUTHENTICATED");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn what_is_no_json_is_one_bad_field() {
    let world = World::new().await;
    let answer = world.raw("POST", "/api/v1/auth/login", &[], b"{\"username\":").await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["body"]);
}

#[tokio::test]
async fn nul_is_a_bad_field_or_the_name_of_nothing_and_never_a_fault() {
    let world = World::new().await;
    let token = world.member("acme", OrgRole::Admin).await;
    let admin = world.admin().await;
    let body = json!({"template": "shell", "region": "eu\0", "tags": ["a\0"], "environment": {"A\0": "b"}});
    let answer = world.call("POST", "/api/v1/sessions", &token, Some(body)).await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["environment", "region", "tags"]);
    let login = json!({"username": "a\0", "password": "long enough"});
    let answer = world.call("POST", "/api/v1/auth/login", "", Some(login)).await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["username"]);
    let answer = world.call("GET", "/api/v1/sessions?user=%00&tag=a%00", &token, None).await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["tag", "user"]);
    for path in [
        "/api/v1/organizations/%00",
        "/api/v1/organizations/%00/members",
        "/api/v1/organizations/ac%00me/keys",
        "/api/v1/users/%00",
        "/api/v1/sessions/%00",
        "/api/v1/groups/%00",
    ] {
        world.call("GET", path, &token, None).await.refused(404, "E_NOT_FOUND");
    }
    for path in ["/api/v1/admin/organizations/%00", "/api/v1/admin/users/%00", "/api/v1/admin/quotas/%00"] {
        world.call("GET", path, &admin, None).await.refused(404, "E_NOT_FOUND");
    }
    for path in
        ["/login?next=%00", "/oauth/device/verify?user_code=%00", "/api/v1/auth/oidc/%00", "/invites/%00"]
    {
        let answer = world.call("GET", path, "", None).await;
        assert!(answer.status < 500, "{path}: {answer:?}");
    }
    let form = [("Content-Type", "application/x-www-form-urlencoded".to_owned())];
    for path in ["/login", "/oauth/device/code", "/oauth/device/token", "/oauth/device/verify"] {
        let body = b"username=%00&password=%00&client_name=%00&device_code=%00&user_code=%00&csrf=%00";
        let answer = world.raw("POST", path, &form, body).await;
        assert!(answer.status < 500, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_503_and_never_401() {
    let world = World::new().await;
    let token = world.member("acme", OrgRole::User).await;
    let outage = world.db.outage().await;
    let answer = world.call("GET", "/api/v1/sessions", &token, None).await;
    answer.refused(503, "E_UNAVAILABLE");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(world.call("GET", "/readyz", "", None).await.status, 503);
    assert_eq!(world.call("GET", "/healthz", "", None).await.status, 200);
    outage.end().await;
}

/// What a request waits for at most while the database is away.
const PATIENCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn every_operation_with_a_credential_is_503_soon_while_the_database_is_away_and_recovers_alone() {
    let world = World::new().await;
    let token = world.member("acme", OrgRole::Admin).await;
    let key = json!({"label": "ci"});
    let key = world.call("POST", "/api/v1/organizations/acme/keys", &token, Some(key)).await;
    let key = key.body["plaintext"].as_str().unwrap().to_owned();
    let outage = world.db.outage().await;
    for (method, path) in operations() {
        if OPEN.iter().any(|(open, _)| *open == format!("{method} {path}")) {
            continue;
        }
        let path = fill(&path, &"0".repeat(32));
        for credential in [&token, &key] {
            let (mut headers, agent) = (upgrade(), [("X-Agent-API-Key", "0".repeat(64))]);
            if !path.ends_with("/terminal")
                && !path.contains("/agents/connect")
                && !path.contains("/tunnels/")
            {
                headers.clear();
            }
            headers.push(("Authorization", format!("Bearer {credential}")));
            headers.extend(path.contains("v1/agents/").then_some(agent).into_iter().flatten());
            let asked = path.replace("/agents/connect", "/agents/connect?agent_id=vm-1");
            let body = json!({"agentId": "vm-1", "platform": "vm", "status": "online", "activeSessions": 0});
            let body = body.to_string();
            let answer = world.raw(&method, &asked, &headers, body.as_bytes());
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            answer.unwrap_or_else(|_| panic!("{method} {path} hangs")).refused(503, "E_UNAVAILABLE");
        }
    }
    outage.end().await;
    for credential in [&token, &key] {
        let back = async || world.call("GET", "/api/v1/users/me", credential, None).await.status == 200;
        eventually("the server serves again", back).await;
    }
}

#[tokio::test]
async fn a_request_keeps_the_plain_id_a_proxy_gave_it() {
    let world = World::new().await;
    let given = [("X-Request-Id", "proxy-0123456789".to_owned())];
    let answer = world.raw("GET", "/api/v1/sessions", &given, b"").await;
    assert_eq!(answer.header("x-request-id"), Some("proxy-0123456789"));
    let forged = [("X-Request-Id", "a b\tc<script>".to_owned())];
    let answer = world.raw("GET", "/healthz", &forged, b"").await;
    assert!(!answer.header("x-request-id").unwrap().contains('<'));
}

#[tokio::test]
async fn metrics_are_shown_to_this_machine_alone_unless_there_is_a_token() {
    let world = World::new().await;
    assert_eq!(world.call("GET", "/metrics", "", None).await.status, 200);
    let forwarded = [("X-Forwarded-For", "203.0.113.7".to_owned())];
    world.raw("GET", "/metrics", &forwarded, b"").await.refused(403, "E_FORBIDDEN");
    let world = World::with("[metrics]\ntoken = \"figures\"").await;
    world.call("GET", "/metrics", "", None).await.refused(401, "E_UNAUTHENTICATED");
    world.call("GET", "/metrics", "figurez", None).await.refused(401, "E_UNAUTHENTICATED");
    assert_eq!(world.call("GET", "/metrics", "figures", None).await.status, 200);
}
