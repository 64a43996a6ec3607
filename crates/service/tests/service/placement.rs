//! Where sessions go: what agents can hold, whom they serve, how they fared lately, and why one takes nothing.

use chrono::TimeDelta;
use futures_util::future::join_all;
use tidegate_model::{
    AgentCapacity, AgentHandle, AgentReportedStatus, DrainRequest, NewSession, PatchField, Session,
    SessionState, UpdateAgentRequest,
};
use tidegate_persistence::Operator;
use tidegate_protocol::{FailedMessage, FromAgent, HeartbeatMessage};
use tidegate_service::{AgentFilter, Caller, Changed, Error, NoRoom, ReportKind};
use tidegate_test_support::{SimAgent, TestDb, TestOrg, new_session};

use crate::{get, queued, state};

/// A shell of this size.
fn sized(cpu: &str, memory: &str) -> NewSession {
    let mut new = new_session("shell");
    let mut resources = new.resources.unwrap_or_default();
    (resources.cpu, resources.memory) = (Some(cpu.parse().unwrap()), Some(memory.parse().unwrap()));
    new.resources = Some(resources);
    new
}

async fn create(test: &TestDb, caller: &Caller, new: NewSession) -> Result<Session, Error> {
    let made = test.services().sessions.create(caller.org().unwrap(), new, None, |_, _| ().into()).await;
    made.map(queued)
}

/// Why each agent took nothing.
async fn reasons(test: &TestDb, caller: &Caller, new: NewSession) -> Vec<(String, String)> {
    match create(test, caller, new).await {
        Err(Error::NoAgent(rooms)) => {
            rooms.into_iter().map(|NoRoom { agent_id, reason }| (agent_id, reason)).collect()
        }
        other => panic!("{other:?} is no refusal"),
    }
}

async fn reason(test: &TestDb, caller: &Caller, new: NewSession) -> String {
    let mut all = reasons(test, caller, new).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).1
}

/// Says what an agent can hold.
async fn holds(agent: &SimAgent, max_sessions: u32, cpu: &str, memory: &str) {
    let capacity =
        AgentCapacity { max_sessions, cpu: cpu.into(), memory: memory.into(), ..AgentCapacity::default() };
    let (status, capacity) = (AgentReportedStatus::Online, Some(capacity));
    agent.report(ReportKind::Heartbeat(HeartbeatMessage { status, active_sessions: 0, capacity })).await;
}

async fn serve(test: &TestDb, agent: &str, org: Option<&str>) -> Result<(), Error> {
    let organization = org.map_or(PatchField::Clear, |org| PatchField::Set(org.to_owned()));
    let change = UpdateAgentRequest { organization, ..UpdateAgentRequest::default() };
    let handle: AgentHandle = agent.parse().unwrap();
    test.services().agents.update(&Operator::console(), &handle, change).await.map(drop)
}

async fn two_orgs(test: &TestDb) -> (TestOrg, TestOrg) {
    (test.org_with_admin("acme").await, test.org_with_admin("bolt").await)
}

#[tokio::test]
async fn cpu_and_memory_of_what_is_placed_count_whatever_the_organization() {
    let test = TestDb::new().await;
    let (acme, bolt) = two_orgs(&test).await;
    let agent = test.online_agent("vm-1", 10).await;
    holds(&agent, 10, "2 cores", "4 GiB").await;
    create(&test, &acme.admin, sized("1500m", "1Gi")).await.unwrap();
    assert_eq!(
        reason(&test, &bolt.admin, sized("1", "1Gi")).await,
        "has 500m of 2000m CPU free, 1000m asked for"
    );
    assert_eq!(
        reason(&test, &bolt.admin, sized("500m", "3.5Gi")).await,
        "has 3Gi of 4Gi memory free, 3584Mi asked for"
    );
    create(&test, &bolt.admin, sized("500m", "3Gi")).await.unwrap();
    // What it can hold grows with its next word, and what it does not say bounds nothing.
    holds(&agent, 10, "", "unknown").await;
    create(&test, &bolt.admin, sized("64", "512Gi")).await.unwrap();
}

