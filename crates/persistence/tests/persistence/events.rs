//! The stream of events: in the order in which it became final, with walls, and with an end that is known.

use chrono::TimeDelta;
use tidegate_model::{AgentReportedStatus, Change, CommandStatus, EventId, OrgRole, SessionState};
use tidegate_persistence::{
    Db, Operator,
    event::{self, Page},
};
use tidegate_test_support::{TestDb, TestOrg, eventually, eventually_some};
use tokio_postgres::{Client, error::SqlState};

async fn of_all(db: &Db, after: EventId, most: i64) -> Page {
    let system = Operator::system();
    db.in_platform(&system, async |tx| event::page_of_all(tx, after, most).await).await.unwrap()
}

async fn of(db: &Db, org: &TestOrg, after: EventId, most: i64) -> Page {
    db.in_org(org.admin.org().unwrap(), async |tx| event::page(tx, after, most).await).await.unwrap()
}

fn ids(page: &Page) -> Vec<EventId> {
    page.told.iter().map(|told| told.event.id).collect()
}

/// Begins a transaction that moves a session and is not over yet.
async fn begin(test: &TestDb, session: &str, state: &str) -> Client {
    let client = test.superuser().await;
    let sql =
        format!("BEGIN; UPDATE sessions SET state = '{state}', state_since = now() WHERE id = '{session}'");
    client.batch_execute(&sql).await.unwrap();
    client
}

/// Everything after a place, once nothing runs any more that could still add to it. Transactions of other tests hold the
/// stream up too: one cluster has one order.
async fn settled(test: &TestDb, after: EventId, wanted: usize) -> Page {
    let db = test.db();
    eventually_some("the stream is whole", async || {
        Some(of_all(&db, after, 1_000).await).filter(|page| page.told.len() >= wanted)
    })
    .await
}

#[tokio::test]
async fn transactions_that_commit_in_the_other_order_than_they_began_lose_nothing() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let (first, second) = (test.pending_session(&org.admin).await, test.pending_session(&org.admin).await);
    let db = test.db();
    let start = settled(&test, EventId::START, 6).await.to;
    let early = begin(&test, &first.id.to_string(), "running").await;
    let late = begin(&test, &second.id.to_string(), "running").await;
    late.batch_execute("COMMIT").await.unwrap();
    // The later one is there to be seen, and its number is the larger one: whoever gave it out now would pass the other.
    let there: i64 = test.look("SELECT count(*) FROM session_events WHERE to_state = 'running'").await;
    assert_eq!(there, 1);
    let held = of_all(&db, start, 1_000).await;
    assert_eq!((ids(&held), held.to), (Vec::new(), start), "it waits for the one that began before");
    assert!(held.whole < held.next);
    early.batch_execute("COMMIT").await.unwrap();
    let page = settled(&test, start, 2).await;
    let sessions: Vec<_> = page.told.iter().map(|told| told.event.change.session().unwrap()).collect();
    assert_eq!(sessions, [first.id, second.id], "in the order of the transactions");
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_is_no_event_and_holds_nothing_up() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let (first, second) = (test.pending_session(&org.admin).await, test.pending_session(&org.admin).await);
    let start = settled(&test, EventId::START, 6).await.to;
    let given_up = begin(&test, &first.id.to_string(), "running").await;
    let kept = begin(&test, &second.id.to_string(), "running").await;
    kept.batch_execute("COMMIT").await.unwrap();
    given_up.batch_execute("ROLLBACK").await.unwrap();
    let page = settled(&test, start, 1).await;
    assert_eq!(page.told.len(), 1);
    assert_eq!(page.told[0].event.change.session(), Some(second.id));
}

#[tokio::test]
async fn a_session_that_starts_is_told_from_its_command_to_its_end() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    let session = test.running_session(&org.admin, &mut agent).await;
    let page = settled(&test, EventId::START, 6).await;
    let of_it = page.told.iter().filter(|told| told.event.change.session() == Some(session.id));
    let told: Vec<String> = of_it
        .clone()
        .map(|told| match &told.event.change {
            Change::Session(change) => {
                format!("{:?} {}", change.from_state.map(SessionState::as_str), change.to_state)
            }
            Change::Command(change) => format!("{} {}", change.action, change.status),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        ["None pending", "start_session pending", "start_session completed", r#"Some("pending") running"#]
    );
    for told in of_it {
        assert_eq!((told.org_id, told.owner), (Some(org.id), Some(session.user_id)));
    }
}

#[tokio::test]
async fn commands_that_are_sent_and_acknowledged_are_no_events() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    test.running_session(&org.admin, &mut agent).await;
    let lines: i64 = test.look("SELECT count(*) FROM events WHERE kind = 'command'").await;
    assert_eq!(lines, 2, "queued and completed");
    let stamped: i64 = test
        .look("SELECT count(*) FROM commands WHERE sent_at IS NOT NULL AND acknowledged_at IS NOT NULL")
        .await;
    assert_eq!(stamped, 1);
    test.execute("UPDATE commands SET status = 'failed', error_message = repeat('x', 5000)").await;
    let reason: i32 = test.look("SELECT length(reason) FROM events WHERE status = 'failed'").await;
    assert_eq!(reason, 1_000);
    test.execute("UPDATE commands SET status = 'failed'").await;
    let again: i64 = test.look("SELECT count(*) FROM events WHERE status = 'failed'").await;
    assert_eq!(again, 1, "a state that does not change is no event");
}

