//! Device-code login over HTTP, in RFC 8628's own words, and the bearer tokens that come of it.

use serde_json::{Value, json};
use tidegate_model::OrgRole;
use tidegate_test_support::TestUser;

use crate::support::{Answer, World};

const CODE: &str = "/oauth/device/code";
const TOKEN: &str = "/oauth/device/token";
const FORM: &str = "application/x-www-form-urlencoded";

fn text(answer: &Answer, name: &str) -> String {
    answer.body[name].as_str().unwrap_or_else(|| panic!("{name}: {answer:?}")).to_owned()
}

async fn form(world: &World, path: &str, body: &str) -> Answer {
    world.raw("POST", path, &[("Content-Type", FORM.to_owned())], body.as_bytes()).await
}

/// Lets a device in and gives its token.
async fn token(world: &World, user: &TestUser) -> String {
    let codes = world.call("POST", CODE, "", Some(json!({"client_name": "laptop"}))).await;
    let (browsers, devices) = (&world.services.browsers, &world.services.devices);
    let login = browsers.login(user.login(), None).await.unwrap();
    let caller = browsers.authenticate(login.cookie.expose(), None).await.unwrap();
    let org = caller.org().unwrap().org_id();
    devices.approve_device_code(&caller, &text(&codes, "user_code"), org, None).await.unwrap();
    let body = json!({"device_code": text(&codes, "device_code")});
    let got = world.call("POST", TOKEN, "", Some(body)).await;
    assert_eq!((got.status, &got.body["token_type"]), (200, &json!("Bearer")), "{got:?}");
    assert_eq!((&got.body["account_id"], &got.body["expires_in"]), (&json!(org), &json!(90 * 86_400)));
    assert_eq!(got.header("cache-control"), Some("no-store"));
    text(&got, "access_token")
}

async fn user(world: &World, org: &str) -> TestUser {
    drop(world.services.operators.create_organization(&tidegate_service::Operator::console(), org).await);
    world.db.user_in(org, OrgRole::User).await
}

#[tokio::test]
async fn a_device_gets_a_code_pair_that_the_rfc_describes() {
    let world = World::new().await;
    let own = world.handle.url();
    for answer in [
        world.call("POST", CODE, "", None).await,
        world.call("POST", CODE, "", Some(json!({"client_name": "cli"}))).await,
        form(&world, CODE, "client_name=cli&scope=unknown&client_id=").await,
    ] {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!((&answer.body["interval"], &answer.body["expires_in"]), (&json!(5), &json!(600)));
        let code = text(&answer, "user_code");
        assert!(code.len() == 9 && &code[4..5] == "-", "{code}");
        assert_eq!(text(&answer, "verification_uri"), format!("{own}/oauth/device/verify"));
        let complete = format!("{own}/oauth/device/verify?user_code={code}");
        assert_eq!(text(&answer, "verification_uri_complete"), complete);
        assert!(text(&answer, "device_code").len() >= 43);
    }
}

#[tokio::test]
async fn a_bad_request_for_codes_is_refused() {
    let world = World::new().await;
    let long = "x".repeat(101);
    for bad in [json!({"client_name": long}), json!({"client_name": 1}), json!([])] {
        let answer = world.call("POST", CODE, "", Some(bad.clone())).await;
        answer.refused(400, "E_INVALID");
    }
    form(&world, CODE, "client_name=a&client_name=b").await.refused(400, "E_INVALID");
    form(&world, CODE, "client_name=%ff%fe\u{0}").await;
    for path in [CODE, TOKEN] {
        let answer = world.call("GET", path, "", None).await;
        answer.refused(405, "E_METHOD_NOT_ALLOWED");
        let large = format!("client_name={}", "x".repeat(20_000));
        form(&world, path, &large).await.refused(413, "E_TOO_LARGE");
    }
}

