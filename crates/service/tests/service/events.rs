//! Who hears of what, from where on, and what becomes of a listener that is slow.

use std::time::Duration;

use tidegate_model::{Change, Event, EventId, EventKind, OrgRole, SessionId, SystemRole};
use tidegate_service::{Caller, Error, EventFilter, EventStream, Operator, Services};
use tidegate_test_support::{DEADLINE, TestDb};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The reader of a process, as long as the test lasts.
struct Running {
    _task: JoinHandle<()>,
    _stop: DropGuard,
}

fn run(services: &Services) -> Running {
    let (events, stop) = (services.events.clone(), CancellationToken::new());
    let until = stop.clone();
    Running { _task: tokio::spawn(async move { events.run(until).await }), _stop: stop.drop_guard() }
}

async fn open(services: &Services, caller: &Caller, after: Option<EventId>) -> EventStream {
    services.events.open(caller.clone(), EventFilter::default(), after).await.unwrap()
}

/// The next `count` events.
async fn next(stream: &mut EventStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let reading = async {
        while events.len() < count {
            stream.ready().await;
            events.extend(stream.take().await.unwrap());
        }
    };
    let in_time = timeout(DEADLINE, reading).await.is_ok();
    assert!(in_time, "{} of {count} events: {events:?}", events.len());
    events
}

fn sessions(events: &[Event]) -> Vec<SessionId> {
    let mut ids: Vec<SessionId> = events.iter().filter_map(|event| event.change.session()).collect();
    ids.dedup();
    ids
}

/// A history of `count` lines for a session, each a transaction's of many.
async fn many_lines(test: &TestDb, session: SessionId, count: u32) {
    let sql = format!(
        "INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
         SELECT gen_random_uuid(), s.org_id, s.id, s.agent_id, 'running', 'running', 'line ' || n, 1, now()
         FROM sessions s, generate_series(1, {count}) n WHERE s.id = '{session}'"
    );
    test.execute(&sql).await;
}

#[tokio::test]
async fn each_hears_of_their_own_managers_of_everybodys_and_operators_of_agents() {
    let test = TestDb::new().await;
    let services = test.services();
    let _running = run(services);
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let ada = test.caller(&test.user_in("acme", OrgRole::User).await).await;
    let bob = test.caller(&test.user_in("acme", OrgRole::User).await).await;
    let viewer = test.caller(&test.user_in("acme", OrgRole::Viewer).await).await;
    let operator = test.caller(&test.user_with("bolt", OrgRole::User, SystemRole::Operator).await).await;
    let maintainer = test.caller(&test.user_in("acme", OrgRole::Maintainer).await).await;
    let agent = test.online_agent("vm-1", 10).await;
    let mut streams = Vec::new();
    for caller in [&ada, &bob, &viewer, &acme.admin, &maintainer, &bolt.admin, &operator] {
        streams.push(open(services, caller, None).await);
    }
    let of_ada = test.pending_session(&ada).await;
    let of_bob = test.pending_session(&bob).await;
    services
        .agents
        .drain(&Operator::console(), agent.handle(), tidegate_model::DrainRequest::default())
        .await
        .unwrap();
    services.agents.undrain(&Operator::console(), agent.handle()).await.unwrap();
    // Whoever sees nothing of it sees this, which came later: it is not that they were too early.
    let of_bolt = test.pending_session(&bolt.admin).await;
    let last = test.pending_session(&acme.admin).await;
    assert_eq!(sessions(&next(&mut streams[0], 2).await), [of_ada.id]);
    assert_eq!(sessions(&next(&mut streams[1], 2).await), [of_bob.id]);
    for manager in [3, 4] {
        let heard = sessions(&next(&mut streams[manager], 6).await);
        assert_eq!(heard, [of_ada.id, of_bob.id, last.id]);
    }
    assert_eq!(sessions(&next(&mut streams[5], 2).await), [of_bolt.id]);
    let of_agents = next(&mut streams[6], 2).await;
    assert!(of_agents.iter().all(|event| event.change.kind() == Some(EventKind::Agent)), "{of_agents:?}");
    // Everything there was is taken; none of it was for these.
    let end = open(services, &acme.admin, None).await.place();
    for quiet in [0, 1, 2] {
        while streams[quiet].place() < end {
            streams[quiet].ready().await;
            assert_eq!(streams[quiet].take().await.unwrap(), []);
        }
    }
}

