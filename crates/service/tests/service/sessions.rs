//! A session's life as people ask for it: placement, each change with its command, repeats, wrong states.

use tidegate_model::{AgentReportedStatus, CommandAction, DrainRequest, OrgRole, SessionState};
use tidegate_persistence::Operator;
use tidegate_service::{Changed, Error, Idempotency};
use tidegate_test_support::{TestDb, new_session};

use crate::{get, queued, state};

#[tokio::test]
async fn a_session_goes_from_create_to_running_by_its_commands_life() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let session = test.pending_session(&org.admin).await;
    assert_eq!((session.state, session.generation), (SessionState::Pending, 1));
    agent.behaviour.hold();
    agent.work().await;
    let (agents, operator) = (&test.services().agents, Operator::console());
    let command = agents.commands(&operator, agent.handle(), 10).await.unwrap().remove(0);
    assert_eq!((command.action, command.status.as_str()), (CommandAction::StartSession, "sent"));
    agent.release().await;
    let command = agents.command(&operator, command.id).await.unwrap();
    assert_eq!(command.status.as_str(), "completed");
    assert!(command.sent_at.is_some() && command.acknowledged_at.is_some() && command.completed_at.is_some());
    assert_eq!(state(&test, &org.admin, session.id).await, SessionState::Running);
}

#[tokio::test]
async fn hibernate_wake_and_terminate_go_through_their_commands_and_leave_a_history() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, sessions) = (org.admin.org().unwrap(), &test.services().sessions);
    let mut agent = test.online_agent("vm-1", 3).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    assert_eq!(queued(sessions.hibernate(scope, id).await.unwrap()).state, SessionState::Hibernating);
    assert!(matches!(sessions.hibernate(scope, id).await.unwrap(), Changed::Already(_)));
    agent.work().await;
    let asleep = get(&test, &org.admin, id).await;
    assert_eq!(asleep.state, SessionState::Hibernated);
    assert!(asleep.hibernated_at.is_some() && !asleep.streaming_ready);
    assert!(matches!(sessions.hibernate(scope, id).await.unwrap(), Changed::Already(_)));
    let waking = queued(sessions.wake(scope, id).await.unwrap());
    assert_eq!((waking.state, waking.generation), (SessionState::Waking, 2));
    agent.work().await;
    assert!(matches!(sessions.wake(scope, id).await.unwrap(), Changed::Already(_)));
    queued(sessions.terminate(scope, id).await.unwrap());
    agent.work().await;
    assert!(matches!(sessions.terminate(scope, id).await.unwrap(), Changed::Already(_)));
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Terminated);
    let history = sessions.history(scope, id).await.unwrap();
    let steps: Vec<&str> = history.iter().map(|event| event.to_state.as_str()).collect();
    let life =
        ["pending", "running", "hibernating", "hibernated", "waking", "running", "terminating", "terminated"];
    assert_eq!(steps, life);
    assert!(history.windows(2).all(|pair| pair[1].from_state == Some(pair[0].to_state)));
}