#[tokio::test]
async fn a_poll_hears_the_rfcs_words() {
    let world = World::new().await;
    let codes = world.call("POST", CODE, "", None).await;
    let code = text(&codes, "device_code");
    let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
    for (body, word) in [
        (format!("device_code={code}&grant_type={grant}"), "authorization_pending"),
        (format!("device_code={code}"), "slow_down"),
        (format!("device_code={code}&grant_type=password"), "unsupported_grant_type"),
        ("device_code=unknown".to_owned(), "invalid_grant"),
        ("device_code=".to_owned(), "invalid_request"),
        (String::new(), "invalid_request"),
        ("device_code=a&device_code=b".to_owned(), "invalid_request"),
        ("device_code=%00".to_owned(), "invalid_grant"),
    ] {
        let answer = form(&world, TOKEN, &body).await;
        assert_eq!((answer.status, &answer.body["error"]), (400, &json!(word)), "{body}: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{body}");
    }
    for body in [json!({"device_code": 5}), json!({}), json!({"device_code": null})] {
        let answer = world.call("POST", TOKEN, "", Some(body)).await;
        assert_eq!((answer.status, &answer.body["error"]), (400, &json!("invalid_request")), "{answer:?}");
    }
    let odd = world.raw("POST", TOKEN, &[], b"{").await;
    assert_eq!((odd.status, &odd.body["error"]), (400, &json!("invalid_request")));
    world.db.execute("UPDATE device_codes SET expires_at = now() - interval '1 second'").await;
    let late = form(&world, TOKEN, &format!("device_code={code}")).await;
    assert_eq!((late.status, &late.body["error"]), (400, &json!("expired_token")), "{late:?}");
    let outage = world.db.outage().await;
    form(&world, TOKEN, &format!("device_code={code}")).await.refused(503, "E_UNAVAILABLE");
    world.call("POST", CODE, "", None).await.refused(503, "E_UNAVAILABLE");
    outage.end().await;
}

#[tokio::test]
async fn an_open_connection_lets_no_device_in() {
    let world = World::new().await;
    let body = br#"{"client_name": "cli", "device_code": "unknown"}"#;
    for headers in [[("Host", "tidegate.example".to_owned())], [("X-Forwarded-For", "192.0.2.1".to_owned())]]
    {
        for path in [CODE, TOKEN] {
            let refused = world.raw("POST", path, &headers, body).await;
            assert_eq!(
                (refused.status, &refused.body["error"]),
                (400, &json!("invalid_request")),
                "{refused:?}"
            );
            assert!(text(&refused, "error_description").contains("https"), "{refused:?}");
        }
    }
    assert_eq!(world.db.look::<i64>("SELECT count(*) FROM device_codes").await, 0);
    let world = World::with("public_url = \"https://tidegate.example\"").await;
    let host = [("Host", "tidegate.example".to_owned())];
    assert_eq!(world.raw("POST", CODE, &host, body).await.status, 200);
}

