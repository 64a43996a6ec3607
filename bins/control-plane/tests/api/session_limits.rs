//! Idle timeouts and longest durations over HTTP: by a clock that is moved by hand, with the server's own sweeps.

use chrono::TimeDelta;
use futures_util::SinkExt;
use serde_json::{Value, json};
use tidegate_control_plane::{Config, Server};
use tidegate_model::{OrgRole, SystemClock};
use tidegate_protocol::ToAgent;
use tidegate_test_support::{SocketAgent, SocketOptions, eventually, new_key_of};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::support::World;

/// A running session of a user, made from this.
async fn running(world: &World, token: &str, body: Value) -> String {
    let made = world.call("POST", "/api/v1/sessions", token, Some(body)).await;
    assert_eq!(made.status, 202, "{made:?}");
    let path = format!("/api/v1/sessions/{}", made.body["session"]["id"].as_str().unwrap());
    is(world, &path, token, "running").await;
    path
}

async fn is(world: &World, path: &str, token: &str, state: &str) {
    let there = async || world.call("GET", path, token, None).await.body["state"] == state;
    eventually(state, there).await;
}

async fn warned(world: &World, path: &str, token: &str) -> Value {
    let there = async || !world.call("GET", path, token, None).await.body["warning"].is_null();
    eventually("a warning", there).await;
    world.call("GET", path, token, None).await.body["warning"].clone()
}

fn later(world: &World, seconds: i64) {
    world.db.manual_clock().advance(TimeDelta::seconds(seconds));
}

#[tokio::test]
async fn an_idle_session_is_warned_hibernates_and_is_woken_by_connecting() {
    let world = World::by_hand("").await;
    let _agent = world.agent("vm-1").await;
    let token = world.member("acme", OrgRole::User).await;
    let path = running(&world, &token, json!({"template": "shell", "idleTimeout": "2m"})).await;
    later(&world, 60);
    let warning = warned(&world, &path, &token).await;
    assert_eq!(warning["action"], "hibernate", "{warning}");
    // Polling is no activity: the moment stays where it is.
    let shown = world.call("GET", &path, &token, None).await.body;
    assert_eq!((&shown["idleAt"], &shown["endsAt"]), (&warning["dueAt"], &Value::Null));
    later(&world, 90);
    is(&world, &path, &token, "hibernated").await;
    let asleep = world.call("GET", &path, &token, None).await.body;
    assert_eq!((&asleep["stateReason"], &asleep["idleAt"]), (&json!("idle for 2m"), &Value::Null));
    let body = Some(json!({"kind": "terminal", "mode": "view"}));
    let given = world.call("POST", &format!("{path}/connect"), &token, body).await;
    assert_eq!((given.status, &given.body["state"]), (200, &json!("waking")), "{given:?}");
    is(&world, &path, &token, "running").await;
    let reasons = world.call("GET", &format!("{path}/activity"), &token, None).await.body;
    assert_eq!((&reasons["total"], &reasons["activity"][0]["kind"]), (&json!(1), &json!("connect")));
}

#[tokio::test]
async fn a_heartbeat_keeps_a_session_awake() {
    let world = World::by_hand("").await;
    let _agent = world.agent("vm-1").await;
    let token = world.member("acme", OrgRole::User).await;
    let path = running(&world, &token, json!({"template": "shell", "idleTimeout": "1m"})).await;
    let mut last = Value::Null;
    for _ in 0..6 {
        later(&world, 29);
        let beat = world.call("POST", &format!("{path}/heartbeat"), &token, None).await;
        assert_eq!((beat.status, &beat.body["warning"]), (200, &Value::Null), "{beat:?}");
        assert_ne!(beat.body["idleAt"], last, "put off");
        last = beat.body["idleAt"].clone();
    }
    assert_eq!(world.call("GET", &path, &token, None).await.body["state"], "running");
    let reasons = world.call("GET", &format!("{path}/activity"), &token, None).await.body;
    assert_eq!(reasons["total"], 6);
}

#[tokio::test]
async fn a_session_ends_after_its_longest_duration_unless_it_is_extended_within_policy() {
    let world = World::by_hand("").await;
    let _agent = world.agent("vm-1").await;
    let admin = world.member("acme", OrgRole::Admin).await;
    let policy = "/api/v1/organizations/acme/session-policy";
    let body = json!({"maxSessionDuration": {"default": "6m", "maximum": "10m"}});
    let set = world.call("PUT", policy, &admin, Some(body)).await;
    assert_eq!(
        (set.status, &set.body["maxSessionDuration"]["effectiveMaximum"]),
        (200, &json!("10m")),
        "{set:?}"
    );
    let token = world.member("acme", OrgRole::User).await;
    world.call("PUT", policy, &token, Some(json!({}))).await.refused(403, "E_FORBIDDEN");
    assert_eq!(world.call("GET", policy, &token, None).await.body["maxSessionDuration"]["maximum"], "10m");
    let greedy = json!({"template": "shell", "maxSessionDuration": "11m"});
    let refused = world.call("POST", "/api/v1/sessions", &token, Some(greedy)).await;
    assert_eq!(refused.refused(400, "E_INVALID").fields(), ["maxSessionDuration"]);
    assert!(refused.text.contains("10m, which the organization allows"), "{refused:?}");
    let path = running(&world, &token, json!({"template": "shell"})).await;
    let extend = format!("{path}/extend");
    let more = world.call("POST", &extend, &token, Some(json!({"by": "5m"}))).await;
    assert_eq!(more.refused(400, "E_INVALID").fields(), ["by"]);
    assert!(more.text.contains("must not be more than 4m"), "{more:?}");
    assert_eq!(world.call("POST", &extend, &token, Some(json!({"by": "2m"}))).await.status, 200);
    let shown = world.call("GET", &format!("{path}/policy"), &token, None).await.body;
    assert_eq!(
        (&shown["extendedBy"], &shown["maxSessionDuration"]["source"]),
        (&json!("2m"), &json!("organization_default"))
    );
    assert_eq!(
        (&shown["maxSessionDuration"]["owner"], &shown["maxSessionDuration"]["bounds"][2]["value"]),
        (&json!("acme"), &json!("10m"))
    );
    later(&world, 300);
    let warning = warned(&world, &path, &token).await;
    assert_eq!(warning["action"], "terminate", "{warning}");
    later(&world, 180);
    is(&world, &path, &token, "terminated").await;
    let ended = world.call("GET", &path, &token, None).await.body;
    assert_eq!(ended["stateReason"], "its longest duration of 6m is over");
}

