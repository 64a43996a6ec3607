//! What agents say, when it may change something and when it may not.

use chrono::TimeDelta;
use serde_json::json;
use tidegate_model::{AgentStatusUpdate, CommandAction, CommandId, SessionId, SessionState};
use tidegate_persistence::Operator;
use tidegate_protocol::FromAgent;
use tidegate_service::{Report, ReportKind};
use tidegate_test_support::TestDb;

use crate::{get, state};

fn status(session_id: SessionId, state: SessionState, generation: Option<i64>) -> AgentStatusUpdate {
    AgentStatusUpdate {
        session_id,
        state,
        generation,
        streaming_ready: None,
        streaming_port: None,
        platform_metadata: None,
        reason: None,
    }
}

#[tokio::test]
async fn a_report_of_an_older_generation_changes_nothing() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, sessions) = (org.admin.org().unwrap(), &test.services().sessions);
    let mut agent = test.online_agent("vm-1", 3).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    sessions.hibernate(scope, id).await.unwrap();
    agent.work().await;
    sessions.wake(scope, id).await.unwrap();
    agent.work().await;
    agent.report(ReportKind::Status(status(id, SessionState::Failed, Some(1)))).await;
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Running);
    agent.report(ReportKind::Status(status(id, SessionState::Failed, Some(2)))).await;
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Failed);
}

#[tokio::test]
async fn late_repeated_and_reordered_answers_change_nothing() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, sessions) = (org.admin.org().unwrap(), &test.services().sessions);
    let mut agent = test.online_agent("vm-1", 3).await;
    agent.behaviour.misbehave(|_, mut answer| {
        answer.reverse();
        let twice = answer.clone();
        answer.extend(twice);
        answer
    });
    let session = test.pending_session(&org.admin).await;
    let started = agent.claim().await.remove(0).command;
    let answer = agent.behaviour.answer(&started);
    agent.say(answer.clone()).await;
    assert_eq!(state(&test, &org.admin, session.id).await, SessionState::Running);
    sessions.hibernate(scope, session.id).await.unwrap();
    // A `running` that was on its way does not undo the hibernation.
    agent.say(answer.clone()).await;
    assert_eq!(state(&test, &org.admin, session.id).await, SessionState::Hibernating);
    agent.work().await;
    sessions.terminate(scope, session.id).await.unwrap();
    agent.work().await;
    agent.say(answer).await;
    assert_eq!(state(&test, &org.admin, session.id).await, SessionState::Terminated);
    let history = sessions.history(scope, session.id).await.unwrap();
    assert_eq!(history.len(), 6, "{history:?}");
}

#[tokio::test]
async fn the_first_outcome_of_a_command_is_its_only_one() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let agent = test.online_agent("vm-1", 3).await;
    let session = test.pending_session(&org.admin).await;
    let command = CommandId::from_wire(&agent.claim().await[0].command.command_id).unwrap();
    agent.report(ReportKind::Failed { command, error: "no room on the disk".into() }).await;
    let late = agent.report(ReportKind::Complete { command, result: None }).await;
    assert_eq!(late.ignored, 1);
    let failed = get(&test, &org.admin, session.id).await;
    assert_eq!(
        (failed.state, failed.state_reason.as_deref()),
        (SessionState::Failed, Some("no room on the disk"))
    );
}

#[tokio::test]
async fn another_agents_report_is_ignored_and_counted() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let agent = test.online_agent("vm-1", 3).await;
    let session = test.pending_session(&org.admin).await;
    let other = test.online_agent("vm-2", 3).await;
    let command = CommandId::from_wire(&agent.claim().await[0].command.command_id).unwrap();
    for kind in [
        ReportKind::Ack(command),
        ReportKind::Complete { command, result: None },
        ReportKind::Failed { command, error: "mine".into() },
        ReportKind::Status(status(session.id, SessionState::Terminated, None)),
    ] {
        let ingested = other.report(kind).await;
        assert_eq!((ingested.applied, ingested.ignored), (0, 1));
    }
    assert_eq!(state(&test, &org.admin, session.id).await, SessionState::Pending);
    let command = test.services().agents.command(&Operator::console(), command).await.unwrap();
    assert_eq!(command.status.as_str(), "sent");
    assert!(other.claim().await.is_empty());
}