#[tokio::test]
async fn a_token_opens_what_a_login_opens_until_it_is_revoked() {
    let world = World::new().await;
    let ada = user(&world, "acme").await;
    let token = token(&world, &ada).await;
    assert_eq!(world.call("GET", "/api/v1/sessions", &token, None).await.status, 200);
    let header = [("X-API-Key", token.clone())];
    assert_eq!(world.raw("GET", "/api/v1/sessions", &header, b"").await.status, 200);
    let me = world.call("GET", "/api/v1/users/me", &token, None).await;
    assert_eq!(me.body["username"], json!(ada.username));
    let listed = world.call("GET", "/api/v1/auth/tokens", &token, None).await;
    assert_eq!((listed.status, &listed.body["total"]), (200, &json!(1)), "{listed:?}");
    let row = &listed.body["tokens"][0];
    assert_eq!((&row["clientName"], &row["prefix"]), (&json!("laptop"), &json!(token[10..18])));
    assert!(!listed.body.to_string().contains(&token[18..]));
    let path = format!("/api/v1/auth/tokens/{}", row["id"].as_str().unwrap());
    let stranger = world.member("acme", OrgRole::Admin).await;
    world.call("DELETE", &path, &stranger, None).await.refused(404, "E_NOT_FOUND");
    assert_eq!(world.call("GET", "/api/v1/auth/tokens", &stranger, None).await.body["total"], 0);
    let own = world.token(&ada).await;
    for _ in 0..2 {
        let revoked = world.call("DELETE", &path, &own, None).await;
        assert_eq!(revoked.status, 200, "{revoked:?}");
        assert!(revoked.body["token"]["revokedAt"].is_string());
    }
    world.call("GET", "/api/v1/sessions", &token, None).await.refused(401, "E_UNAUTHENTICATED");
    let wrong = format!("ppz_oauth_{}", "0".repeat(64));
    world.call("GET", "/api/v1/sessions", &wrong, None).await.refused(401, "E_UNAUTHENTICATED");
    world.call("GET", "/api/v1/sessions", "ppz_oauth_", None).await.refused(401, "E_UNAUTHENTICATED");
}

#[tokio::test]
async fn a_devices_logout_revokes_its_token() {
    let world = World::new().await;
    let ada = user(&world, "acme").await;
    let (one, two) = (token(&world, &ada).await, token(&world, &ada).await);
    assert_eq!(world.call("POST", "/api/v1/auth/logout", &one, None).await.status, 204);
    world.call("GET", "/api/v1/users/me", &one, None).await.refused(401, "E_UNAUTHENTICATED");
    assert_eq!(world.call("GET", "/api/v1/users/me", &two, None).await.status, 200);
}

#[tokio::test]
async fn sessions_tickets_and_repeats_work_with_a_token() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let ada = user(&world, "acme").await;
    let token = token(&world, &ada).await;
    let headers = [("Authorization", format!("Bearer {token}")), ("Idempotency-Key", "once".to_owned())];
    let create = async || world.raw("POST", "/api/v1/sessions", &headers, br#"{"template":"shell"}"#).await;
    let (first, second) = (create().await, create().await);
    assert_eq!((first.status, second.status), (202, 202), "{first:?}");
    assert_eq!(first.body["session"]["id"], second.body["session"]["id"]);
    let path = format!("/api/v1/sessions/{}/connect", first.body["session"]["id"].as_str().unwrap());
    let body = json!({"kind": "terminal", "mode": "control"});
    let ticket = world.call("POST", &path, &token, Some(body)).await;
    assert_eq!(ticket.status, 200, "{ticket:?}");
    let stored: String = world.db.look("SELECT credential FROM stream_tickets").await;
    assert!(stored.starts_with("token:"), "{stored}");
    assert_eq!(world.call("POST", "/api/v1/auth/logout", &token, None).await.status, 204);
    let sql = "SELECT credential FROM audit_log WHERE action = 'token.revoke'";
    assert_eq!(world.db.look::<String>(sql).await, stored, "with what it was done");
}

#[tokio::test]
async fn an_api_key_neither_sees_nor_ends_tokens() {
    let world = World::new().await;
    let admin = world.member("acme", OrgRole::Admin).await;
    let made =
        world.call("POST", "/api/v1/organizations/acme/keys", &admin, Some(json!({"label": "ci"}))).await;
    let key = made.body["plaintext"].as_str().unwrap();
    world.call("GET", "/api/v1/auth/tokens", key, None).await.refused(403, "E_FORBIDDEN");
    let path = format!("/api/v1/auth/tokens/{}", "0".repeat(32));
    world.call("DELETE", &path, key, None).await.refused(403, "E_FORBIDDEN");
    let bad = world.call("GET", "/api/v1/auth/tokens?limit=0&cursor=!", &admin, None).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["limit"]);
    assert_eq!(made.body["secretShown"], Value::Bool(false));
}
