//! Who hears of what, from where on, and what becomes of a listener that is slow.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use tidegate_model::{
    AddGroupMemberRequest, Change, CreateGroupRequest, CreateShareRequest, Event, EventId, EventKind,
    FromFields, GroupRole, OrgRole, SessionId, ShareTarget, StreamMode, SystemRole, UpdateGroupRequest,
};
use tidegate_service::{Caller, Error, EventFilter, EventStream, MadeGroup, Operator, Services};
use tidegate_test_support::{DEADLINE, SimAgent, TestDb, TestOrg};
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

/// A share of a session with somebody, by its owner.
async fn share(
    services: &Services,
    owner: &Caller,
    session: SessionId,
    with: ShareTarget,
    minutes: Option<i64>,
) {
    let expires_in = minutes.map(TimeDelta::minutes);
    let request = CreateShareRequest { with, mode: StreamMode::View, expires_in };
    services.shares.create(owner.org().unwrap(), session, request, None, |_| json!(null)).await.unwrap();
}

/// Takes what there is up to a place.
async fn up_to(stream: &mut EventStream, end: EventId) -> Vec<Event> {
    let mut events = Vec::new();
    let reading = async {
        while stream.place() < end {
            stream.ready().await;
            events.extend(stream.take().await.unwrap());
        }
    };
    assert!(timeout(DEADLINE, reading).await.is_ok(), "{events:?}");
    events
}

/// Two sessions of somebody, a friend with a live stream, and what happens.
struct Shared {
    test: TestDb,
    org: TestOrg,
    owner: Caller,
    friend: Caller,
    session: SessionId,
    other: SessionId,
    _running: Running,
    _agent: SimAgent,
}

impl Shared {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let mut agent = test.online_agent("vm-1", 10).await;
        let owner = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let friend = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let running = run(test.services());
        let session = test.running_session(&owner, &mut agent).await.id;
        let other = test.pending_session(&owner).await.id;
        Self { test, org, owner, friend, session, other, _running: running, _agent: agent }
    }

    /// Something happens to the session, and something to another one that nobody shares; the place after both.
    async fn happens(&self, reason: &str) -> EventId {
        for id in [self.session, self.other] {
            let sql = format!(
                "INSERT INTO session_events (id, org_id, session_id, agent_id, from_state, to_state, reason, generation, at)
                 SELECT gen_random_uuid(), s.org_id, s.id, s.agent_id, 'running', 'running', '{reason}', 1, now()
                 FROM sessions s WHERE s.id = '{id}'"
            );
            self.test.execute(&sql).await;
        }
        let last = "SELECT xact || '-' || seq FROM session_events ORDER BY xact DESC, seq DESC LIMIT 1";
        self.test.look::<String>(last).await.parse().unwrap()
    }

    async fn with_friend(&self, minutes: Option<i64>) {
        let with = ShareTarget::UserId(self.friend.user().user_id());
        share(self.test.services(), &self.owner, self.session, with, minutes).await;
    }

    async fn unshare(&self) {
        let (shares, scope) = (&self.test.services().shares, self.owner.org().unwrap());
        for share in shares.list(scope, self.session).await.unwrap() {
            shares.revoke(scope, self.session, share.id).await.unwrap();
        }
    }

    fn reasons(&self, events: &[Event]) -> Vec<String> {
        assert!(events.iter().all(|event| event.change.session() == Some(self.session)), "{events:?}");
        let reasons = events.iter().filter_map(|event| match &event.change {
            Change::Session(change) => change.reason.clone(),
            _ => None,
        });
        reasons.collect()
    }
}

#[tokio::test]
async fn whom_a_session_is_shared_with_hears_of_it_while_it_is_and_of_nothing_else() {
    let stage = Shared::new().await;
    let services = stage.test.services();
    let mut live = open(services, &stage.friend, None).await;
    let before = stage.happens("before").await;
    assert_eq!(up_to(&mut live, before).await, []);
    stage.with_friend(None).await;
    let during = stage.happens("during").await;
    let heard = up_to(&mut live, during).await;
    assert_eq!(stage.reasons(&heard), ["during"]);
    // Whoever comes back with an id hears what there was since the share began, and nothing from before it.
    for place in [EventId::START, before] {
        let mut later = open(services, &stage.friend, Some(place)).await;
        assert_eq!(stage.reasons(&up_to(&mut later, during).await), ["during"]);
    }
    stage.unshare().await;
    let after = stage.happens("after").await;
    assert_eq!(up_to(&mut live, after).await, []);
    let mut later = open(services, &stage.friend, Some(EventId::START)).await;
    assert_eq!(up_to(&mut later, after).await, []);
    // Shared again, what happened in between stays unheard.
    stage.with_friend(None).await;
    let again = stage.happens("again").await;
    let mut later = open(services, &stage.friend, Some(before)).await;
    assert_eq!(stage.reasons(&up_to(&mut later, again).await), ["again"]);
    assert_eq!(stage.reasons(&up_to(&mut live, again).await), ["again"]);
}

