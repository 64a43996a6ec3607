//! What operators do to agents, and how agents come in.

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_test_support::BOOTSTRAP_KEY;

use crate::support::World;

#[tokio::test]
async fn an_agent_registers_waits_is_approved_and_gets_its_key() {
    let world = World::new().await;
    let operator = world.operator().await;
    let bootstrap = ("X-Agent-API-Key", BOOTSTRAP_KEY.to_owned());
    let body = json!({"agentId": "vm-1", "platform": "vm", "capacity": {"maxSessions": 3}}).to_string();
    let register = async |headers: &[(&str, String)]| {
        world.raw("POST", "/api/v1/agents/register", headers, body.as_bytes()).await
    };
    let first = register(std::slice::from_ref(&bootstrap)).await;
    assert_eq!((first.status, &first.body["approvalStatus"]), (202, &json!("pending")), "{first:?}");
    let claim = first.body["claimToken"].as_str().unwrap().to_owned();
    register(std::slice::from_ref(&bootstrap)).await.refused(409, "E_AGENT_TAKEN");
    let claimed = [bootstrap.clone(), ("X-Agent-Claim", claim)];
    assert_eq!(register(&claimed).await.status, 202);
    let approved = world.call("POST", "/api/v1/admin/agents/vm-1/approve", &operator, Some(json!({}))).await;
    assert_eq!((approved.status, approved.body.get("apiKey")), (200, None));
    world
        .call("POST", "/api/v1/admin/agents/vm-1/reject", &operator, None)
        .await
        .refused(409, "E_WRONG_STATE");
    let keyed = register(&claimed).await;
    assert_eq!(keyed.body["apiKey"].as_str().unwrap().len(), 64);
    let list = world.call("GET", "/api/v1/admin/agents?approvalStatus=approved", &operator, None).await;
    assert_eq!((list.body["total"].as_i64(), &list.body["agents"][0]["agentId"]), (Some(1), &json!("vm-1")));
    let drained = world.call("POST", "/api/v1/admin/agents/vm-1/drain", &operator, None).await;
    assert_eq!(drained.status, 200, "{drained:?}");
    let rotated = world.call("POST", "/api/v1/admin/agents/vm-1/rotate-key", &operator, None).await;
    assert_ne!(rotated.body["apiKey"], keyed.body["apiKey"]);
}

#[tokio::test]
async fn a_rejected_agent_is_told_so() {
    let world = World::new().await;
    let operator = world.operator().await;
    let body = json!({"agentId": "vm-1", "platform": "vm"}).to_string();
    let mut headers = vec![("X-Agent-API-Key", BOOTSTRAP_KEY.to_owned())];
    let first = world.raw("POST", "/api/v1/agents/register", &headers, body.as_bytes()).await;
    headers.push(("X-Agent-Claim", first.body["claimToken"].as_str().unwrap().to_owned()));
    assert_eq!(world.call("POST", "/api/v1/admin/agents/vm-1/reject", &operator, None).await.status, 200);
    let again = world.raw("POST", "/api/v1/agents/register", &headers, body.as_bytes()).await;
    again.refused(403, "E_AGENT_REJECTED");
}

#[tokio::test]
async fn a_registration_names_every_bad_field() {
    let world = World::new().await;
    let headers = [("X-Agent-API-Key", BOOTSTRAP_KEY.to_owned())];
    let body = br#"{"agentId":"a","platform":"mainframe","region":"x"}"#;
    let answer = world.raw("POST", "/api/v1/agents/register", &headers, body).await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["agentId", "platform", "region"]);
    world.raw("POST", "/api/v1/agents/register", &[], body).await.refused(401, "E_UNAUTHENTICATED");
}

#[tokio::test]
async fn commands_are_shown_to_operators_with_their_times() {
    let world = World::new().await;
    let (operator, token) = (world.operator().await, world.member("acme", OrgRole::User).await);
    let _agent = world.agent("vm-1").await;
    let made = world.call("POST", "/api/v1/sessions", &token, Some(json!({"template": "shell"}))).await;
    let id = made.body["commandId"].as_str().unwrap().to_owned();
    let one = world.call("GET", &format!("/api/v1/admin/commands/{id}"), &operator, None).await;
    assert_eq!((one.status, &one.body["commandId"]), (200, &json!(id)));
    let all = world.call("GET", "/api/v1/admin/agents/vm-1/commands", &operator, None).await;
    assert_eq!((all.status, &all.body["commands"][0]["commandId"]), (200, &json!(id)));
    world.call("GET", "/api/v1/admin/commands/odd", &operator, None).await.refused(404, "E_NOT_FOUND");
    world
        .call("GET", "/api/v1/admin/agents/vm-2/commands?limit=0", &operator, None)
        .await
        .refused(404, "E_NOT_FOUND");
    assert_eq!(world.call("GET", "/api/v1/admin/quarantine", &operator, None).await.body["total"], 0);
}