#[tokio::test]
async fn an_outcome_that_does_not_count_takes_no_place_in_its_batch() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let session = test.pending_session(&org.admin).await;
    let other = test.online_agent("vm-2", 3).await;
    let command = CommandId::from_wire(&agent.claim().await[0].command.command_id).unwrap();
    let old = agent.reconnect().await;
    let failed = ReportKind::Failed { command, error: "not mine to say".into() };
    let batch = vec![
        Report { link: other.link(), kind: ReportKind::Complete { command, result: None } },
        Report { link: old, kind: failed },
        Report { link: agent.link(), kind: ReportKind::Complete { command, result: None } },
    ];
    let ingested = test.services().links.ingest(batch).await.unwrap();
    assert_eq!((ingested.applied, ingested.ignored), (1, 2));
    assert_eq!(state(&test, &org.admin, session.id).await, SessionState::Running);
}

#[tokio::test]
async fn an_older_connection_can_change_nothing_and_its_end_marks_nobody_offline() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let session = test.pending_session(&org.admin).await;
    let command = CommandId::from_wire(&agent.claim().await[0].command.command_id).unwrap();
    let old = agent.reconnect().await;
    for kind in [
        ReportKind::Alive,
        ReportKind::Ack(command),
        ReportKind::Complete { command, result: None },
        ReportKind::Status(status(session.id, SessionState::Running, None)),
    ] {
        let ingested = agent.report_over(old.clone(), kind).await;
        assert_eq!((ingested.applied, ingested.ignored), (0, 1));
    }
    assert!(test.services().links.claim(std::slice::from_ref(&old), 10).await.unwrap().is_empty());
    test.services().links.close(&old).await.unwrap();
    let shown = test.services().agents.get(&Operator::console(), agent.handle()).await.unwrap();
    assert_eq!(shown.status.as_str(), "online");
    assert_eq!(state(&test, &org.admin, session.id).await, SessionState::Pending);
    test.services().links.close(&agent.link()).await.unwrap();
    let shown = test.services().agents.get(&Operator::console(), agent.handle()).await.unwrap();
    assert_eq!(shown.status.as_str(), "offline");
}

#[tokio::test]
async fn a_new_connection_gets_the_same_commands_again_and_they_are_carried_out_once() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let session = test.pending_session(&org.admin).await;
    let first = agent.claim().await.remove(0).command;
    assert!(agent.claim().await.is_empty(), "not twice over one connection");
    // Carried out, and the answer lost with the connection.
    drop(agent.behaviour.answer(&first));
    agent.reconnect().await;
    let second = agent.claim().await.remove(0).command;
    assert_eq!(second, first);
    let answer = agent.behaviour.answer(&second);
    agent.say(answer).await;
    assert_eq!(agent.behaviour.executed.len(), 1);
    assert_eq!(state(&test, &org.admin, session.id).await, SessionState::Running);
}

#[tokio::test]
async fn commands_of_one_session_come_in_their_order() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let agent = test.online_agent("vm-1", 9).await;
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(test.pending_session(&org.admin).await.id.to_string());
    }
    for id in &asked {
        test.services().sessions.terminate(org.admin.org().unwrap(), id.parse().unwrap()).await.unwrap();
    }
    let claimed = agent.claim().await;
    let told: Vec<(String, &str)> = claimed
        .iter()
        .map(|out| {
            (out.command.payload["sessionId"].as_str().unwrap().to_owned(), out.command.action.as_str())
        })
        .collect();
    let starts = asked.iter().cloned().map(|id| (id, "start_session"));
    let wanted: Vec<_> = starts.chain(asked.iter().cloned().map(|id| (id, "stop_session"))).collect();
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn what_an_agent_writes_is_cut_to_its_bounds() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    let mut large = status(id, SessionState::Running, None);
    large.platform_metadata = json!({"blob": "x".repeat(100_000)}).as_object().cloned();
    agent.report(ReportKind::Status(large)).await;
    assert!(get(&test, &org.admin, id).await.platform_metadata.is_empty());
    let mut small = status(id, SessionState::Running, None);
    small.platform_metadata = json!({"node": "n1"}).as_object().cloned();
    agent.report(ReportKind::Status(small)).await;
    let mut bare = status(id, SessionState::Failed, None);
    bare.reason = Some(format!("\u{1b}[31m{}", "long ".repeat(1_000)));
    agent.report(ReportKind::Status(bare)).await;
    let failed = get(&test, &org.admin, id).await;
    let reason = failed.state_reason.unwrap();
    assert!(reason.chars().count() <= 500 && !reason.chars().any(char::is_control), "{reason}");
    assert_eq!(failed.platform_metadata["node"], "n1", "what a report does not carry is left as it is");
}