#[tokio::test]
async fn what_is_read_later_is_what_was_heard_live() {
    let test = TestDb::new().await;
    let services = test.services();
    let _running = run(services);
    let org = test.org_with_admin("acme").await;
    let operator = test.caller(&test.user_with("acme", OrgRole::Admin, SystemRole::Operator).await).await;
    let mut agent = test.online_agent("vm-1", 10).await;
    let mut live = open(services, &operator, None).await;
    let start = live.place();
    test.running_session(&org.admin, &mut agent).await;
    services
        .agents
        .drain(&Operator::console(), agent.handle(), tidegate_model::DrainRequest::default())
        .await
        .unwrap();
    let heard = next(&mut live, 5).await;
    let mut later = open(services, &operator, Some(start)).await;
    assert_eq!(next(&mut later, heard.len()).await, heard);
    assert_eq!(later.place(), live.place());
    // In the middle, too.
    let mut rest = open(services, &operator, Some(heard[1].id)).await;
    assert_eq!(next(&mut rest, 3).await, heard[2..]);
}

#[tokio::test]
async fn a_stream_is_narrowed_to_a_session_and_to_kinds() {
    let test = TestDb::new().await;
    let services = test.services();
    let _running = run(services);
    let org = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let other = test.pending_session(&org.admin).await;
    let wanted = test.pending_session(&org.admin).await;
    let filter = EventFilter { session: Some(wanted.id), kinds: vec![EventKind::Command] };
    let mut stream = services.events.open(org.admin.clone(), filter, Some(EventId::START)).await.unwrap();
    let heard = next(&mut stream, 1).await;
    assert!(
        matches!(&heard[0].change, Change::Command(change) if change.session_id == Some(wanted.id)),
        "{heard:?}"
    );
    let scope = org.admin.org().unwrap();
    services.sessions.terminate(scope, other.id).await.unwrap();
    services.sessions.terminate(scope, wanted.id).await.unwrap();
    let live = next(&mut stream, 1).await;
    assert_eq!((sessions(&live), live.len()), (vec![wanted.id], 1));
    let foreign = test.org_with_admin("bolt").await.admin;
    let filter = EventFilter { session: Some(wanted.id), kinds: Vec::new() };
    let refused = services.events.open(foreign, filter, None).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound(_)), "{refused:?}");
}

#[tokio::test]
async fn a_listener_that_is_too_slow_reads_on_by_itself_and_misses_nothing() {
    const LINES: u32 = 12_000;
    let test = TestDb::new().await;
    let services = test.services();
    let _running = run(services);
    let org = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let session = test.pending_session(&org.admin).await;
    // From the last line on, and not from whenever this is: transactions of others may hold its start back.
    let begun = next(&mut open(services, &org.admin, Some(EventId::START)).await, 2).await;
    let from = Some(begun[1].id);
    let (mut slow, mut quick) =
        (open(services, &org.admin, from).await, open(services, &org.admin, from).await);
    many_lines(&test, session.id, LINES).await;
    let count = usize::try_from(LINES).unwrap();
    // More readings than are kept for anybody.
    let all = next(&mut quick, count).await;
    let late = next(&mut slow, count).await;
    assert_eq!((late.len(), late == all), (count, true));
    assert!(late.is_sorted_by_key(|event| event.id));
    // It is back among the others: what is new is heard, and nothing of it twice.
    test.pending_session(&org.admin).await;
    assert_eq!(next(&mut slow, 2).await, next(&mut quick, 2).await);
}

