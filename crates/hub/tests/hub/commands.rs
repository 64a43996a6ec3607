//! Commands on their way to an agent, and what it reports on its way back.

use std::time::Duration;

use serde_json::json;
use tidegate_hub::{CloseReason, Frame, Options, TransportError};
use tidegate_protocol::ToAgent;

use crate::stand::Stand;

#[tokio::test]
async fn an_agent_of_seed_a_gets_its_command_and_the_session_runs() {
    let stand = Stand::new().await;
    let agent = stand.agent("vm-1").await;
    let mut wire = stand.connect(&agent).await;
    let session = stand.ask().await;
    let command = wire.command().await;
    assert_eq!(command.payload["sessionId"], json!(session.id));
    wire.carry_out(&command).await;
    stand.until_running(&session).await;
    let (scope, sessions) = (stand.org.admin.org().unwrap(), &stand.test.services().sessions);
    sessions.terminate(scope, session.id).await.unwrap();
    let stop = wire.command().await;
    assert_ne!(stop.command_id, command.command_id);
    wire.say("complete", json!({"commandId": stop.command_id})).await;
    wire.settle().await;
    assert_eq!(stand.state(&session).await, "terminated");
}

#[tokio::test]
async fn an_agent_that_says_hello_is_welcomed_before_its_first_command() {
    let stand = Stand::with(Options { hello_grace: Duration::from_hours(1), ..Options::default() }).await;
    let agent = stand.agent("vm-1").await;
    let mut wire = stand.connect(&agent).await;
    let session = stand.ask().await;
    wire.say("hello", json!({"protocolVersions": [1, 2], "bootId": "boot-1", "sessions": []})).await;
    let ToAgent::Welcome(welcome) = wire.message().await else { panic!("a welcome comes first") };
    assert_eq!((welcome.protocol_version, welcome.heartbeat_seconds), (1, 10));
    assert!(welcome.epoch > 0);
    let command = wire.command().await;
    wire.carry_out(&command).await;
    stand.until_running(&session).await;
}

#[tokio::test]
async fn an_agent_whose_hello_names_a_session_twice_is_welcomed_and_works() {
    let stand = Stand::with(Options { hello_grace: Duration::from_hours(1), ..Options::default() }).await;
    let mut wire = stand.connect(&stand.agent("vm-1").await).await;
    let session = stand.ask().await;
    let unknown = json!({"sessionId": "sess-nobody-knows", "generation": 1, "state": "running"});
    let sessions = [unknown.clone(), unknown];
    wire.say("hello", json!({"protocolVersions": [1], "bootId": "boot-1", "sessions": sessions})).await;
    assert!(matches!(wire.message().await, ToAgent::Welcome(_)));
    let command = wire.command().await;
    wire.carry_out(&command).await;
    stand.until_running(&session).await;
}

#[tokio::test]
async fn after_a_lost_connection_the_same_command_is_written_to_the_next_one() {
    let stand = Stand::new().await;
    let agent = stand.agent("vm-1").await;
    let mut lost = stand.connect(&agent).await;
    let session = stand.ask().await;
    let command = lost.command().await;
    lost.frame(Err(TransportError::Lost(None))).await;
    assert_eq!(lost.end().await, (CloseReason::Lost, None));
    let mut next = stand.dial(&agent);
    assert_eq!(next.command().await, command);
    next.carry_out(&command).await;
    stand.until_running(&session).await;
    // What is done is not written to a third one.
    drop(next);
    stand.connect(&agent).await;
}

#[tokio::test]
async fn a_newer_connection_supersedes_the_older_one_and_gets_its_commands() {
    let stand = Stand::new().await;
    let agent = stand.agent("vm-1").await;
    let mut older = stand.connect(&agent).await;
    let session = stand.ask().await;
    let command = older.command().await;
    let mut newer = stand.dial(&agent);
    assert_eq!(newer.command().await, command);
    older.carry_out(&command).await;
    assert_eq!(older.end().await, (CloseReason::Superseded, Some(1008)));
    newer.settle().await;
    assert_eq!(stand.state(&session).await, "pending");
    newer.carry_out(&command).await;
    stand.until_running(&session).await;
    assert!(stand.hub.is_connected(agent.id()));
}

#[tokio::test]
async fn what_an_agent_says_over_a_connection_that_was_overtaken_elsewhere_changes_nothing() {
    // No look at the agents' rows: this process does not learn that another one has the newer connection.
    let (hello_grace, stale) = (Duration::ZERO, Duration::from_hours(1));
    let stand = Stand::with(Options { hello_grace, stale, ..Options::default() }).await;
    let agent = stand.agent("vm-1").await;
    let mut older = stand.connect(&agent).await;
    let session = stand.ask().await;
    let command = older.command().await;
    stand.test.services().links.open(&agent, "another process").await.unwrap();
    older.carry_out(&command).await;
    older.say("failed", json!({"commandId": command.command_id, "error": "no room"})).await;
    older.settle().await;
    assert_eq!(stand.state(&session).await, "pending");
}

#[tokio::test]
async fn a_report_during_an_outage_is_written_after_it_and_the_connection_lives() {
    let stand = Stand::new().await;
    let agent = stand.agent("vm-1").await;
    let mut wire = stand.connect(&agent).await;
    let session = stand.ask().await;
    let command = wire.command().await;
    let outage = stand.test.outage().await;
    wire.carry_out(&command).await;
    wire.ping().await;
    assert!(wire.is_quiet(), "nothing is confirmed that is not written");
    assert!(stand.hub.is_connected(agent.id()));
    outage.end().await;
    wire.pong().await;
    assert_eq!(stand.state(&session).await, "running");
    // Commands flow again too.
    stand.ask().await;
    wire.command().await;
}

#[tokio::test]
async fn nobody_connects_during_an_outage() {
    let stand = Stand::new().await;
    let agent = stand.agent("vm-1").await;
    let outage = stand.test.outage().await;
    assert_eq!(stand.dial(&agent).end().await, (CloseReason::Unavailable, Some(1012)));
    outage.end().await;
    let wire = stand.connect(&agent).await;
    wire.frame(Ok(Frame::Close(tidegate_hub::CloseCode::NORMAL, "".into()))).await;
    assert_eq!(wire.end().await, (CloseReason::Left, Some(1000)));
}