#[tokio::test]
async fn heartbeats_of_an_agent_are_no_events_and_its_changes_are() {
    let test = TestDb::new().await;
    let agent = test.online_agent("vm-1", 10).await;
    let before: i64 = test.look("SELECT count(*) FROM events WHERE kind = 'agent'").await;
    for _ in 0..3 {
        test.manual_clock().advance(TimeDelta::seconds(5));
        agent.heartbeat(AgentReportedStatus::Online).await;
    }
    assert_eq!(test.look::<i64>("SELECT count(*) FROM events WHERE kind = 'agent'").await, before);
    test.services()
        .agents
        .drain(&Operator::console(), agent.handle(), tidegate_model::DrainRequest::default())
        .await
        .unwrap();
    test.execute("UPDATE agents SET deleted_at = now()").await;
    let told = settled(&test, EventId::START, usize::try_from(before).unwrap() + 2).await.told;
    let last: Vec<_> = told.iter().rev().take(2).map(|told| told.event.change.clone()).collect();
    let Change::Agent(removed) = &last[0] else { panic!("{last:?}") };
    let Change::Agent(drained) = &last[1] else { panic!("{last:?}") };
    assert!(removed.removed && !drained.removed && drained.drained, "{last:?}");
    assert_eq!(drained.status, tidegate_model::AgentStatus::Draining);
}

