//! Connections that the control plane ends.

use tidegate_hub::CloseReason;
use tidegate_model::AgentStatus;
use tidegate_service::Operator;
use tidegate_test_support::{DEADLINE, TestDb, eventually};
use tokio::time::timeout;

use crate::stand::Stand;

async fn status(stand: &Stand) -> AgentStatus {
    let agents = &stand.test.services().agents;
    agents.get(&Operator::console(), &"vm-1".parse().unwrap()).await.unwrap().status
}

#[tokio::test]
async fn a_shutdown_closes_every_connection_and_writes_what_was_said() {
    let stand = Stand::new().await;
    let agent = stand.agent("vm-1").await;
    let mut wire = stand.connect(&agent).await;
    let session = stand.ask().await;
    let command = wire.command().await;
    wire.carry_out(&command).await;
    wire.settle().await;
    stand.shutdown.cancel();
    assert_eq!(wire.end().await, (CloseReason::Shutdown, Some(1012)));
    // Whoever comes late is told the same.
    assert_eq!(stand.dial(&agent).end().await, (CloseReason::Shutdown, Some(1012)));
    assert_eq!(stand.state(&session).await, "running");
    let (hub, test) = (stand.hub.clone(), &stand.test);
    timeout(DEADLINE, stand.running).await.expect("the hub ends").unwrap().unwrap();
    assert_eq!(hub.connected(), 0);
    assert_eq!(test.look::<i64>("SELECT count(*) FROM agents WHERE status <> 'offline'").await, 0);
}

#[tokio::test]
async fn an_agent_that_leaves_is_offline() {
    let stand = Stand::new().await;
    let wire = stand.connect(&stand.agent("vm-1").await).await;
    assert_ne!(status(&stand).await, AgentStatus::Offline);
    drop(wire);
    eventually("the agent is offline", async || status(&stand).await == AgentStatus::Offline).await;
    assert_eq!(stand.hub.connected(), 0);
}

#[tokio::test]
async fn an_agent_whose_key_was_replaced_is_closed() {
    let stand = Stand::new().await;
    let agent = stand.agent("vm-1").await;
    let wire = stand.connect(&agent).await;
    stand.test.services().agents.rotate_key(&Operator::console(), agent.handle(), 0).await.unwrap();
    assert_eq!(wire.end().await, (CloseReason::Revoked, Some(1008)));
}

#[tokio::test]
async fn an_agent_whose_key_was_replaced_by_another_process_is_closed_too() {
    let stand = Stand::new().await;
    let agent = stand.agent("vm-1").await;
    let wire = stand.connect(&agent).await;
    // Has its own hints, which this hub does not hear.
    let elsewhere = stand.test.services_with(TestDb::options());
    elsewhere.agents.rotate_key(&Operator::console(), agent.handle(), 0).await.unwrap();
    assert_eq!(wire.end().await, (CloseReason::Revoked, Some(1008)));
}

#[tokio::test]
async fn a_connection_of_the_old_key_ends_with_the_overlap_and_one_of_the_new_key_stays() {
    let stand = Stand::new().await;
    let (old, agents) = (stand.agent("vm-1").await, &stand.test.services().agents);
    let mut wire = stand.connect(&old).await;
    let (key, _) = agents.rotate_key(&Operator::console(), old.handle(), 20).await.unwrap();
    wire.settle().await;
    stand.test.manual_clock().advance(chrono::TimeDelta::seconds(21));
    assert_eq!(wire.end().await, (CloseReason::Revoked, Some(1008)));
    let new = agents.authenticate(old.handle(), Some(&key), None).await.unwrap();
    let mut wire = stand.connect(&new).await;
    let (_, until) = agents.rotate_key(&Operator::console(), old.handle(), 20).await.unwrap();
    assert!(until.is_some());
    wire.settle().await;
}