#[tokio::test]
async fn a_nul_in_one_report_is_left_out_and_its_whole_batch_is_written() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let ran = test.running_session(&org.admin, &mut agent).await.id;
    let started = test.pending_session(&org.admin).await.id;
    let command = CommandId::from_wire(&agent.claim().await[0].command.command_id).unwrap();
    let mut odd = status(ran, SessionState::Running, None);
    odd.platform_metadata = json!({"no\0de": ["n\u{0}1"]}).as_object().cloned();
    odd.reason = Some("\0".into());
    let result = json!({"deep": {"er": "\0done"}}).as_object().cloned();
    let kinds = [
        ReportKind::Status(odd),
        ReportKind::Complete { command, result },
        ReportKind::UnknownSession { session_id: "stray\0-7".into(), state: SessionState::Running },
    ];
    let batch = kinds.map(|kind| Report { link: agent.link(), kind }).to_vec();
    test.services().links.ingest(batch).await.unwrap();
    assert_eq!(get(&test, &org.admin, ran).await.platform_metadata["node"], json!(["n1"]));
    assert_eq!(state(&test, &org.admin, started).await, SessionState::Running);
    let result: String =
        test.look(&format!("SELECT result::text FROM commands WHERE id = '{command}'")).await;
    assert_eq!(result, r#"{"deep": {"er": "done"}}"#);
    assert_eq!(
        test.services().agents.quarantined(&Operator::console()).await.unwrap()[0].session_id,
        "stray-7"
    );
}

#[tokio::test]
async fn an_inventory_that_differs_in_what_sleeps_is_set_right() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, sessions) = (org.admin.org().unwrap(), &test.services().sessions);
    let mut agent = test.online_agent("vm-1", 9).await;
    let sleeps = test.running_session(&org.admin, &mut agent).await.id;
    let runs = test.running_session(&org.admin, &mut agent).await.id;
    sessions.hibernate(scope, sleeps).await.unwrap();
    agent.work().await;
    agent.behaviour.sessions.insert(sleeps.to_string(), (1, SessionState::Running));
    agent.behaviour.sessions.insert(runs.to_string(), (1, SessionState::Hibernated));
    agent.reconnect().await;
    agent.hello().await;
    assert_eq!(state(&test, &org.admin, runs).await, SessionState::Hibernated);
    let claimed = agent.claim().await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].command.action, CommandAction::HibernateSession);
    assert_eq!(claimed[0].command.payload["sessionId"], sleeps.to_string());
    agent.hello().await;
    assert!(agent.claim().await.is_empty(), "what was asked for is not asked for again");
}

#[tokio::test]
async fn an_inventory_fails_what_was_lost_stops_what_ended_and_quarantines_what_nobody_knows() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, sessions) = (org.admin.org().unwrap(), &test.services().sessions);
    let mut agent = test.online_agent("vm-1", 9).await;
    let lost = test.running_session(&org.admin, &mut agent).await.id;
    let ended = test.running_session(&org.admin, &mut agent).await.id;
    let kept = test.running_session(&org.admin, &mut agent).await.id;
    sessions.terminate(scope, ended).await.unwrap();
    agent.work().await;
    agent.behaviour.sessions.remove(&lost.to_string());
    agent.behaviour.sessions.insert(ended.to_string(), (1, SessionState::Running));
    agent.behaviour.sessions.insert("stray-7".into(), (1, SessionState::Running));
    agent.reconnect().await;
    agent.hello().await;
    let gone = get(&test, &org.admin, lost).await;
    assert_eq!(gone.state, SessionState::Failed);
    assert_eq!(gone.state_reason.as_deref(), Some("the agent came back without this session"));
    assert_eq!(state(&test, &org.admin, kept).await, SessionState::Running);
    let claimed = agent.claim().await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].command.action.as_str(), "stop_session");
    assert_eq!(claimed[0].command.payload["sessionId"], ended.to_string());
    let quarantined = test.services().agents.quarantined(&Operator::console()).await.unwrap();
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].session_id, "stray-7");
    // The same inventory again asks for nothing more.
    agent.hello().await;
    assert!(agent.claim().await.is_empty());
}

