//! Who may open the control connection and tunnels, and who gets nothing (contract §1).

use serde_json::json;
use tidegate_model::ApprovalStatus;
use tidegate_test_support::{BOOTSTRAP_KEY, new_key_of};

use crate::support::{Answer, World, upgrade};

async fn connect(world: &World, query: &str, key: Option<&str>) -> Answer {
    let mut headers = upgrade();
    headers.extend(key.map(|key| ("X-Agent-API-Key", key.to_owned())));
    world.raw("GET", &format!("/api/v1/agents/connect{query}"), &headers, b"").await
}

#[tokio::test]
async fn a_missing_or_malformed_key_is_401() {
    let world = World::new().await;
    connect(&world, "?agent_id=vm-1", None).await.refused(401, "E_UNAUTHENTICATED");
    let short = connect(&world, "?agent_id=vm-1", Some("abc")).await;
    assert_eq!(
        short.refused(401, "E_UNAUTHENTICATED").body["error"]["message"],
        "API key must be 64 characters (got 3)"
    );
    let upper = "A".repeat(64);
    connect(&world, "?agent_id=vm-1", Some(&upper)).await.refused(401, "E_UNAUTHENTICATED");
}

#[tokio::test]
async fn every_wrong_pair_of_agent_and_key_looks_the_same() {
    let world = World::new().await;
    let key = new_key_of(&world.services, "vm-1", 1).await;
    let other = new_key_of(&world.services, "vm-2", 1).await;
    let said = async |query: &str, key: &str| {
        let answer = connect(&world, query, Some(key)).await;
        answer.refused(401, "E_UNAUTHENTICATED").body["error"]["message"].clone()
    };
    let foreign = said("?agent_id=vm-1", other.expose()).await;
    assert_eq!(said("?agent_id=vm-9", key.expose()).await, foreign);
    assert_eq!(said("?agent_id=a%20b", key.expose()).await, foreign);
    assert_eq!(said("", key.expose()).await, foreign);
    assert_eq!(said("?agent_id=vm-1", BOOTSTRAP_KEY).await, foreign);
}

#[tokio::test]
async fn an_agent_that_is_not_approved_gets_nothing_even_with_its_own_key() {
    let world = World::new().await;
    let key = new_key_of(&world.services, "vm-1", 1).await;
    for approval in [ApprovalStatus::Pending, ApprovalStatus::Rejected] {
        world.db.execute(&format!("UPDATE agents SET approval_status = '{approval}'")).await;
        connect(&world, "?agent_id=vm-1", Some(key.expose())).await.refused(403, "E_FORBIDDEN");
        let headers = [("X-Agent-API-Key", key.expose().clone())];
        let body = br#"{"status":"online","activeSessions":0}"#;
        let beat = world.raw("POST", "/api/v1/agents/vm-1/heartbeat", &headers, body).await;
        beat.refused(403, "E_FORBIDDEN");
    }
    assert_eq!(world.handle.hub().connected(), 0);
}

#[tokio::test]
async fn a_heartbeat_must_name_the_keys_own_agent_everywhere() {
    let world = World::new().await;
    let key = new_key_of(&world.services, "vm-1", 1).await;
    drop(new_key_of(&world.services, "vm-2", 1).await);
    let headers = [("X-Agent-API-Key", key.expose().clone())];
    let beat = async |path: &str, body: serde_json::Value| {
        let path = format!("/api/v1/agents/{path}/heartbeat");
        world.raw("POST", &path, &headers, body.to_string().as_bytes()).await
    };
    let body = json!({"status": "online", "activeSessions": 0});
    assert_eq!(beat("vm-1", body.clone()).await.status, 200);
    beat("vm-2", body).await.refused(401, "E_UNAUTHENTICATED");
    let named = json!({"status": "online", "activeSessions": 0, "agentId": "vm-2"});
    beat("vm-1", named).await.refused(403, "E_FORBIDDEN");
    let bad = beat("vm-1", json!({"status": "odd", "activeSessions": -1})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["activeSessions", "status"]);
}

#[tokio::test]
async fn the_right_key_opens_a_websocket_and_nothing_else() {
    let world = World::new().await;
    let key = new_key_of(&world.services, "vm-1", 1).await;
    let headers = [("X-Agent-API-Key", key.expose().clone())];
    let plain = world.raw("GET", "/api/v1/agents/connect?agent_id=vm-1", &headers, b"").await;
    plain.refused(400, "E_NOT_A_WEBSOCKET");
    let agent = world.agent("vm-7").await;
    agent.told("welcome", |told| matches!(told, tidegate_protocol::ToAgent::Welcome(_)).then_some(())).await;
}

#[tokio::test]
async fn a_tunnel_nobody_asked_for_is_not_there() {
    let world = World::new().await;
    let key = new_key_of(&world.services, "vm-1", 1).await;
    let mut headers = upgrade();
    let path = format!("/api/v1/agents/tunnels/{}", "0".repeat(32));
    world.raw("GET", &path, &headers, b"").await.refused(401, "E_UNAUTHENTICATED");
    headers.push(("X-Agent-API-Key", "0".repeat(64)));
    world.raw("GET", &path, &headers, b"").await.refused(401, "E_UNAUTHENTICATED");
    headers.pop();
    // Its own key says who dials, with or without the name; that there is such a tunnel it does not say.
    headers.push(("X-Agent-API-Key", key.expose().clone()));
    world.raw("GET", &path, &headers, b"").await.refused(404, "E_NOT_FOUND");
    let named = format!("{path}?agent_id=vm-1");
    world.raw("GET", &named, &headers, b"").await.refused(404, "E_NOT_FOUND");
}