/// Asks for so many sessions at once, by turns for each of the callers, and says how many were placed.
async fn race(test: &TestDb, callers: &[&Caller], count: usize, new: &NewSession) -> usize {
    let creates = (0..count).map(|index| {
        let (sessions, scope) =
            (test.services().sessions.clone(), callers[index % callers.len()].org().unwrap().clone());
        let new = new.clone();
        tokio::spawn(async move { sessions.create(&scope, new, None, |_, _| ().into()).await })
    });
    let mut placed = 0;
    for outcome in join_all(creates).await {
        match outcome.unwrap() {
            Ok(Changed::Queued(..)) => placed += 1,
            Err(Error::NoAgent(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    placed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creates_at_one_time_never_overfill_the_cpu_or_the_memory_of_an_agent() {
    let test = TestDb::new().await;
    let (acme, bolt) = two_orgs(&test).await;
    for handle in ["vm-1", "vm-2", "vm-3"] {
        let agent = test.online_agent(handle, 100).await;
        holds(&agent, 100, "4", "16Gi").await;
    }
    let callers = [&acme.admin, &bolt.admin];
    assert_eq!(race(&test, &callers, 24, &sized("1", "1Gi")).await, 12);
    let most = "SELECT max(n)::bigint FROM (SELECT sum(cpu_millis) AS n FROM sessions GROUP BY agent_id) x";
    assert_eq!(test.look::<i64>(most).await, 4_000);
    test.execute("UPDATE sessions SET state = 'terminated', ended_at = state_since").await;
    assert_eq!(race(&test, &callers, 24, &sized("100m", "5Gi")).await, 9);
    let most = "SELECT max(n)::bigint FROM (SELECT sum(memory_bytes) AS n FROM sessions
                WHERE state = 'pending' GROUP BY agent_id) x";
    assert_eq!(test.look::<i64>(most).await, 15 << 30);
}

#[tokio::test]
async fn what_sleeps_takes_no_room_and_wakes_into_room_alone() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (scope, sessions) = (org.admin.org().unwrap(), &test.services().sessions);
    let mut agent = test.online_agent("vm-1", 10).await;
    holds(&agent, 10, "1", "64Gi").await;
    let id = create(&test, &org.admin, sized("600m", "1Gi")).await.unwrap().id;
    agent.work().await;
    sessions.hibernate(scope, id).await.unwrap();
    agent.work().await;
    let other = create(&test, &org.admin, sized("600m", "1Gi")).await.unwrap().id;
    agent.work().await;
    let refused = sessions.wake(scope, id).await;
    let Err(Error::NoAgent(rooms)) = refused else { panic!("{refused:?}") };
    assert_eq!(rooms[0].reason, "has 400m of 1000m CPU free, 600m asked for");
    assert_eq!(state(&test, &org.admin, id).await, SessionState::Hibernated);
    sessions.terminate(scope, other).await.unwrap();
    agent.work().await;
    // Nor is anything woken on an agent that is drained.
    let (agents, operator) = (&test.services().agents, Operator::console());
    agents.drain(&operator, agent.handle(), DrainRequest::default()).await.unwrap();
    let refused = sessions.wake(scope, id).await;
    let Err(Error::NoAgent(rooms)) = refused else { panic!("{refused:?}") };
    assert_eq!(rooms[0].reason, "is drained by an operator");
    agents.undrain(&operator, agent.handle()).await.unwrap();
    assert_eq!(queued(sessions.wake(scope, id).await.unwrap()).state, SessionState::Waking);
}

#[tokio::test]
async fn an_agent_that_was_not_heard_of_for_too_long_gets_nothing_before_anybody_marks_it_offline() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let agent = test.online_agent("vm-1", 10).await;
    test.manual_clock().advance(TimeDelta::seconds(30));
    create(&test, &org.admin, new_session("shell")).await.unwrap();
    test.manual_clock().advance(TimeDelta::seconds(12));
    assert_eq!(reason(&test, &org.admin, new_session("shell")).await, "was last heard of 42 s ago");
    let status = "SELECT status FROM agents";
    assert_eq!(test.look::<String>(status).await, "online");
    agent.report(ReportKind::Alive).await;
    create(&test, &org.admin, new_session("shell")).await.unwrap();
}

#[tokio::test]
async fn an_agent_whose_starts_failed_lately_comes_last() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut bad = test.online_agent("vm-1", 20).await;
    bad.behaviour.misbehave(|command, _| {
        let (command_id, error) = (command.command_id.clone(), "no such image".to_owned());
        vec![FromAgent::Failed(FailedMessage { command_id, error })]
    });
    let failed = test.pending_session(&org.admin).await.id;
    bad.work().await;
    assert_eq!(get(&test, &org.admin, failed).await.state, SessionState::Failed);
    let good = test.online_agent("vm-2", 6).await;
    let mut placed = Vec::new();
    for _ in 0..7 {
        let session = create(&test, &org.admin, new_session("shell")).await.unwrap();
        placed.push(session.agent_id.unwrap().to_string());
    }
    // The other one first, though it is fuller, and the bad one where nothing else is left.
    assert_eq!(placed[..6], ["vm-2"; 6]);
    assert_eq!(placed[6], "vm-1");
    // Five minutes later it is an agent like any other: the emptier one.
    test.execute(
        "UPDATE sessions SET state = 'terminated', ended_at = state_since WHERE agent_handle = 'vm-1'",
    )
    .await;
    test.execute("UPDATE sessions SET state = 'terminated', ended_at = state_since
                  WHERE id = (SELECT id FROM sessions WHERE agent_handle = 'vm-2' AND state = 'pending' LIMIT 1)")
        .await;
    test.manual_clock().advance(TimeDelta::seconds(301));
    bad.report(ReportKind::Alive).await;
    good.report(ReportKind::Alive).await;
    let session = create(&test, &org.admin, new_session("shell")).await.unwrap();
    assert_eq!(session.agent_id.unwrap().as_str(), "vm-1");
}

#[tokio::test]
async fn sessions_spread_by_the_scarcest_of_what_agents_have() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    for (handle, cpu, memory) in [("vm-1", "16", "8Gi"), ("vm-2", "8", "64Gi")] {
        let agent = test.online_agent(handle, 100).await;
        holds(&agent, 100, cpu, memory).await;
    }
    // A quarter of the first one's memory, then a sixteenth of the second one's CPU at a time.
    let mut placed = Vec::new();
    for _ in 0..5 {
        let session = create(&test, &org.admin, sized("500m", "2Gi")).await.unwrap();
        placed.push(session.agent_id.unwrap().to_string());
    }
    assert!(placed.iter().filter(|agent| *agent == "vm-2").count() >= 3, "{placed:?}");
}

#[tokio::test]
async fn an_agent_of_an_organization_serves_it_alone_and_others_do_not_hear_of_it() {
    let test = TestDb::new().await;
    let (acme, bolt) = two_orgs(&test).await;
    test.online_agent("vm-acme", 2).await;
    serve(&test, "vm-acme", Some("acme")).await.unwrap();
    // To others nothing is there, not even a reason.
    assert_eq!(reasons(&test, &bolt.admin, new_session("shell")).await, []);
    for _ in 0..2 {
        let session = create(&test, &acme.admin, new_session("shell")).await.unwrap();
        assert_eq!(session.agent_id.unwrap().as_str(), "vm-acme");
    }
    test.online_agent("vm-shared", 2).await;
    // Its own is full; the shared one serves all.
    let session = create(&test, &acme.admin, new_session("shell")).await.unwrap();
    assert_eq!(session.agent_id.unwrap().as_str(), "vm-shared");
    create(&test, &bolt.admin, new_session("shell")).await.unwrap();
    let full = |agent: &str| (agent.to_owned(), "is full: 2 of 2 sessions".to_owned());
    let of_bolt = reasons(&test, &bolt.admin, new_session("shell")).await;
    assert_eq!(of_bolt, [full("vm-shared")]);
    let of_acme = reasons(&test, &acme.admin, new_session("shell")).await;
    assert_eq!(of_acme, [full("vm-acme"), full("vm-shared")]);
    // Operators see whose it is, and find it by that.
    let filter = AgentFilter { organization: Some("acme".into()), ..AgentFilter::default() };
    let list = test.services().agents.list(&Operator::console(), filter).await.unwrap();
    let seen: Vec<_> =
        list.iter().map(|agent| (agent.agent_id.as_str(), agent.organization.as_deref())).collect();
    assert_eq!(seen, [("vm-acme", Some("acme"))]);
    assert_eq!(list[0].org_id, Some(acme.id));
}

#[tokio::test]
async fn an_agent_is_given_to_nobody_while_it_holds_sessions_of_others() {
    let test = TestDb::new().await;
    let (acme, bolt) = two_orgs(&test).await;
    let mut agent = test.online_agent("vm-1", 9).await;
    let (theirs, ours) = (
        test.running_session(&bolt.admin, &mut agent).await.id,
        test.running_session(&acme.admin, &mut agent).await.id,
    );
    let sessions = &test.services().sessions;
    let refused = async || {
        let refused = serve(&test, "vm-1", Some("acme")).await;
        let Err(Error::Conflict { code: "E_AGENT_BUSY", message }) = refused else { panic!("{refused:?}") };
        message
    };
    let advice = "of other organizations: drain it and let them end";
    assert_eq!(refused().await, format!("agent vm-1 holds 1 session {advice}"));
    sessions.hibernate(bolt.admin.org().unwrap(), theirs).await.unwrap();
    agent.work().await;
    assert_eq!(refused().await, format!("agent vm-1 holds 1 session, 1 of them hibernated {advice}"));
    sessions.terminate(bolt.admin.org().unwrap(), theirs).await.unwrap();
    agent.work().await;
    serve(&test, "vm-1", Some("acme")).await.unwrap();
    assert!(matches!(serve(&test, "vm-1", Some("nobody")).await, Err(Error::NotFound(_))));
    // What it holds of its own goes on.
    sessions.hibernate(acme.admin.org().unwrap(), ours).await.unwrap();
    agent.work().await;
    sessions.wake(acme.admin.org().unwrap(), ours).await.unwrap();
    serve(&test, "vm-1", None).await.unwrap();
    create(&test, &bolt.admin, new_session("shell")).await.unwrap();
}

/// So many agents that are online, copies of `vm-1`; of every four one is of acme and two are of bolt.
async fn many(test: &TestDb, count: i64) {
    test.online_agent("vm-1", 1_000).await;
    test.execute(&format!(
        "INSERT INTO agents (id, agent_id, platform, status, max_sessions, last_heartbeat, approval_status, created_at, updated_at, org_id)
         SELECT gen_random_uuid(), 'many-' || n, a.platform, a.status, a.max_sessions, a.last_heartbeat, a.approval_status,
                a.created_at, a.updated_at, (SELECT o.id FROM organizations o
                WHERE o.name = CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN 'acme' ELSE 'bolt' END)
         FROM agents a, generate_series(1, {count}) n WHERE a.agent_id = 'vm-1'; ANALYZE agents"
    ))
    .await;
}

#[tokio::test]
async fn a_placement_among_thousands_of_agents_reads_a_few_of_them() {
    let test = TestDb::new().await;
    let (acme, _bolt) = two_orgs(&test).await;
    many(&test, 4_000).await;
    // Counted by the server itself, a moment after the transaction.
    let read = "SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'agents')
                     + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'agents')::bigint";
    let sessions_read =
        "SELECT COALESCE(sum(n_tup_ins), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'sessions'";
    let (before, made) = (test.look::<i64>(read).await, test.look::<i64>(sessions_read).await);
    for _ in 0..20 {
        create(&test, &acme.admin, new_session("shell")).await.unwrap();
    }
    let counted = async || test.look::<i64>(sessions_read).await >= made + 20;
    tidegate_test_support::eventually("the server has counted", counted).await;
    let rows = test.look::<i64>(read).await - before;
    assert!(rows < 20 * 100, "{rows} rows of agents were read for 20 placements");
}