#[tokio::test]
async fn a_server_that_was_away_goes_on_where_it_was() {
    let world = World::by_hand("").await;
    let key = new_key_of(&world.services, "vm-1", 10).await;
    let connect = async |url: String| {
        let options = SocketOptions {
            url: url.replace("http", "ws"),
            handle: "vm-1".into(),
            key: key.clone(),
            hello: false,
        };
        SocketAgent::connect(options).await.unwrap()
    };
    let agent = connect(world.handle.url()).await;
    let token = world.member("acme", OrgRole::User).await;
    let path = running(&world, &token, json!({"template": "shell", "idleTimeout": "2m"})).await;
    later(&world, 61);
    warned(&world, &path, &token).await;
    drop(agent);
    let World { db, services, handle, data } = world;
    handle.stop().await.unwrap();
    db.manual_clock().advance(TimeDelta::seconds(90));
    let mut config = Config::from_parts("", &[]).unwrap();
    config.data_dir = Some(data.path().to_owned());
    config.listen.set_port(0);
    config.workers = Some(1);
    let handle = Server::start(&config, services.clone(), std::sync::Arc::new(SystemClock::new())).unwrap();
    let _agent = connect(handle.url()).await;
    let world = World { db, services, handle, data };
    is(&world, &path, &token, "hibernated").await;
    assert_eq!(world.call("GET", &path, &token, None).await.body["stateReason"], "idle for 2m");
}

#[tokio::test]
async fn what_is_typed_is_written_down_without_a_write_a_key() {
    let world = World::with("[service]\nactivity_seconds = 1").await;
    let key = new_key_of(&world.services, "vm-1", 10).await;
    let url = world.handle.url().replace("http", "ws");
    let options = SocketOptions { url: url.clone(), handle: "vm-1".into(), key: key.clone(), hello: true };
    let agent = SocketAgent::connect(options).await.unwrap();
    eventually("the agent is connected", async || world.handle.hub().connected() > 0).await;
    let owner = world.somebody("acme", OrgRole::User).await;
    let path = running(&world, &owner.token, json!({"template": "shell"})).await;
    let dial = async |path: String, header: &'static str, value: String| {
        let mut request = format!("{url}{path}").into_client_request().unwrap();
        request.headers_mut().insert(header, value.parse().unwrap());
        connect_async(request).await.unwrap().0
    };
    let (mut viewer, _tunnel) = tokio::join!(
        dial(format!("{path}/terminal"), "Authorization", format!("Bearer {}", owner.token)),
        async {
            let wanted = |message: &ToAgent| match message {
                ToAgent::TunnelOpen(open) => Some(serde_json::to_value(&open.tunnel_id).unwrap()),
                _ => None,
            };
            let id = agent.told("a tunnel is asked for", wanted).await;
            let path = format!("/api/v1/agents/tunnels/{}?agent_id=vm-1", id.as_str().unwrap());
            dial(path, "X-Agent-API-Key", key.expose().clone()).await
        }
    );
    for _ in 0..200 {
        viewer.send(Message::binary("k")).await.unwrap();
    }
    let kinds = async || -> Vec<String> {
        let reasons = world.call("GET", &format!("{path}/activity"), &owner.token, None).await.body;
        let all = reasons["activity"].as_array().unwrap().iter();
        all.map(|reason| format!("{} {}", reason["kind"].as_str().unwrap(), reason["user"].as_str().unwrap()))
            .collect()
    };
    let typed = format!("input {}", owner.name);
    eventually("it is written down", async || kinds().await.contains(&typed)).await;
    let written = kinds().await.len();
    assert!(written <= 4, "{written} lines for 200 keys");
}

#[tokio::test]
async fn another_organizations_limits_and_activity_are_not_there() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let owner = world.somebody("acme", OrgRole::User).await;
    let path = running(&world, &owner.token, json!({"template": "shell"})).await;
    let (rival, member) =
        (world.member("rival", OrgRole::Admin).await, world.member("acme", OrgRole::User).await);
    for token in [&rival, &member] {
        for (method, what, body) in [
            ("GET", "activity", None),
            ("GET", "policy", None),
            ("POST", "heartbeat", None),
            ("POST", "extend", Some(json!({"by": "30m"}))),
            ("GET", "shares", None),
            ("POST", "shares", Some(json!({"username": owner.name}))),
        ] {
            let answer = world.call(method, &format!("{path}/{what}"), token, body).await;
            answer.refused(404, "E_NOT_FOUND");
        }
    }
    let bad =
        world.call("POST", &format!("{path}/extend"), &owner.token, Some(json!({"by": "0", "odd": 1}))).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["by", "odd"]);
}
