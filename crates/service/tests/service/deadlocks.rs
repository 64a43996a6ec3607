//! Writers of the same rows lock them in one order, whatever order each was told them in: none waits for another one
//! that waits for it.

use std::fmt::Debug;

use tidegate_model::{AgentReportedStatus, AgentStatusUpdate, Clock, CommandId, SessionId, SessionState};
use tidegate_persistence::session_end::{EndAll, EndOf, end_all};
use tidegate_protocol::HeartbeatMessage;
use tidegate_service::{Report, ReportKind};
use tidegate_test_support::{SimAgent, TestDb, TestOrg, eventually};

/// Two rows of a table.
struct Pair {
    table: &'static str,
    first: String,
    second: String,
}

impl Pair {
    fn of(table: &'static str, ids: impl IntoIterator<Item = String>) -> Self {
        let mut ids: Vec<String> = ids.into_iter().collect();
        ids.sort();
        let [first, second] = ids.try_into().unwrap();
        Self { table, first, second }
    }

    /// Holds the first row while `writer` writes both, and sees that the writer waits for it without the second.
    async fn locked_in_order<T, E: Debug>(&self, test: &TestDb, writer: impl Future<Output = Result<T, E>>) {
        let Self { table, first, second } = self;
        // Now it also lies behind the second.
        test.execute(&format!("UPDATE {table} SET id = id WHERE id = '{first}'")).await;
        let holder = test.superuser().await;
        let hold = format!("BEGIN; SELECT 1 FROM {table} WHERE id = '{first}' FOR NO KEY UPDATE");
        holder.batch_execute(&hold).await.unwrap();
        let watch = async {
            eventually("the writer waits", async || {
                test.look::<bool>(
                    "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
                     AND usename = 'tidegate_app' AND wait_event_type = 'Lock')",
                )
                .await
            })
            .await;
            let probe = format!("SELECT 1 FROM {table} WHERE id = '{second}' FOR NO KEY UPDATE NOWAIT");
            let probed = test.superuser().await.batch_execute(&probe).await;
            holder.batch_execute("COMMIT").await.unwrap();
            probed
        };
        let (written, probed) = tokio::join!(writer, watch);
        assert!(written.is_ok(), "{:?}", written.err());
        assert!(probed.is_ok(), "the writer holds the second {table} while it waits for the first");
    }
}

/// An agent with two running sessions.
async fn pair(test: &TestDb, org: &TestOrg) -> (SimAgent, Pair) {
    let mut agent = test.online_agent("vm-1", 9).await;
    test.running_session(&org.admin, &mut agent).await;
    test.running_session(&org.admin, &mut agent).await;
    let sessions = Pair::of("sessions", agent.behaviour.sessions.keys().cloned());
    (agent, sessions)
}

fn running(session_id: SessionId) -> ReportKind {
    ReportKind::Status(AgentStatusUpdate {
        session_id,
        state: SessionState::Running,
        generation: None,
        streaming_ready: Some(true),
        streaming_port: None,
        platform_metadata: None,
        reason: None,
    })
}

#[tokio::test]
async fn sessions_are_locked_in_the_order_of_their_ids_by_reports() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (agent, sessions) = pair(&test, &org).await;
    let told = [&sessions.second, &sessions.first].map(|id| running(id.parse().unwrap()));
    let batch = told.map(|kind| Report { link: agent.link(), kind }).to_vec();
    sessions.locked_in_order(&test, test.services().links.ingest(batch)).await;
}

#[tokio::test]
async fn what_commands_and_statuses_of_one_batch_mean_is_locked_together() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (agent, sessions) = pair(&test, &org).await;
    let second = sessions.second.parse().unwrap();
    test.services().sessions.hibernate(org.admin.org().unwrap(), second).await.unwrap();
    let command = CommandId::from_wire(&agent.claim().await[0].command.command_id).unwrap();
    let told = [ReportKind::Complete { command, result: None }, running(sessions.first.parse().unwrap())];
    let batch = told.map(|kind| Report { link: agent.link(), kind }).to_vec();
    sessions.locked_in_order(&test, test.services().links.ingest(batch)).await;
}

#[tokio::test]
async fn sessions_are_locked_in_the_order_of_their_ids_when_all_of_them_end() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (_agent, sessions) = pair(&test, &org).await;
    let (db, now) = (test.db(), test.manual_clock().now());
    let end = EndAll { of: EndOf::Organization, reason: "the end".into(), deadline: now, now };
    let ending = db.in_org(org.admin.org().unwrap(), async |tx| end_all(tx, end).await);
    sessions.locked_in_order(&test, ending).await;
}

#[tokio::test]
async fn commands_are_locked_in_the_order_of_their_ids() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (agent, sessions) = pair(&test, &org).await;
    for id in [&sessions.first, &sessions.second] {
        let id = id.parse().unwrap();
        test.services().sessions.hibernate(org.admin.org().unwrap(), id).await.unwrap();
    }
    let claimed = agent.claim().await;
    let ids = claimed.iter().map(|sent| CommandId::from_wire(&sent.command.command_id).unwrap());
    let commands = Pair::of("commands", ids.map(|id| id.to_string()));
    // An outcome of the one and an acknowledgement of the other: these are locked together, too.
    let told = [
        ReportKind::Ack(commands.second.parse().unwrap()),
        ReportKind::Complete { command: commands.first.parse().unwrap(), result: None },
    ];
    let batch = told.map(|kind| Report { link: agent.link(), kind }).to_vec();
    commands.locked_in_order(&test, test.services().links.ingest(batch)).await;
}

#[tokio::test]
async fn agents_are_locked_in_the_order_of_their_ids_by_heartbeats() {
    let test = TestDb::new().await;
    let mut fleet = [test.online_agent("vm-1", 9).await, test.online_agent("vm-2", 9).await];
    fleet.sort_by_key(|agent| std::cmp::Reverse(agent.link().agent_id()));
    let agents = Pair::of("agents", fleet.iter().map(|agent| agent.link().agent_id().to_string()));
    let batch = fleet.iter().map(|agent| {
        let status = AgentReportedStatus::Online;
        let beat = HeartbeatMessage { status, active_sessions: 1, capacity: None };
        Report { link: agent.link(), kind: ReportKind::Heartbeat(beat) }
    });
    agents.locked_in_order(&test, test.services().links.ingest(batch.collect())).await;
}