#[tokio::test]
async fn an_old_connections_inventory_counts_for_nothing() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 9).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    let old = agent.reconnect().await;
    agent.behaviour.lose_sessions();
    test.services().links.hello(&old, &agent.behaviour.hello("boot-2")).await.unwrap();
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Running);
}

#[tokio::test]
async fn a_completion_without_a_status_drives_the_session() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 9).await;
    agent.behaviour.misbehave(|_, answer| {
        answer.into_iter().filter(|message| !matches!(message, FromAgent::Status(_))).collect()
    });
    test.running_session(&org.admin, &mut agent).await;
}

#[tokio::test]
async fn a_wake_carried_out_after_its_deadline_is_undone() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, services) = (org.admin.org().unwrap(), test.services());
    let mut agent = test.online_agent("vm-1", 3).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    services.sessions.hibernate(scope, id).await.unwrap();
    agent.work().await;
    services.sessions.wake(scope, id).await.unwrap();
    test.manual_clock().advance(TimeDelta::seconds(301));
    services.links.sweep().await.unwrap();
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Hibernated);
    agent.report(ReportKind::Status(status(id, SessionState::Running, Some(1)))).await;
    assert!(agent.claim().await.is_empty(), "an older generation asks for nothing");
    agent.report(ReportKind::Status(status(id, SessionState::Running, Some(2)))).await;
    agent.report(ReportKind::Status(status(id, SessionState::Running, Some(2)))).await;
    let asked: Vec<CommandAction> = agent.claim().await.iter().map(|sent| sent.command.action).collect();
    assert_eq!(asked, [CommandAction::HibernateSession]);
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Hibernated);
}

#[tokio::test]
async fn a_hibernate_carried_out_after_its_deadline_is_taken_note_of() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, services) = (org.admin.org().unwrap(), test.services());
    let mut agent = test.online_agent("vm-1", 3).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    services.sessions.hibernate(scope, id).await.unwrap();
    test.manual_clock().advance(TimeDelta::seconds(301));
    services.links.sweep().await.unwrap();
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Running);
    agent.report(ReportKind::Status(status(id, SessionState::Hibernated, Some(1)))).await;
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Hibernated);
}

#[tokio::test]
async fn an_inventory_that_names_a_session_twice_counts_it_once() {
    let test = TestDb::new().await;
    let agent = test.online_agent("vm-1", 3).await;
    let twice = tidegate_protocol::HelloSession {
        session_id: "sess-nobody-knows".into(),
        generation: None,
        state: SessionState::Running,
    };
    let hello = tidegate_protocol::HelloMessage {
        protocol_versions: vec![1],
        boot_id: "boot-1".into(),
        sessions: vec![twice.clone(), twice],
    };
    test.services().links.hello(&agent.link(), &hello).await.unwrap();
    let quarantined = test.services().agents.quarantined(&Operator::console()).await.unwrap();
    assert_eq!(quarantined.len(), 1);
}

#[tokio::test]
async fn a_key_rotated_between_proof_and_connection_opens_nothing() {
    let test = TestDb::new().await;
    let agent = test.online_agent("vm-1", 3).await;
    let proved = agent.identity().clone();
    test.services().agents.rotate_key(&Operator::console(), proved.handle(), 0).await.unwrap();
    let refused = test.services().links.open(&proved, "connection-2").await;
    assert!(matches!(refused, Err(tidegate_service::Error::NotFound(_))), "{refused:?}");
}

#[tokio::test]
async fn what_an_agent_adds_up_over_many_reports_is_bounded() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    for part in 0..8 {
        let mut report = status(id, SessionState::Running, Some(1));
        let metadata = json!({ format!("part{part}"): "x".repeat(10_000) });
        report.platform_metadata = metadata.as_object().cloned();
        agent.report(ReportKind::Status(report)).await;
    }
    let kept = json!(get(&test, &org.admin, id).await.platform_metadata).to_string().len();
    assert!((10_000..40_000).contains(&kept), "{kept}");
}