#[tokio::test]
async fn operators_give_commands_and_decide_about_sessions_that_nobody_knows() {
    let world = World::new().await;
    let operator = world.operator().await;
    let _agent = world.agent("vm-1").await;
    let path = "/api/v1/admin/agents/vm-1/command";
    let queued = world.call("POST", path, &operator, Some(json!({"action": "stop_session"}))).await;
    assert_eq!((queued.status, &queued.body["agentId"]), (201, &json!("vm-1")), "{queued:?}");
    let bad = world.call("POST", path, &operator, Some(json!({"action": "dance", "payload": 7}))).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["action", "payload"]);
    let body = || Some(json!({"action": "dance"}));
    let elsewhere = "/api/v1/admin/agents/vm-2/command";
    world.call("POST", elsewhere, &operator, body()).await.refused(404, "E_NOT_FOUND");
    for stranger in ["one", "two"] {
        let insert = format!(
            "INSERT INTO quarantined_sessions SELECT id, '{stranger}', 'running', now(), now() FROM agents"
        );
        world.db.execute(&insert).await;
    }
    let decide = async |what: &str| {
        world.call("POST", &format!("/api/v1/admin/quarantine/vm-1/{what}"), &operator, None).await
    };
    let stopping = decide("one/stop").await;
    assert_eq!((stopping.status, &stopping.body["payload"]), (202, &json!({"sessionId": "one"})));
    assert_eq!(decide("two/forget").await.status, 204);
    decide("two/forget").await.refused(404, "E_NOT_FOUND");
    decide("%00/stop").await.refused(404, "E_NOT_FOUND");
}

#[tokio::test]
async fn nobody_but_operators_may_do_what_operators_do() {
    let world = World::new().await;
    let token = world.member("acme", OrgRole::Admin).await;
    world.call("GET", "/api/v1/admin/agents", &token, None).await.refused(403, "E_FORBIDDEN");
    let bad = Some(json!({"showKey": "odd"}));
    world.call("POST", "/api/v1/admin/agents/vm-1/approve", &token, bad).await.refused(403, "E_FORBIDDEN");
}

#[tokio::test]
async fn an_agent_is_drained_until_a_deadline_assigned_and_removed() {
    let world = World::new().await;
    let (operator, token) = (world.operator().await, world.member("acme", OrgRole::User).await);
    let _agent = world.agent("vm-1").await;
    let path = "/api/v1/admin/agents/vm-1";
    let drain = async |body: serde_json::Value| {
        world.call("POST", &format!("{path}/drain"), &operator, Some(body)).await
    };
    let bad = drain(json!({"deadline": "soon", "reason": ""})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["deadline", "reason"]);
    let past = drain(json!({"deadline": "2001-01-01T00:00:00Z"})).await;
    assert_eq!(past.refused(400, "E_INVALID").fields(), ["deadline"]);
    let drained = drain(json!({"deadline": "2h", "reason": "a new kernel"})).await;
    assert_eq!((drained.status, &drained.body["drain"]["reason"]), (200, &json!("a new kernel")));
    assert!(drained.body["drain"]["deadline"].is_string() && drained.body["status"] == "draining");
    let made = world.call("POST", "/api/v1/sessions", &token, Some(json!({"template": "shell"}))).await;
    let made = made.refused(503, "E_NO_AGENT");
    assert!(made.text.contains("vm-1 is drained by an operator"), "{made:?}");
    let undrained = world.call("POST", &format!("{path}/undrain"), &operator, None).await;
    assert_eq!((undrained.status, undrained.body.get("drain")), (200, None));

    let change = async |body: serde_json::Value| world.call("PATCH", path, &operator, Some(body)).await;
    assert_eq!(change(json!({"region": "x"})).await.refused(400, "E_INVALID").fields(), ["region"]);
    change(json!({"organization": "nobody"})).await.refused(404, "E_NOT_FOUND");
    let changed = change(json!({"organization": "acme", "region": "eu-west"})).await;
    assert_eq!((&changed.body["organization"], &changed.body["region"]), (&json!("acme"), &json!("eu-west")));
    let list = world.call("GET", "/api/v1/admin/agents?organization=acme", &operator, None).await;
    assert_eq!((&list.body["total"], &list.body["agents"][0]["organization"]), (&json!(1), &json!("acme")));
    // Whoever it does not serve is told nothing of it.
    let stranger = world.member("rival", OrgRole::User).await;
    let made = world.call("POST", "/api/v1/sessions", &stranger, Some(json!({"template": "shell"}))).await;
    assert!(!made.refused(503, "E_NO_AGENT").text.contains("vm-1"), "{made:?}");
    let made = world.call("POST", "/api/v1/sessions", &token, Some(json!({"template": "shell"}))).await;
    assert_eq!(made.status, 202, "{made:?}");

    let id = made.body["session"]["id"].as_str().unwrap();
    let all = world.call("GET", "/api/v1/admin/sessions?organization=acme&agent=vm-1", &operator, None).await;
    assert_eq!((&all.body["total"], &all.body["sessions"][0]["id"]), (&json!(1), &json!(id)));
    world
        .call("GET", "/api/v1/admin/sessions?state=odd&limit=0", &operator, None)
        .await
        .refused(400, "E_INVALID");
    world.call("DELETE", path, &operator, None).await.refused(409, "E_AGENT_BUSY");
    world.call("DELETE", &format!("{path}?force=odd"), &operator, None).await.refused(400, "E_INVALID");
    let stop = format!("/api/v1/admin/sessions/{id}/terminate");
    let ended = world.call("POST", &stop, &operator, Some(json!({"reason": "it mines coins"}))).await;
    assert_eq!((ended.status, &ended.body["state"]), (202, &json!("terminating")), "{ended:?}");
    let path_of_it = format!("/api/v1/sessions/{id}");
    let over = async || world.call("GET", &path_of_it, &token, None).await.body["state"] == "terminated";
    tidegate_test_support::eventually("it is over", over).await;
    assert_eq!(world.call("POST", &stop, &operator, None).await.status, 200);
    assert_eq!(world.call("DELETE", path, &operator, None).await.status, 204);
    world.call("DELETE", path, &operator, None).await.refused(404, "E_NOT_FOUND");
}