#[tokio::test]
async fn what_a_state_does_not_allow_is_refused_by_name() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, sessions) = (org.admin.org().unwrap(), &test.services().sessions);
    let mut agent = test.online_agent("vm-1", 3).await;
    let pending = test.pending_session(&org.admin).await.id;
    for outcome in [sessions.hibernate(scope, pending).await, sessions.wake(scope, pending).await] {
        assert!(
            matches!(outcome, Err(Error::WrongState { state: SessionState::Pending, .. })),
            "{outcome:?}"
        );
    }
    agent.work().await;
    sessions.terminate(scope, pending).await.unwrap();
    agent.work().await;
    for outcome in [sessions.hibernate(scope, pending).await, sessions.wake(scope, pending).await] {
        assert!(
            matches!(outcome, Err(Error::WrongState { state: SessionState::Terminated, .. })),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_failed_session_is_cleaned_up_by_its_deletion() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 3).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    test.execute("UPDATE sessions SET state = 'failed'").await;
    let sessions = &test.services().sessions;
    let scope = org.admin.org().unwrap();
    assert!(matches!(sessions.terminate(scope, id).await.unwrap(), Changed::Already(_)));
    assert!(matches!(sessions.get(scope, id).await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_creates_against_three_agents_of_ten_place_exactly_thirty() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    for handle in ["vm-1", "vm-2", "vm-3"] {
        test.online_agent(handle, 10).await;
    }
    let scope = org.admin.org().unwrap();
    let creates = (0..50).map(|_| {
        let (sessions, scope) = (test.services().sessions.clone(), scope.clone());
        tokio::spawn(
            async move { sessions.create(&scope, new_session("shell"), None, |_, _| ().into()).await },
        )
    });
    let (mut placed, mut refused) = (0, 0);
    for outcome in futures_util::future::join_all(creates).await {
        match outcome.unwrap() {
            Ok(Changed::Queued(..)) => placed += 1,
            Err(Error::NoAgent(reasons)) => {
                refused += 1;
                assert_eq!(reasons.len(), 3);
                assert!(
                    reasons.iter().all(|room| room.reason == "is full: 10 of 10 sessions"),
                    "{reasons:?}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((placed, refused), (30, 20));
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM sessions GROUP BY agent_id) x";
    assert_eq!(test.look::<i64>(most).await, 10);
}

#[tokio::test]
async fn an_agent_that_drains_is_offline_or_elsewhere_gets_nothing_and_says_why() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let agent = test.online_agent("vm-1", 3).await;
    let reason = async |region: Option<&str>| {
        let new = tidegate_model::NewSession { region: region.map(str::to_owned), ..new_session("shell") };
        let made =
            test.services().sessions.create(org.admin.org().unwrap(), new, None, |_, _| ().into()).await;
        let Err(Error::NoAgent(reasons)) = made else { panic!("{made:?}") };
        reasons[0].reason.clone()
    };
    assert_eq!(reason(Some("eu")).await, "is in region none");
    agent.heartbeat(AgentReportedStatus::Draining).await;
    assert_eq!(reason(None).await, "is draining");
    agent.heartbeat(AgentReportedStatus::Online).await;
    test.services()
        .agents
        .drain(&Operator::console(), agent.handle(), DrainRequest::default())
        .await
        .unwrap();
    agent.heartbeat(AgentReportedStatus::Online).await;
    assert_eq!(reason(None).await, "is drained by an operator");
    test.services().agents.undrain(&Operator::console(), agent.handle()).await.unwrap();
    test.services().links.close(&agent.link()).await.unwrap();
    assert_eq!(reason(None).await, "is offline");
}

#[tokio::test]
async fn a_full_agent_wakes_nothing() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, sessions) = (org.admin.org().unwrap(), &test.services().sessions);
    let mut agent = test.online_agent("vm-1", 1).await;
    let id = test.running_session(&org.admin, &mut agent).await.id;
    sessions.hibernate(scope, id).await.unwrap();
    agent.work().await;
    test.running_session(&org.admin, &mut agent).await;
    assert!(matches!(sessions.wake(scope, id).await, Err(Error::NoAgent(_))));
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Hibernated);
}

#[tokio::test]
async fn the_same_key_and_body_get_the_first_answer_and_another_body_is_refused() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    test.online_agent("vm-1", 10).await;
    let scope = org.admin.org().unwrap();
    let create = async |body: &[u8]| {
        let key = Idempotency::new(scope.credential(), "POST /sessions", "key", body).unwrap();
        let answer = |session: &tidegate_model::Session, _| serde_json::json!({"id": session.id});
        test.services().sessions.create(scope, new_session("shell"), Some(&key), answer).await
    };
    let first = queued(create(b"one").await.unwrap());
    let Changed::Replay(replay) = create(b"one").await.unwrap() else { panic!("a replay") };
    assert_eq!((replay.status, replay.body["id"].as_str().unwrap()), (202, first.id.to_string().as_str()));
    let mismatch = create(b"two").await;
    assert!(matches!(mismatch, Err(Error::Conflict { code: "E_IDEMPOTENCY_MISMATCH", .. })), "{mismatch:?}");
    assert_eq!(test.look::<i64>("SELECT count(*) FROM sessions").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_racers_with_one_key_make_one_session() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    test.online_agent("vm-1", 10).await;
    let scope = org.admin.org().unwrap();
    let racers = (0..8).map(|_| {
        let (sessions, scope) = (test.services().sessions.clone(), scope.clone());
        tokio::spawn(async move {
            let key = Idempotency::new(scope.credential(), "POST /sessions", "key", b"one").unwrap();
            let answer = |session: &tidegate_model::Session, _| serde_json::json!({"id": session.id});
            sessions.create(&scope, new_session("shell"), Some(&key), answer).await
        })
    });
    let mut made = 0;
    for outcome in futures_util::future::join_all(racers).await {
        match outcome.unwrap() {
            Ok(Changed::Queued(..)) => made += 1,
            Ok(Changed::Replay(_)) | Err(Error::Conflict { code: "E_IDEMPOTENCY_RUNNING", .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(test.look::<i64>("SELECT count(*) FROM sessions").await, 1);
}

#[tokio::test]
async fn a_viewer_starts_nothing() {
    let test = TestDb::new().await;
    test.org_with_admin("acme").await;
    test.online_agent("vm-1", 10).await;
    let viewer = test.caller(&test.user_in("acme", OrgRole::Viewer).await).await;
    let made =
        test.services().sessions.create(viewer.org().unwrap(), new_session("shell"), None, |_, _| ().into());
    assert!(matches!(made.await, Err(Error::Forbidden(_))));
    assert_eq!(test.look::<i64>("SELECT count(*) FROM sessions").await, 0);
}

#[tokio::test]
async fn an_environment_is_sealed_at_rest_open_on_delivery_and_wiped_at_the_end() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, sessions) = (org.admin.org().unwrap(), &test.services().sessions);
    let mut agent = test.online_agent("vm-1", 10).await;
    let mut new = new_session("shell");
    new.environment.insert("TOKEN".into(), "hunter2-in-plain".into());
    let id = queued(sessions.create(scope, new, None, |_, _| ().into()).await.unwrap()).id;
    let leaks = "SELECT count(*) FROM (SELECT to_jsonb(c)::text AS t FROM commands c UNION ALL SELECT to_jsonb(s)::text FROM session_specs s
                 UNION ALL SELECT encode(sealed, 'escape') FROM commands UNION ALL SELECT encode(environment, 'escape') FROM session_specs) x
                 WHERE t LIKE '%hunter2%'";
    assert_eq!(test.look::<i64>(leaks).await, 0);
    assert_eq!(test.look::<i64>("SELECT count(*) FROM commands WHERE sealed IS NOT NULL").await, 1);
    let claimed = agent.claim().await.remove(0).command;
    assert_eq!(claimed.payload["environment"]["TOKEN"], "hunter2-in-plain");
    let answer = agent.behaviour.answer(&claimed);
    agent.say(answer).await;
    assert_eq!(test.look::<i64>("SELECT count(*) FROM commands WHERE sealed IS NOT NULL").await, 0);
    // Asleep it is still needed.
    sessions.hibernate(scope, id).await.unwrap();
    agent.work().await;
    sessions.wake(scope, id).await.unwrap();
    assert_eq!(agent.claim().await[0].command.payload["environment"]["TOKEN"], "hunter2-in-plain");
    sessions.terminate(scope, id).await.unwrap();
    agent.reconnect().await;
    agent.work().await;
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Terminated);
    assert_eq!(test.look::<i64>("SELECT count(*) FROM session_specs").await, 0);
    assert_eq!(test.look::<i64>("SELECT count(*) FROM commands WHERE sealed IS NOT NULL").await, 0);
}