#[tokio::test]
async fn an_organization_reads_its_own_events_and_no_agents() {
    let test = TestDb::new().await;
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let _agent = test.online_agent("vm-1", 10).await;
    test.pending_session(&acme.admin).await;
    test.pending_session(&bolt.admin).await;
    settled(&test, EventId::START, 6).await;
    for org in [&acme, &bolt] {
        let page = of(&test.db(), org, EventId::START, 1_000).await;
        assert_eq!(page.told.len(), 2);
        assert!(page.told.iter().all(|told| told.org_id == Some(org.id)), "{page:?}");
    }
    // Whatever the role writes into a statement.
    let app = test.app().await;
    let enter = format!(
        "BEGIN; SELECT set_config('role', 'tidegate_org', true), set_config('app.org_id', '{}', true)",
        acme.id
    );
    app.batch_execute(&enter).await.unwrap();
    for sql in [
        format!("SELECT count(*) FROM events WHERE org_id IS DISTINCT FROM '{}'", acme.id),
        format!("SELECT count(*) FROM session_events WHERE org_id IS DISTINCT FROM '{}'", acme.id),
        "SELECT count(*) FROM events WHERE kind = 'agent'".to_owned(),
    ] {
        assert_eq!(app.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), 0, "{sql}");
    }
    app.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn no_role_of_the_server_writes_events_or_moves_the_horizon() {
    let test = TestDb::new().await;
    let app = test.app().await;
    for role in ["tidegate_org", "tidegate_user", "tidegate_hub", "tidegate_platform"] {
        for sql in [
            "INSERT INTO events (kind, agent_id, agent_handle, status, at) VALUES ('agent', gen_random_uuid(), 'a', 'online', now())",
            "UPDATE events SET status = 'x'",
            "UPDATE event_horizon SET xact = 0",
            "DELETE FROM event_horizon",
            "UPDATE session_events SET xact = 0",
        ] {
            app.batch_execute(&format!("BEGIN; SELECT set_config('role', '{role}', true)")).await.unwrap();
            let refused = app.batch_execute(sql).await.unwrap_err();
            assert_eq!(refused.code().map(SqlState::code), Some("42501"), "{role}: {sql}");
            app.batch_execute("ROLLBACK").await.unwrap();
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_give_every_event_once_and_in_order() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    for _ in 0..4 {
        test.running_session(&org.admin, &mut agent).await;
    }
    let whole = ids(&settled(&test, EventId::START, 18).await);
    assert!(whole.is_sorted());
    for most in [1, 2, 3, 7] {
        let (mut place, mut seen) = (EventId::START, Vec::new());
        loop {
            let page = of_all(&test.db(), place, most).await;
            seen.extend(ids(&page));
            place = page.to;
            if !page.full {
                break;
            }
        }
        assert_eq!(seen, whole, "pages of {most}");
    }
}

#[tokio::test]
async fn what_retention_lets_go_moves_the_horizon() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    let session = test.running_session(&org.admin, &mut agent).await;
    let before = settled(&test, EventId::START, 6).await;
    assert_eq!(before.horizon, EventId::START);
    test.manual_clock().advance(TimeDelta::days(31));
    let gone = test.services().operators.tidy().await.unwrap();
    assert!(gone.iter().any(|(table, _)| *table == "session_events"), "{gone:?}");
    let last_gone = before.told.iter().rev().find(|told| told.event.change.session() == Some(session.id));
    let after = of_all(&test.db(), EventId::START, 1_000).await;
    assert_eq!(after.horizon, last_gone.unwrap().event.id);
    assert!(after.has_lost(EventId::START) && !after.has_lost(after.horizon));
    test.services().sessions.terminate(org.admin.org().unwrap(), session.id).await.unwrap();
    let page = settled(&test, after.horizon, 2).await;
    let queued = page.told.iter().any(|told| {
        matches!(&told.event.change, Change::Command(change) if change.status == CommandStatus::Pending)
    });
    assert!(queued, "{page:?}");
}

#[tokio::test]
async fn a_dump_that_was_restored_into_a_younger_cluster_goes_on_with_its_events() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    test.pending_session(&org.admin).await;
    let before = ids(&settled(&test, EventId::START, 4).await);
    // Numbers of transactions as another cluster may have had them.
    let far = 1_i64 << 50;
    for table in ["session_events", "events", "event_horizon"] {
        test.execute(&format!("UPDATE {table} SET xact = xact + {far}")).await;
    }
    let group = "INSERT INTO groups (id, org_id, name, display_name, type, created_at, updated_at)
                 SELECT gen_random_uuid(), id, 'crew', 'The crew', 'team', now(), now() FROM organizations WHERE name = 'acme'";
    test.execute(group).await;
    for sql in [
        "INSERT INTO group_memberships (org_id, group_id, user_id, role, created_at)
         SELECT g.org_id, g.id, m.user_id, 'member', now() FROM groups g JOIN memberships m ON m.org_id = g.org_id",
        "INSERT INTO session_shares (id, org_id, session_id, group_id, mode, created_at)
         SELECT gen_random_uuid(), s.org_id, s.id, g.id, 'view', now() FROM sessions s JOIN groups g ON g.org_id = s.org_id",
    ] {
        test.execute(sql).await;
    }
    // Of a whole number of 2^32 transactions there is no snapshot.
    let near = far + 7;
    let ways = [("session_shares", "since"), ("group_memberships", "since"), ("groups", "parent_since")];
    for (table, column) in ways {
        test.execute(&format!("UPDATE {table} SET {column} = '{near}:{near}:'")).await;
    }
    assert_eq!(ids(&of_all(&test.db(), EventId::START, 1_000).await), [], "they are of the future");
    let system = Operator::system();
    let mut moved = 0;
    loop {
        let bite = test.db().in_platform(&system, async |tx| event::rebase(tx, 1).await).await.unwrap();
        if bite == 0 {
            break;
        }
        moved += bite;
    }
    assert_eq!(
        usize::try_from(moved).unwrap(),
        before.len() + ways.len(),
        "and when shares and members began"
    );
    for (table, column) in ways {
        let sql = format!("SELECT count(*) FROM {table} WHERE {column} <> '1:1:'");
        assert_eq!(test.look::<i64>(&sql).await, 0, "{table}");
    }
    let page = of_all(&test.db(), EventId::START, 1_000).await;
    let numbers = |ids: &[EventId]| ids.iter().map(|id| id.seq()).collect::<Vec<_>>();
    let mut wanted = numbers(&before);
    wanted.sort_unstable();
    assert_eq!(numbers(&ids(&page)), wanted);
    assert!(page.has_lost(EventId::new(far, 1)), "a place of the other cluster is no place here");
    test.pending_session(&org.admin).await;
    eventually("what is new comes after it", async || {
        of_all(&test.db(), page.to, 1_000).await.told.len() == 2
    })
    .await;
    assert_eq!(test.db().in_platform(&system, async |tx| event::rebase(tx, 100).await).await.unwrap(), 0);
}

#[tokio::test]
async fn a_viewer_who_leaves_leaves_no_ticket_behind() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let viewer = test.user_in("acme", OrgRole::Viewer).await;
    test.services().events.ticket(&test.caller(&viewer).await).await.unwrap();
    assert_eq!(test.look::<i64>("SELECT count(*) FROM event_tickets").await, 1);
    test.services().members.remove(org.admin.org().unwrap(), viewer.id).await.unwrap();
    assert_eq!(test.look::<i64>("SELECT count(*) FROM event_tickets").await, 0);
}
