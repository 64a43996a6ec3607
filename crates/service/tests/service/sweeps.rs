//! What happens without anybody asking: deadlines, silence, sessions that wait for nothing.

use chrono::TimeDelta;
use tidegate_model::{AgentReportedStatus, SessionState};
use tidegate_persistence::Operator;
use tidegate_test_support::TestDb;

use crate::{get, state};

async fn after(test: &TestDb, seconds: i64) {
    test.manual_clock().advance(TimeDelta::seconds(seconds));
    test.services().links.sweep().await.unwrap();
}

#[tokio::test]
async fn a_command_past_its_deadline_fails_with_a_reason_and_so_does_its_session() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let agent = test.online_agent("vm-1", 3).await;
    let id = test.pending_session(&org.admin).await.id;
    after(&test, 299).await;
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Pending);
    after(&test, 2).await;
    let failed = get(&test, &org.admin, id).await;
    assert_eq!(failed.state, SessionState::Failed);
    assert_eq!(failed.state_reason.as_deref(), Some("the agent was not connected before the deadline"));
    assert!(agent.claim().await.is_empty(), "a failed command is sent to nobody");
}

#[tokio::test]
async fn a_silent_agent_is_offline_until_it_is_heard_again() {
    let test = TestDb::new().await;
    let agent = test.online_agent("vm-1", 3).await;
    let status = async || {
        test.services().agents.get(&Operator::console(), agent.handle()).await.unwrap().status.as_str()
    };
    after(&test, 29).await;
    assert_eq!(status().await, "online");
    agent.heartbeat(AgentReportedStatus::Online).await;
    after(&test, 29).await;
    assert_eq!(status().await, "online");
    after(&test, 2).await;
    assert_eq!(status().await, "offline");
    agent.heartbeat(AgentReportedStatus::Online).await;
    assert_eq!(status().await, "online");
}

#[tokio::test]
async fn a_command_without_an_acknowledgement_is_sent_again_with_its_id() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let agent = test.online_agent("vm-1", 3).await;
    test.pending_session(&org.admin).await;
    let first = agent.claim().await;
    test.manual_clock().advance(TimeDelta::seconds(14));
    assert!(agent.claim().await.is_empty());
    test.manual_clock().advance(TimeDelta::seconds(2));
    assert_eq!(agent.claim().await, first);
}

#[tokio::test]
async fn a_session_that_waits_for_no_command_heals() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let stuck = test.running_session(&org.admin, &mut agent).await.id;
    let waking = test.running_session(&org.admin, &mut agent).await.id;
    let now = tidegate_model::Clock::now(test.manual_clock().as_ref()).to_rfc3339();
    test.execute(&format!(
        "UPDATE sessions SET state = 'hibernating', state_since = '{now}' WHERE id = '{stuck}'"
    ))
    .await;
    test.execute(&format!(
        "UPDATE sessions SET state = 'waking', state_since = '{now}' WHERE id = '{waking}'"
    ))
    .await;
    after(&test, 59).await;
    assert_eq!(state(&test, &org.admin, stuck).await, SessionState::Hibernating);
    after(&test, 2).await;
    let healed = get(&test, &org.admin, stuck).await;
    assert_eq!(healed.state, SessionState::Failed);
    assert!(healed.state_reason.unwrap().contains("no command"));
    assert_eq!(state(&test, &org.admin, waking).await, SessionState::Hibernated);
}

#[tokio::test]
async fn a_sweep_of_nothing_is_nothing() {
    let test = TestDb::new().await;
    after(&test, 100_000).await;
}
