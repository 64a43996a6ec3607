//! Sessions over HTTP: asked for, looked at, changed, refused.

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_test_support::eventually;

use crate::support::World;

#[tokio::test]
async fn a_session_is_asked_for_runs_and_ends() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let token = world.member("acme", OrgRole::User).await;
    let made = world.call("POST", "/api/v1/sessions", &token, Some(json!({"template": "shell"}))).await;
    assert_eq!(made.status, 202, "{made:?}");
    assert!(made.body["commandId"].as_str().unwrap().starts_with("cmd-"));
    let path = format!("/api/v1/sessions/{}", made.body["session"]["id"].as_str().unwrap());
    let state = async || world.call("GET", &path, &token, None).await.body["state"].clone();
    eventually("it runs", async || state().await == "running").await;
    let listed = world.call("GET", "/api/v1/sessions?state=running", &token, None).await;
    assert_eq!(
        (listed.body["total"].as_i64(), listed.body["sessions"].as_array().unwrap().len()),
        (Some(1), 1)
    );
    assert!(listed.body["nextCursor"].is_null());
    let tagged = world.call("PATCH", &format!("{path}/tags"), &token, Some(json!({"tags": ["a"]}))).await;
    assert_eq!((tagged.status, &tagged.body["tags"]), (200, &json!(["a"])));
    assert_eq!(world.call("POST", &format!("{path}/terminate"), &token, None).await.status, 202);
    eventually("it ended", async || state().await == "terminated").await;
    assert_eq!(world.call("DELETE", &path, &token, None).await.status, 200, "a repeat of a done thing");
    let history = world.call("GET", &format!("{path}/history"), &token, None).await;
    assert!(history.body["total"].as_i64().unwrap() >= 4, "{history:?}");
    world.call("PUT", &format!("{path}/wake"), &token, None).await.refused(409, "E_WRONG_STATE");
    world.call("PUT", &format!("{path}/hibernate"), &token, None).await.refused(409, "E_WRONG_STATE");
    let body = Some(json!({"kind": "terminal"}));
    world.call("POST", &format!("{path}/connect"), &token, body).await.refused(409, "E_WRONG_STATE");
}

#[tokio::test]
async fn a_repeat_with_the_same_key_gets_the_first_answer() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let token = world.member("acme", OrgRole::User).await;
    let headers = [("Authorization", format!("Bearer {token}")), ("Idempotency-Key", "once".to_owned())];
    let body = br#"{"template":"shell"}"#;
    let first = world.raw("POST", "/api/v1/sessions", &headers, body).await;
    let again = world.raw("POST", "/api/v1/sessions", &headers, body).await;
    assert_eq!((first.status, again.status), (202, 202), "{first:?}");
    assert_eq!(first.body, again.body);
    let other =
        world.raw("POST", "/api/v1/sessions", &headers, br#"{"template":"shell","tags":["x"]}"#).await;
    other.refused(409, "E_IDEMPOTENCY_MISMATCH");
    let list = world.call("GET", "/api/v1/sessions", &token, None).await;
    assert_eq!(list.body["total"], 1);
}

#[tokio::test]
async fn a_refusal_names_every_bad_field() {
    let world = World::new().await;
    let token = world.member("acme", OrgRole::User).await;
    let body = json!({"template": "command", "name": "", "resources": {"cpu": "1m"}, "idleTimeout": "5s", "tags": [""],
        "region": "x", "color": "red", "environment": {"1": "x"}});
    let answer = world.call("POST", "/api/v1/sessions", &token, Some(body)).await;
    let expected =
        ["color", "command", "environment.1", "idleTimeout", "name", "region", "resources.cpu", "tags"];
    assert_eq!(answer.refused(400, "E_INVALID").fields(), expected);
    let answer = world.call("GET", "/api/v1/sessions?limit=101&state=odd&colour=red", &token, None).await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["colour", "limit", "state"]);
    let answer = world.call("GET", "/api/v1/sessions?cursor=odd", &token, None).await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["cursor"]);
}