#[tokio::test]
async fn a_share_that_has_expired_tells_nothing_and_given_again_in_time_it_goes_on() {
    let stage = Shared::new().await;
    let services = stage.test.services();
    stage.with_friend(Some(1)).await;
    let start = stage.happens("first").await;
    stage.with_friend(Some(1)).await;
    let mut live = open(services, &stage.friend, Some(EventId::START)).await;
    assert_eq!(stage.reasons(&up_to(&mut live, start).await), ["first"], "a repeat takes nothing away");
    stage.test.manual_clock().advance(TimeDelta::minutes(1));
    let late = stage.happens("late").await;
    assert_eq!(up_to(&mut live, late).await, []);
    // Once it was over, it is another one.
    stage.with_friend(None).await;
    let end = stage.happens("new").await;
    let mut later = open(services, &stage.friend, Some(EventId::START)).await;
    assert_eq!(stage.reasons(&up_to(&mut later, end).await), ["new"]);
}

#[tokio::test]
async fn who_joins_a_group_hears_from_then_on_and_who_leaves_no_more() {
    let stage = Shared::new().await;
    let services = stage.test.services();
    let (groups, admin, friend) =
        (&services.groups, stage.org.admin.org().unwrap(), stage.friend.user().user_id());
    let group = async |name: &str| {
        let body = json!({"name": name, "displayName": "Some of us", "type": "team"});
        let request = CreateGroupRequest::from_json(body).unwrap();
        match groups.create(admin, request, None, |_| json!(null)).await.unwrap() {
            MadeGroup::New(group) => group.id,
            MadeGroup::Replay(_) => panic!("a new group"),
        }
    };
    let (crew, deck) = (group("crew").await, group("deck").await);
    share(services, &stage.owner, stage.session, ShareTarget::GroupId(crew), None).await;
    let mut live = open(services, &stage.friend, None).await;
    let alone = stage.happens("alone").await;
    assert_eq!(up_to(&mut live, alone).await, []);
    let request = AddGroupMemberRequest { user_id: friend, role: GroupRole::Member };
    groups.add(admin, deck, request).await.unwrap();
    let beside = stage.happens("beside").await;
    assert_eq!(up_to(&mut live, beside).await, []);
    let below = UpdateGroupRequest::from_json(json!({"parentId": crew})).unwrap();
    groups.update(admin, deck, below).await.unwrap();
    let inside = stage.happens("inside").await;
    assert_eq!(stage.reasons(&up_to(&mut live, inside).await), ["inside"]);
    let mut later = open(services, &stage.friend, Some(EventId::START)).await;
    assert_eq!(stage.reasons(&up_to(&mut later, inside).await), ["inside"]);
    groups.remove(admin, deck, friend).await.unwrap();
    let gone = stage.happens("gone").await;
    assert_eq!(up_to(&mut live, gone).await, []);
    let mut later = open(services, &stage.friend, Some(EventId::START)).await;
    assert_eq!(up_to(&mut later, gone).await, []);
}

#[tokio::test]
async fn a_stream_of_a_shared_session_alone_is_opened_and_one_of_another_is_not() {
    let stage = Shared::new().await;
    let services = stage.test.services();
    let of = |session| EventFilter { session: Some(session), kinds: vec![] };
    let hidden = services.events.open(stage.friend.clone(), of(stage.session), None).await;
    assert!(matches!(hidden, Err(Error::NotFound(_))));
    stage.with_friend(None).await;
    let mut stream = services.events.open(stage.friend.clone(), of(stage.session), None).await.unwrap();
    let end = stage.happens("heard").await;
    assert_eq!(stage.reasons(&up_to(&mut stream, end).await), ["heard"]);
    // An outage between hearing and asking loses nothing.
    let mut beside = open(services, &stage.org.admin, None).await;
    let end = stage.happens("through an outage").await;
    // What one has heard, the other has too, and has not taken.
    up_to(&mut beside, end).await;
    {
        let outage = stage.test.outage().await;
        while stream.take().await.is_ok() {
            stream.ready().await;
        }
        outage.end().await;
    }
    assert_eq!(stage.reasons(&up_to(&mut stream, end).await), ["through an outage"]);
}
