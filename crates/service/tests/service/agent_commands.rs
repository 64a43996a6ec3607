//! What operators tell agents, and sessions that nobody knows.

use serde_json::json;
use tidegate_model::{AgentCommandRequest, CommandAction, CommandStatus, SessionId, SessionState};
use tidegate_persistence::Operator;
use tidegate_service::{Error, QuarantineDecision, ReportKind};
use tidegate_test_support::TestDb;

use crate::state;

fn request(action: CommandAction, session_id: Option<SessionId>) -> AgentCommandRequest {
    AgentCommandRequest { action, session_id, payload: json!({"why": "drill"}).as_object().cloned() }
}

#[tokio::test]
async fn an_operators_command_waits_for_its_agent_and_leaves_its_line_in_both_logs() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (agents, console) = (&test.services().agents, Operator::console());
    let mut agent = test.online_agent("vm-1", 3).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    test.services().links.close(&agent.link()).await.unwrap();
    let stop = request(CommandAction::StopSession, Some(id));
    let queued = agents.order(&console, agent.handle(), stop).await.unwrap();
    assert_eq!((queued.status, queued.session_id), (CommandStatus::Pending, Some(id)));
    agent.reconnect().await;
    let claimed = agent.claim().await;
    assert_eq!(claimed.len(), 1);
    let wanted = json!({"why": "drill", "sessionId": id, "generation": 1});
    assert_eq!(Some(&claimed[0].command.payload), wanted.as_object());
    let answer = agent.behaviour.answer(&claimed[0].command);
    agent.say(answer).await;
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Terminated);
    assert_eq!(agents.command(&console, queued.id).await.unwrap().status, CommandStatus::Completed);
    let lines =
        "SELECT count(*) FROM audit_log WHERE action = 'agent.command' AND org_id IS NOT DISTINCT FROM ";
    let of = async |org: String| test.look::<i64>(&format!("{lines}{org}")).await;
    assert_eq!(of(format!("'{}'", org.id)).await, 1);
}

#[tokio::test]
async fn a_command_about_a_session_elsewhere_or_for_an_agent_that_waits_is_refused() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (agents, console) = (&test.services().agents, Operator::console());
    let mut agent = test.online_agent("vm-1", 3).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    let other = test.online_agent("vm-2", 3).await;
    let refused = agents.order(&console, other.handle(), request(CommandAction::StopSession, Some(id))).await;
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    test.execute("UPDATE agents SET approval_status = 'pending' WHERE agent_id = 'vm-2'").await;
    let refused = agents.order(&console, other.handle(), request(CommandAction::StopSession, None)).await;
    assert!(matches!(refused, Err(Error::Conflict { code: "E_WRONG_STATE", .. })), "{refused:?}");
    assert_eq!(test.look::<i64>("SELECT count(*) FROM commands WHERE action = 'stop_session'").await, 0);
}

#[tokio::test]
async fn a_session_in_quarantine_is_stopped_once_by_its_agent_and_then_off_the_list() {
    let test = TestDb::new().await;
    let (agents, console) = (&test.services().agents, Operator::console());
    let agent = test.online_agent("vm-1", 3).await;
    let listed = async || agents.quarantined(&console).await.unwrap().len();
    let stranger = |state| ReportKind::UnknownSession { session_id: "stray-7".into(), state };
    agent.report(stranger(SessionState::Running)).await;
    assert_eq!(listed().await, 1);
    let stop = async || {
        let decision = QuarantineDecision::Stop;
        agents.decide_quarantined(&console, agent.handle(), "stray-7", decision).await.unwrap().unwrap()
    };
    let first = stop().await;
    assert_eq!(stop().await.id, first.id, "the stop that is on its way");
    let claimed = agent.claim().await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].command.payload["sessionId"], "stray-7");
    assert_eq!(listed().await, 1, "until the agent has stopped it");
    agent.report(ReportKind::Complete { command: first.id, result: None }).await;
    assert_eq!(listed().await, 0);
    // Its end may be told after the command's.
    agent.report(stranger(SessionState::Terminated)).await;
    assert_eq!(listed().await, 0);
    let gone = agents.decide_quarantined(&console, agent.handle(), "stray-7", QuarantineDecision::Stop).await;
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
}

#[tokio::test]
async fn a_session_that_is_forgotten_comes_back_when_its_agent_reports_it_again() {
    let test = TestDb::new().await;
    let (agents, console) = (&test.services().agents, Operator::console());
    let agent = test.online_agent("vm-1", 3).await;
    let stranger =
        || ReportKind::UnknownSession { session_id: "stray-7".into(), state: SessionState::Running };
    agent.report(stranger()).await;
    let decision = QuarantineDecision::Forget;
    let command = agents.decide_quarantined(&console, agent.handle(), "stray-7", decision).await.unwrap();
    assert_eq!((command, agents.quarantined(&console).await.unwrap().len()), (None, 0));
    assert!(agent.claim().await.is_empty());
    agent.report(stranger()).await;
    assert_eq!(agents.quarantined(&console).await.unwrap().len(), 1);
}
