//! Too many attempts are 429, and the answer says when to try again.

use serde_json::json;
use tidegate_model::OrgRole;
use tidegate_service::Options;
use tidegate_test_support::{BOOTSTRAP_KEY, TestDb};

use crate::support::{Answer, World};

fn says_when(answer: &Answer) {
    answer.refused(429, "E_RATE_LIMITED");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{answer:?}");
}

async fn register(world: &World, handle: &str) -> Answer {
    let key = [("X-Agent-API-Key", BOOTSTRAP_KEY.to_owned())];
    let body = json!({"agentId": handle, "platform": "vm"}).to_string();
    world.raw("POST", "/api/v1/agents/register", &key, body.as_bytes()).await
}

#[tokio::test]
async fn too_many_wrong_passwords_are_429_and_say_when_to_try_again() {
    let options = Options { failures_per_source: 3, ..TestDb::options() };
    let world = World::with_options("", options).await;
    let wrong = || Some(json!({"username": "nobody", "password": "not this one"}));
    for _ in 0..3 {
        let answer = world.call("POST", "/api/v1/auth/login", "", wrong()).await;
        answer.refused(401, "E_INVALID_CREDENTIALS");
    }
    says_when(&world.call("POST", "/api/v1/auth/login", "", wrong()).await);
}

#[tokio::test]
async fn one_source_registers_so_many_agents_a_minute() {
    let options = Options { registrations_per_source: 3, ..TestDb::options() };
    let world = World::with_options("", options).await;
    for number in 0..3 {
        assert_eq!(register(&world, &format!("vm-{number}")).await.status, 202);
    }
    says_when(&register(&world, "vm-3").await);
    assert_eq!(world.db.look::<i64>("SELECT count(*) FROM agents").await, 3);
}

#[tokio::test]
async fn so_many_agents_wait_for_an_operator_and_no_more_until_one_is_decided_about() {
    let options = Options { pending_agents: 2, ..TestDb::options() };
    let world = World::with_options("", options).await;
    drop(world.member("acme", OrgRole::User).await);
    let all = futures_util::future::join_all(
        ["vm-0", "vm-1", "vm-2", "vm-3"].map(|handle| register(&world, handle)),
    )
    .await;
    let (waiting, refused): (Vec<_>, Vec<_>) = all.iter().partition(|answer| answer.status == 202);
    assert_eq!(waiting.len(), 2, "{all:?}");
    refused.into_iter().for_each(says_when);
    let handle: String = world.db.look("SELECT min(agent_id) FROM agents").await;
    let reject = format!("/api/v1/admin/agents/{handle}/reject");
    let rejected = world.call("POST", &reject, &world.operator().await, Some(json!({}))).await;
    assert_eq!(rejected.status, 200, "{rejected:?}");
    assert_eq!(register(&world, "vm-9").await.status, 202);
}