#[tokio::test]
async fn while_nobody_listens_nothing_is_read_and_whoever_comes_misses_nothing() {
    let test = TestDb::new().await;
    let services = test.services();
    let _running = run(services);
    let org = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let first = {
        let mut stream = open(services, &org.admin, None).await;
        test.pending_session(&org.admin).await;
        next(&mut stream, 2).await
    };
    let alone = test.pending_session(&org.admin).await;
    let mut again = open(services, &org.admin, Some(first[1].id)).await;
    assert_eq!(sessions(&next(&mut again, 2).await), [alone.id]);
    let live = test.pending_session(&org.admin).await;
    assert_eq!(sessions(&next(&mut again, 2).await), [live.id]);
}

#[tokio::test]
async fn an_id_from_before_what_is_kept_or_from_the_future_begins_with_a_reset() {
    let test = TestDb::new().await;
    let services = test.services();
    let _running = run(services);
    let org = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    test.pending_session(&org.admin).await;
    let kept = next(&mut open(services, &org.admin, Some(EventId::START)).await, 2).await;
    test.execute(&format!("DELETE FROM session_events WHERE seq = {}", kept[0].id.seq())).await;
    for lost in [EventId::START, EventId::new(1 << 40, 7)] {
        let events = next(&mut open(services, &org.admin, Some(lost)).await, 2).await;
        assert!(matches!(events[0].change, Change::Reset(_)), "{events:?}");
        assert_eq!((events[0].id, &events[1..]), (kept[0].id, &kept[1..]));
    }
    let whole = next(&mut open(services, &org.admin, Some(kept[0].id)).await, 1).await;
    assert_eq!(whole, kept[1..], "what was deleted came before");
}

#[tokio::test]
async fn an_outage_of_the_database_ends_no_stream() {
    let test = TestDb::new().await;
    let services = test.services();
    let _running = run(services);
    let org = test.org_with_admin("acme").await;
    let _agent = test.online_agent("vm-1", 10).await;
    let mut stream = open(services, &org.admin, None).await;
    let outage = test.outage().await;
    let refused = services.events.open(org.admin.clone(), EventFilter::default(), None).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    outage.end().await;
    let session = test.pending_session(&org.admin).await;
    assert_eq!(sessions(&next(&mut stream, 2).await), [session.id]);
}

#[tokio::test]
async fn a_ticket_is_good_once_for_thirty_seconds_and_as_long_as_its_login() {
    let test = TestDb::new().await;
    let events = &test.services().events;
    let org = test.org_with_admin("acme").await;
    let ticket = events.ticket(&org.admin).await.unwrap().ticket;
    let caller = events.redeem(&ticket).await.unwrap();
    assert_eq!(caller.org().unwrap().org_id(), org.id);
    let refused = |outcome: Result<Caller, Error>| matches!(outcome, Err(Error::Unauthenticated(_)));
    assert!(refused(events.redeem(&ticket).await), "used");
    assert!(refused(events.redeem("made up").await));
    let late = events.ticket(&org.admin).await.unwrap().ticket;
    test.manual_clock().advance(chrono::TimeDelta::seconds(31));
    assert!(refused(events.redeem(&late).await), "too late");
    let orphan = events.ticket(&org.admin).await.unwrap().ticket;
    test.services().logins.logout(&org.admin).await.unwrap();
    assert!(refused(events.redeem(&orphan).await), "its login has ended");
    let both = test.caller(&test.user_in("acme", OrgRole::User).await).await;
    let shared = events.ticket(&both).await.unwrap().ticket;
    let (one, other) = tokio::join!(events.redeem(&shared), events.redeem(&shared));
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1, "exactly one racer wins");
}

#[tokio::test]
async fn a_reader_that_is_stopped_stops() {
    let test = TestDb::new().await;
    let events = test.services().events.clone();
    let org = test.org_with_admin("acme").await;
    let _stream = open(test.services(), &org.admin, None).await;
    let stop = CancellationToken::new();
    let until = stop.clone();
    let task = tokio::spawn(async move { events.run(until).await });
    stop.cancel();
    timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
}
