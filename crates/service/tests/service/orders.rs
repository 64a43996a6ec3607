//! What operators order of agents, and what comes of it by itself: drains with an end, keys, removal.

use chrono::TimeDelta;
use serde_json::Value;
use tidegate_model::{
    Agent, AgentHandle, ApprovalStatus, CommandAction, DrainRequest, NewSession, Secret, Session, SessionId,
    SessionState,
};
use tidegate_persistence::Operator;
use tidegate_protocol::{FailedMessage, FromAgent};
use tidegate_service::{Changed, Error, Registered, Registration};
use tidegate_test_support::{BOOTSTRAP_KEY, SimAgent, TestDb, TestOrg, new_session, registration};

use crate::{get, queued, state};

struct Stage {
    test: TestDb,
    org: TestOrg,
    agent: SimAgent,
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let agent = test.online_agent("vm-1", 9).await;
        Self { test, org, agent }
    }

    /// A running session, with a home or without.
    async fn session(&mut self, persistent_home: bool) -> SessionId {
        let new = NewSession { persistent_home, ..new_session("shell") };
        let scope = self.org.admin.org().unwrap();
        let made = self.test.services().sessions.create(scope, new, None, |_, _| Value::Null).await;
        self.agent.work().await;
        queued(made.unwrap()).id
    }

    async fn drain(&self, deadline: &str, reason: &str) -> Agent {
        let request = DrainRequest { deadline: Some(deadline.parse().unwrap()), reason: Some(reason.into()) };
        let agents = &self.test.services().agents;
        agents.drain(&Operator::console(), self.agent.handle(), request).await.unwrap()
    }

    async fn after(&self, seconds: i64) {
        self.test.manual_clock().advance(TimeDelta::seconds(seconds));
        self.test.services().links.sweep().await.unwrap();
    }

    async fn get(&self, id: SessionId) -> Session {
        get(&self.test, &self.org.admin, id).await
    }

    async fn state(&self, id: SessionId) -> SessionState {
        state(&self.test, &self.org.admin, id).await
    }

    async fn agent(&self) -> Agent {
        self.test.services().agents.get(&Operator::console(), self.agent.handle()).await.unwrap()
    }

    async fn lets_in(&self, key: &Secret<String>) -> bool {
        let agents = &self.test.services().agents;
        match agents.authenticate(self.agent.handle(), Some(key), None).await {
            Ok(_) => agents.authenticate_by_key(Some(key), None).await.is_ok(),
            Err(Error::Unauthenticated(_)) => false,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn at_the_end_of_a_drain_homes_are_hibernated_and_the_rest_is_ended_once() {
    let mut stage = Stage::new().await;
    let (home, bare) = (stage.session(true).await, stage.session(false).await);
    let drained = stage.drain("20s", "a new kernel").await;
    let drain = drained.drain.unwrap();
    assert_eq!(drain.reason.as_deref(), Some("a new kernel"));
    assert_eq!(drain.deadline.unwrap() - drain.since.unwrap(), TimeDelta::seconds(20));
    assert_eq!(drained.status.as_str(), "draining");
    stage.after(19).await;
    assert_eq!(
        (stage.state(home).await, stage.state(bare).await),
        (SessionState::Running, SessionState::Running)
    );
    // Two replicas and a restart look at the same time and again; one command each is all that comes of it.
    let other = stage.test.services_with(TestDb::options());
    stage.test.manual_clock().advance(TimeDelta::seconds(2));
    let (one, two) = tokio::join!(stage.test.services().links.sweep(), other.links.sweep());
    one.and(two).unwrap();
    other.links.sweep().await.unwrap();
    let asleep = stage.get(home).await;
    assert_eq!(asleep.state, SessionState::Hibernating);
    let why = "agent vm-1 was drained and its time is over: a new kernel";
    assert_eq!(asleep.state_reason.as_deref(), Some(why));
    assert_eq!(stage.state(bare).await, SessionState::Terminating);
    let commands = "SELECT count(*) FROM commands WHERE action IN ('hibernate_session', 'stop_session')";
    assert_eq!(stage.test.look::<i64>(commands).await, 2);
    stage.agent.work().await;
    assert_eq!(
        (stage.state(home).await, stage.state(bare).await),
        (SessionState::Hibernated, SessionState::Terminated)
    );
    stage.after(60).await;
    assert_eq!(stage.test.look::<i64>(commands).await, 2);
}

#[tokio::test]
async fn a_drain_that_is_lifted_in_time_ends_nothing() {
    let mut stage = Stage::new().await;
    let id = stage.session(false).await;
    stage.drain("20s", "by mistake").await;
    let agents = &stage.test.services().agents;
    let undrained = agents.undrain(&Operator::console(), stage.agent.handle()).await.unwrap();
    assert_eq!((undrained.drain, undrained.status.as_str()), (None, "online"));
    stage.after(25).await;
    assert_eq!(stage.state(id).await, SessionState::Running);
    // A second drain says the whole wish: without a deadline there is none any more.
    stage.drain("5s", "again").await;
    let wish = DrainRequest::default();
    let drained = agents.drain(&Operator::console(), stage.agent.handle(), wish).await.unwrap();
    let drain = drained.drain.unwrap();
    assert_eq!((drain.deadline, drain.reason), (None, None));
    stage.after(25).await;
    assert_eq!(stage.state(id).await, SessionState::Running);
    let past = DrainRequest { deadline: Some("2001-01-01T00:00:00Z".parse().unwrap()), reason: None };
    let refused = agents.drain(&Operator::console(), stage.agent.handle(), past).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let audited = "SELECT string_agg(action, ' ' ORDER BY at, id) FROM audit_log WHERE action LIKE '%drain'";
    let all: String = stage.test.look(audited).await;
    assert_eq!(all, "agent.drain agent.undrain agent.drain agent.drain");
}

#[tokio::test]
async fn what_starts_during_a_drain_goes_and_what_cannot_be_hibernated_is_ended() {
    let mut stage = Stage::new().await;
    let stubborn = stage.session(true).await;
    let starting = stage.test.pending_session(&stage.org.admin).await.id;
    stage.agent.behaviour.misbehave(|command, answer| {
        if command.action != CommandAction::HibernateSession {
            return answer;
        }
        let (command_id, error) = (command.command_id.clone(), "the disk is full".to_owned());
        vec![FromAgent::Failed(FailedMessage { command_id, error })]
    });
    stage.drain("0s", "now").await;
    stage.after(1).await;
    assert_eq!(stage.state(starting).await, SessionState::Terminating);
    stage.agent.work().await;
    assert_eq!(
        (stage.state(starting).await, stage.state(stubborn).await),
        (SessionState::Terminated, SessionState::Running)
    );
    stage.after(1).await;
    assert_eq!(stage.state(stubborn).await, SessionState::Terminating);
    stage.agent.work().await;
    assert_eq!(stage.state(stubborn).await, SessionState::Terminated);
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM homes").await, 1, "its home stays");
}

#[tokio::test]
async fn with_an_overlap_both_keys_are_good_until_it_ends() {
    let mut stage = Stage::new().await;
    let old = stage.agent.key().clone();
    let agents = stage.test.services().agents.clone();
    let (new, until) = agents.rotate_key(&Operator::console(), stage.agent.handle(), 60).await.unwrap();
    assert_eq!(stage.agent().await.old_key_until, until);
    assert!(until.is_some() && stage.lets_in(&old).await && stage.lets_in(&new).await);
    // What the old one opened lives on, and it opens more.
    let links = &stage.test.services().links;
    assert_eq!(links.stale(&[stage.agent.link()]).await.unwrap(), []);
    stage.agent.reconnect().await;
    assert_eq!(stage.agent().await.key_last_used_at, None, "the new one was not used yet");
    stage.after(59).await;
    assert!(stage.lets_in(&old).await);
    assert_eq!(links.stale(&[stage.agent.link()]).await.unwrap(), []);
    stage.after(1).await;
    assert!(!stage.lets_in(&old).await && stage.lets_in(&new).await);
    assert_eq!(links.stale(&[stage.agent.link()]).await.unwrap().len(), 1);
    assert_eq!(stage.agent().await.status.as_str(), "offline");
    let late = links.open(stage.agent.identity(), "late").await;
    assert!(matches!(late, Err(Error::NotFound(_))), "{late:?}");
    let identity = agents.authenticate(stage.agent.handle(), Some(&new), None).await.unwrap();
    links.open(&identity, "new").await.unwrap();
    let agent = stage.agent().await;
    assert!(agent.key_last_used_at.is_some() && agent.old_key_until.is_none(), "{agent:?}");
}

#[tokio::test]
async fn a_connection_of_the_new_key_outlives_the_overlap_and_an_overlap_has_a_bound() {
    let stage = Stage::new().await;
    let agents = &stage.test.services().agents;
    let (new, _) = agents.rotate_key(&Operator::console(), stage.agent.handle(), 60).await.unwrap();
    let identity = agents.authenticate(stage.agent.handle(), Some(&new), None).await.unwrap();
    let link = std::sync::Arc::new(stage.test.services().links.open(&identity, "new").await.unwrap());
    stage.after(61).await;
    assert_eq!(stage.test.services().links.stale(&[link]).await.unwrap(), []);
    assert!(!stage.lets_in(stage.agent.key()).await);
    let refused = agents.rotate_key(&Operator::console(), stage.agent.handle(), 604_801).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_and_what_it_opened_ends() {
    let stage = Stage::new().await;
    let agents = &stage.test.services().agents;
    let old = stage.agent.key().clone();
    let (new, _) = agents.rotate_key(&Operator::console(), stage.agent.handle(), 600).await.unwrap();
    let mut nudges = stage.test.services().links.nudges();
    let revoked = agents.revoke_key(&Operator::console(), stage.agent.handle()).await.unwrap();
    assert_eq!(nudges.try_recv().unwrap(), tidegate_service::Nudge::Revoked(revoked.id));
    assert_eq!((revoked.status.as_str(), revoked.key_created_at), ("offline", None));
    assert!(!stage.lets_in(&old).await && !stage.lets_in(&new).await);
    assert_eq!(stage.test.services().links.stale(&[stage.agent.link()]).await.unwrap().len(), 1);
    let (again, until) = agents.rotate_key(&Operator::console(), stage.agent.handle(), 600).await.unwrap();
    assert!(stage.lets_in(&again).await && until.is_none(), "there is no old key to overlap with");
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'agent.revoke_key'";
    assert_eq!(stage.test.look::<i64>(audited).await, 1);
}

#[tokio::test]
async fn a_revocation_takes_the_claim_of_an_agent_that_never_came() {
    let test = TestDb::new().await;
    let (agents, operator) = (&test.services().agents, Operator::console());
    let presented =
        |claim| Registration { key: Some(Secret::new(BOOTSTRAP_KEY.to_owned())), claim, source: None };
    let first = agents.register(presented(None), registration("vm-1", 1)).await.unwrap();
    let Registered::Pending(agent, Some(claim)) = first else { panic!("{first:?}") };
    agents.decide(&operator, &agent.agent_id, tidegate_service::Decision::Approve, false).await.unwrap();
    agents.revoke_key(&operator, &agent.agent_id).await.unwrap();
    let again = agents.register(presented(Some(claim)), registration("vm-1", 1)).await;
    assert!(matches!(again, Err(Error::Conflict { code: "E_AGENT_TAKEN", .. })), "{again:?}");
}

#[tokio::test]
async fn an_agent_that_holds_sessions_is_removed_by_force_alone() {
    let mut stage = Stage::new().await;
    let (running, asleep) = (stage.session(false).await, stage.session(true).await);
    let scope = stage.org.admin.org().unwrap().clone();
    let sessions = stage.test.services().sessions.clone();
    sessions.hibernate(&scope, asleep).await.unwrap();
    stage.agent.work().await;
    let waiting = stage.test.pending_session(&stage.org.admin).await.id;
    let agents = stage.test.services().agents.clone();
    let handle: AgentHandle = stage.agent.handle().clone();
    let refused = agents.remove(&Operator::console(), &handle, false).await;
    let Err(Error::Conflict { code: "E_AGENT_BUSY", message }) = refused else { panic!("{refused:?}") };
    assert!(message.contains("3 sessions, 1 of them hibernated"), "{message}");
    agents.remove(&Operator::console(), &handle, true).await.unwrap();
    for id in [running, asleep, waiting] {
        let ended = stage.get(id).await;
        assert_eq!(ended.state, SessionState::Terminated);
        assert_eq!(ended.state_reason.as_deref(), Some("agent vm-1 was removed by an operator"));
        assert!(ended.ended_at.is_some());
    }
    let open = "SELECT count(*) FROM commands WHERE status NOT IN ('completed', 'failed')";
    assert_eq!(stage.test.look::<i64>(open).await, 0);
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM session_specs").await, 0);
    assert!(!stage.lets_in(stage.agent.key()).await);
    assert_eq!(stage.test.services().links.stale(&[stage.agent.link()]).await.unwrap().len(), 1);
    assert!(matches!(agents.get(&Operator::console(), &handle).await, Err(Error::NotFound(_))));
    assert!(matches!(agents.remove(&Operator::console(), &handle, true).await, Err(Error::NotFound(_))));
    let told = format!(
        "SELECT count(*) FROM audit_log WHERE action = 'agent.remove' AND org_id = '{}'",
        stage.org.id
    );
    assert_eq!(stage.test.look::<i64>(&told).await, 1, "its organization's log says so");
    // The name is free again, for a machine that has to ask anew.
    let presented =
        Registration { key: Some(Secret::new(BOOTSTRAP_KEY.to_owned())), claim: None, source: None };
    let first = agents.register(presented, registration("vm-1", 1)).await.unwrap();
    assert!(
        matches!(&first, Registered::Pending(agent, Some(_)) if agent.approval_status == ApprovalStatus::Pending)
    );
}

#[tokio::test]
async fn an_end_that_a_crash_left_half_way_is_finished_by_the_sweeper() {
    let mut stage = Stage::new().await;
    let id = stage.session(false).await;
    stage.test.execute("UPDATE agents SET deleted_at = last_heartbeat").await;
    stage.test.execute("UPDATE sessions SET state = 'terminating', state_reason = 'why'").await;
    stage.after(1).await;
    let ended = stage.get(id).await;
    assert_eq!((ended.state, ended.state_reason.as_deref()), (SessionState::Terminated, Some("why")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_is_placed_on_an_agent_that_is_being_removed() {
    let stage = Stage::new().await;
    let creates = (0..6).map(|_| {
        let (sessions, scope) =
            (stage.test.services().sessions.clone(), stage.org.admin.org().unwrap().clone());
        tokio::spawn(
            async move { sessions.create(&scope, new_session("shell"), None, |_, _| Value::Null).await },
        )
    });
    let creates: Vec<_> = creates.collect();
    let agents = stage.test.services().agents.clone();
    agents.remove(&Operator::console(), stage.agent.handle(), true).await.unwrap();
    for outcome in futures_util::future::join_all(creates).await {
        let outcome = outcome.unwrap();
        assert!(matches!(outcome, Ok(Changed::Queued(..)) | Err(Error::NoAgent(_))), "{outcome:?}");
    }
    let alive = "SELECT count(*) FROM sessions WHERE state <> 'terminated'";
    assert_eq!(stage.test.look::<i64>(alive).await, 0);
}

#[tokio::test]
async fn operators_see_and_end_sessions_of_every_organization_and_both_logs_say_so() {
    let mut stage = Stage::new().await;
    let bolt = stage.test.org_with_admin("bolt").await;
    let mine = stage.session(false).await;
    let theirs = stage.test.pending_session(&bolt.admin).await.id;
    let (all, operator) = (stage.test.services().all_sessions.clone(), Operator::console());
    let paging = |limit, cursor| tidegate_service::Paging { limit, cursor };
    let ids = async |org: Option<&str>, paging: tidegate_service::Paging| {
        let page = all.list(&operator, tidegate_model::SessionFilter::default(), org, &paging).await.unwrap();
        (page.items.iter().map(|session| session.id).collect::<Vec<_>>(), page.total, page.next_cursor)
    };
    let (first, total, next) = ids(None, paging(1, None)).await;
    assert_eq!((first, total), (vec![theirs], 2));
    assert_eq!(ids(None, paging(1, next)).await, (vec![mine], 2, None));
    assert_eq!(ids(Some("acme"), paging(9, None)).await.0, [mine]);
    assert_eq!(ids(Some(&bolt.id.to_string()), paging(9, None)).await.0, [theirs]);
    let nobody =
        all.list(&operator, tidegate_model::SessionFilter::default(), Some("nobody"), &paging(9, None)).await;
    assert!(matches!(nobody, Err(Error::NotFound(_))));
    let (ended, asked) = all.terminate(&operator, mine, Some("it mines coins")).await.unwrap();
    assert_eq!((ended.state, asked), (SessionState::Terminating, true));
    assert_eq!(ended.state_reason.as_deref(), Some("ended by an operator of the platform: it mines coins"));
    assert!(!all.terminate(&operator, mine, None).await.unwrap().1);
    stage.agent.work().await;
    assert_eq!(stage.state(mine).await, SessionState::Terminated);
    assert!(!all.terminate(&operator, mine, None).await.unwrap().1);
    let audited = format!(
        "SELECT count(*) FROM audit_log WHERE action = 'session.stop' AND (org_id IS NULL OR org_id = '{}')",
        stage.org.id
    );
    assert_eq!(stage.test.look::<i64>(&audited).await, 2);
    let missing = all.terminate(&operator, SessionId::new(), None).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));
}
