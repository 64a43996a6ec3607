//! Rights that are less than they seem: a manager's over other people's terminals, an old key's over anything.

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_service::Operator;
use tidegate_test_support::{eventually, new_key_of};

use crate::support::{World, upgrade};

#[tokio::test]
async fn managers_open_no_terminal_of_another_member() {
    let world = World::with("[hub]\ntunnel_dial_seconds = 0").await;
    let _agent = world.agent("vm-1").await;
    let owner = world.member("acme", OrgRole::User).await;
    let made = world.call("POST", "/api/v1/sessions", &owner, Some(json!({"template": "shell"}))).await;
    let path = format!("/api/v1/sessions/{}", made.body["session"]["id"].as_str().unwrap());
    let state = async || world.call("GET", &path, &owner, None).await.body["state"] == "running";
    eventually("it runs", state).await;
    for role in [OrgRole::Admin, OrgRole::Maintainer] {
        let manager = world.member("acme", role).await;
        assert_eq!(world.call("GET", &path, &manager, None).await.status, 200, "{role:?} sees the session");
        for mode in ["view", "control"] {
            let body = Some(json!({"kind": "terminal", "mode": mode}));
            let ticket = world.call("POST", &format!("{path}/connect"), &manager, body).await;
            ticket.refused(403, "E_FORBIDDEN");
            let mut headers = upgrade();
            headers.push(("Authorization", format!("Bearer {manager}")));
            let opened = world.raw("GET", &format!("{path}/terminal?mode={mode}"), &headers, b"").await;
            opened.refused(403, "E_FORBIDDEN");
        }
    }
    // Nothing but the agent, who does not dial, keeps the owner out.
    let mut headers = upgrade();
    headers.push(("Authorization", format!("Bearer {owner}")));
    let opened = world.raw("GET", &format!("{path}/terminal"), &headers, b"").await;
    opened.refused(504, "E_AGENT_TIMEOUT");
}

#[tokio::test]
async fn a_rotated_key_opens_neither_a_connection_nor_a_tunnel() {
    let world = World::new().await;
    let old = new_key_of(&world.services, "vm-1", 1).await;
    let doors = [
        "/api/v1/agents/connect?agent_id=vm-1".to_owned(),
        format!("/api/v1/agents/tunnels/{}", "0".repeat(32)),
        format!("/api/v1/agents/tunnels/{}?agent_id=vm-1", "0".repeat(32)),
    ];
    let knock = async |path: &str, key: &str| {
        let mut headers = upgrade();
        headers.push(("X-Agent-API-Key", key.to_owned()));
        world.raw("GET", path, &headers, b"").await
    };
    let statuses = async |key: &str| {
        let mut statuses = Vec::new();
        for door in &doors {
            statuses.push(knock(door, key).await.status);
        }
        statuses
    };
    // Proved, and only then told that there is no such tunnel.
    assert_eq!(statuses(old.expose()).await, [101, 404, 404]);
    let new =
        world.services.agents.rotate_key(&Operator::console(), &"vm-1".parse().unwrap(), 0).await.unwrap().0;
    for door in &doors {
        knock(door, old.expose()).await.refused(401, "E_UNAUTHENTICATED");
    }
    assert_eq!(statuses(new.expose()).await, [101, 404, 404]);
}
