//! Ending sessions whose agent is not there.

use tidegate_model::{OrgRole, SessionId, SessionState};
use tidegate_service::{Changed, Error};
use tidegate_test_support::{SimAgent, TestDb, TestOrg};

struct Stage {
    test: TestDb,
    org: TestOrg,
    agent: SimAgent,
    session: SessionId,
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let mut agent = test.online_agent("vm-1", 3).await;
        let session = test.running_session(&org.admin, &mut agent).await.id;
        Self { test, org, agent, session }
    }

    async fn force(&self) -> Changed {
        let sessions = &self.test.services().sessions;
        sessions.terminate_by_force(self.org.admin.org().unwrap(), self.session).await.unwrap()
    }

    async fn agent_is(&self, status: &str) {
        self.test.execute(&format!("UPDATE agents SET status = '{status}'")).await;
    }

    async fn state(&self) -> SessionState {
        crate::state(&self.test, &self.org.admin, self.session).await
    }
}

#[tokio::test]
async fn a_session_of_an_agent_that_is_offline_ends_at_once_and_the_agent_is_told_when_it_returns() {
    let mut stage = Stage::new().await;
    stage.agent_is("offline").await;
    let Changed::Queued(session, _) = stage.force().await else { panic!("a stop is queued") };
    assert_eq!(session.state, SessionState::Terminated);
    let reason = session.state_reason.unwrap();
    assert!(reason.contains("by force") && reason.contains("while agent vm-1 was offline"), "{reason}");
    assert!(session.ended_at.is_some());
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM session_specs").await, 0);
    let Changed::Already(repeated) = stage.force().await else { panic!("it is so already") };
    assert_eq!(repeated.state, SessionState::Terminated);
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'session.force'";
    assert_eq!(stage.test.look::<i64>(audited).await, 1);

    stage.agent.reconnect().await;
    assert_eq!(stage.agent.work().await, 1, "the stop that waited");
    assert_eq!(stage.state().await, SessionState::Terminated);
    let open = "SELECT count(*) FROM commands WHERE status NOT IN ('completed', 'failed')";
    assert_eq!(stage.test.look::<i64>(open).await, 0);
}

#[tokio::test]
async fn a_failed_session_is_cleaned_up_by_force_as_without_it() {
    let stage = Stage::new().await;
    stage.test.execute("UPDATE sessions SET state = 'failed'").await;
    let Changed::Already(session) = stage.force().await else { panic!("there is nothing to ask for") };
    assert_eq!(session.state, SessionState::Failed);
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM sessions WHERE hidden_at IS NULL").await, 0);
}

#[tokio::test]
async fn what_was_asked_for_before_can_be_forced_later() {
    let stage = Stage::new().await;
    let scope = stage.org.admin.org().unwrap();
    stage.test.services().sessions.terminate(scope, stage.session).await.unwrap();
    stage.agent_is("offline").await;
    let Changed::Already(session) = stage.force().await else { panic!("the stop is queued already") };
    assert_eq!(session.state, SessionState::Terminated);
}

#[tokio::test]
async fn an_agent_that_is_there_ends_its_sessions_itself() {
    let mut stage = Stage::new().await;
    let Changed::Queued(session, _) = stage.force().await else { panic!("a stop is queued") };
    assert_eq!(session.state, SessionState::Terminating);
    stage.agent.work().await;
    assert_eq!(stage.state().await, SessionState::Terminated);
}

#[tokio::test]
async fn nobody_forces_what_they_may_not_see() {
    let stage = Stage::new().await;
    stage.agent_is("offline").await;
    let colleague = stage.test.user_in("acme", OrgRole::User).await;
    let colleague = stage.test.caller(&colleague).await;
    let sessions = &stage.test.services().sessions;
    let forced = sessions.terminate_by_force(colleague.org().unwrap(), stage.session).await;
    assert!(matches!(forced, Err(Error::NotFound(_))));
    assert_eq!(stage.state().await, SessionState::Running);
}
