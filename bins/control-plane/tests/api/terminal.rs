//! Who may open a stream, and from where.

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_test_support::eventually;

use crate::support::{Answer, World, upgrade};

/// A running session of a member, whose agent never dials.
async fn running(world: &World) -> (String, String) {
    let token = world.member("acme", OrgRole::User).await;
    let made = world.call("POST", "/api/v1/sessions", &token, Some(json!({"template": "shell"}))).await;
    let path = format!("/api/v1/sessions/{}", made.body["session"]["id"].as_str().unwrap());
    let state = async || world.call("GET", &path, &token, None).await.body["state"] == "running";
    eventually("it runs", state).await;
    (path, token)
}

async fn open(world: &World, path: &str, more: &[(&'static str, String)]) -> Answer {
    let headers = [upgrade(), more.to_vec()].concat();
    world.raw("GET", &format!("{path}/terminal"), &headers, b"").await
}

#[tokio::test]
async fn a_ticket_is_good_once_and_for_its_own_session() {
    let world = World::with("[hub]\ntunnel_dial_seconds = 0").await;
    let _agent = world.agent("vm-1").await;
    let (path, token) = running(&world).await;
    let (other, _) = running(&world).await;
    let body = Some(json!({"kind": "terminal", "mode": "view"}));
    let given = world.call("POST", &format!("{path}/connect"), &token, body).await;
    assert_eq!((given.status, &given.body["state"]), (200, &json!("running")), "{given:?}");
    assert!(given.body["url"].as_str().unwrap().starts_with("ws://127.0.0.1:"));
    let offer = format!("tidegate.v1, ticket.{}", given.body["ticket"].as_str().unwrap());
    let ticket = [("Sec-WebSocket-Protocol", offer)];
    open(&world, &other, &ticket).await.refused(401, "E_UNAUTHENTICATED");
    // Good, and then the agent, who does not dial, is what is missing.
    open(&world, &path, &ticket).await.refused(504, "E_AGENT_TIMEOUT");
    open(&world, &path, &ticket).await.refused(401, "E_UNAUTHENTICATED");
}

#[tokio::test]
async fn a_page_of_another_site_opens_nothing() {
    let world = World::with("[hub]\ntunnel_dial_seconds = 0").await;
    let _agent = world.agent("vm-1").await;
    let (path, token) = running(&world).await;
    let bearer = ("Authorization", format!("Bearer {token}"));
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let headers = [bearer.clone(), ("Origin", origin.to_owned())];
        open(&world, &path, &headers).await.refused(403, "E_ORIGIN");
    }
    let own = [bearer, ("Origin", world.handle.url())];
    open(&world, &path, &own).await.refused(504, "E_AGENT_TIMEOUT");
}

#[tokio::test]
async fn a_stream_needs_a_credential_a_running_session_and_its_agent() {
    let world = World::new().await;
    let agent = world.agent("vm-1").await;
    let (path, token) = running(&world).await;
    open(&world, &path, &[]).await.refused(401, "E_UNAUTHENTICATED");
    let bearer = [("Authorization", format!("Bearer {token}"))];
    let plain = world.raw("GET", &format!("{path}/terminal"), &bearer, b"").await;
    plain.refused(400, "E_NOT_A_WEBSOCKET");
    drop(agent.cut());
    eventually("the agent is gone", async || world.handle.hub().connected() == 0).await;
    open(&world, &path, &bearer).await.refused(503, "E_AGENT_OFFLINE");
    let logs = world.raw("GET", &format!("{path}/logs?after=x"), &bearer, b"").await;
    assert_eq!(logs.refused(400, "E_INVALID").fields(), ["after"]);
    world.raw("GET", &format!("{path}/logs"), &bearer, b"").await.refused(503, "E_AGENT_OFFLINE");
    assert_eq!(world.call("POST", &format!("{path}/terminate"), &token, None).await.status, 202);
    open(&world, &path, &bearer).await.refused(409, "E_WRONG_STATE");
}

#[tokio::test]
async fn what_is_no_stream_and_no_mode_are_bad_fields() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let (path, token) = running(&world).await;
    let body = Some(json!({"kind": "odd", "mode": "odd"}));
    let answer = world.call("POST", &format!("{path}/connect"), &token, body).await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["kind", "mode"]);
}