#[tokio::test]
async fn without_room_the_reason_of_each_agent_is_named() {
    let world = World::new().await;
    let token = world.member("acme", OrgRole::User).await;
    let body = || Some(json!({"template": "shell"}));
    world.call("POST", "/api/v1/sessions", &token, body()).await.refused(503, "E_NO_AGENT");
    let _agent = world.agent("vm-1").await;
    for _ in 0..10 {
        assert_eq!(world.call("POST", "/api/v1/sessions", &token, body()).await.status, 202);
    }
    let answer = world.call("POST", "/api/v1/sessions", &token, body()).await;
    assert_eq!(answer.refused(503, "E_NO_AGENT").fields(), ["vm-1"]);
    let unknown = Some(json!({"template": "nonesuch"}));
    world.call("POST", "/api/v1/sessions", &token, unknown).await.refused(404, "E_NOT_FOUND");
}

#[tokio::test]
async fn a_viewer_starts_nothing() {
    let world = World::new().await;
    let token = world.member("acme", OrgRole::Viewer).await;
    let body = Some(json!({"template": "shell"}));
    world.call("POST", "/api/v1/sessions", &token, body).await.refused(403, "E_FORBIDDEN");
}

#[tokio::test]
async fn a_login_is_renewed_once_per_token_and_ends_with_logout() {
    let world = World::new().await;
    drop(world.member("acme", OrgRole::User).await);
    let user = world.db.user_in("acme", OrgRole::User).await;
    let body = json!({"username": user.username, "password": user.password.expose()});
    let login = world.call("POST", "/api/v1/auth/login", "", Some(body)).await;
    assert_eq!(login.status, 200, "{login:?}");
    assert_eq!(login.body["user"]["username"], user.username.as_str());
    let refresh = json!({"refreshToken": login.body["refreshToken"]});
    let renewed = world.call("POST", "/api/v1/auth/refresh", "", Some(refresh)).await;
    let token = renewed.body["token"].as_str().unwrap();
    assert_eq!(world.call("GET", "/api/v1/users/me", token, None).await.status, 200);
    assert_eq!(world.call("POST", "/api/v1/auth/logout", token, None).await.status, 204);
    world.call("GET", "/api/v1/users/me", token, None).await.refused(401, "E_UNAUTHENTICATED");
    let wrong = json!({"username": user.username, "password": "not the password"});
    world.call("POST", "/api/v1/auth/login", "", Some(wrong)).await.refused(401, "E_INVALID_CREDENTIALS");
}

#[tokio::test]
async fn a_session_of_an_agent_that_is_away_is_ended_by_force() {
    let world = World::new().await;
    let agent = world.agent("vm-1").await;
    let token = world.member("acme", OrgRole::User).await;
    let made = world.call("POST", "/api/v1/sessions", &token, Some(json!({"template": "shell"}))).await;
    let path = format!("/api/v1/sessions/{}", made.body["session"]["id"].as_str().unwrap());
    let running = async || world.call("GET", &path, &token, None).await.body["state"] == "running";
    eventually("it runs", running).await;
    drop(agent.cut());
    world.db.execute("UPDATE agents SET status = 'offline'").await;
    let odd = world.call("POST", &format!("{path}/terminate?force=perhaps"), &token, None).await;
    assert_eq!(odd.refused(400, "E_INVALID").fields(), ["force"]);
    let plain = world.call("POST", &format!("{path}/terminate?force=false"), &token, None).await;
    assert_eq!((plain.status, &plain.body["session"]["state"]), (202, &json!("terminating")));
    let forced = world.call("POST", &format!("{path}/terminate?force=true"), &token, None).await;
    assert_eq!((forced.status, &forced.body["session"]["state"]), (200, &json!("terminated")), "{forced:?}");
}
