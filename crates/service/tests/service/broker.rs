//! Pipes on a real nats-server: accounts, messages, credentials, what is cut off, what is repaired.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tidegate_broker::{AccountPublic, UserKey};
use tidegate_model::{
    Clock, CreatePipeRequest, CreateSourceRequest, FromFields, GrantSourceRequest, NewApiKey, NewMessage,
    OrgRole, Payload, SystemClock,
};
use tidegate_service::{
    BrokerOptions, Caller, Error, Exchanged, Granted, Idempotency, Made, MessagesPage, MessagesRead,
    MessagesWanted, Minted, Operator, OrgScope, PipeLimitsChange, Published, Result, Services,
};
use tidegate_test_support::{
    TestDb, TestOrg, eventually,
    nats::{TestNats, connect},
};
use tokio_util::sync::CancellationToken;

struct Stage {
    test: TestDb,
    services: Services,
    org: TestOrg,
    owner: Caller,
    friend: Caller,
    stop: CancellationToken,
}

fn scope(caller: &Caller) -> &OrgScope {
    caller.org().unwrap()
}

fn read<T: FromFields>(body: Value) -> T {
    T::from_json(body).unwrap()
}

fn text(text: &str) -> NewMessage {
    NewMessage { payload: Payload::Text(text.into()), in_reply_to: None, ack_requested: false }
}

/// Services of another process on the same database and NATS.
async fn replica(test: &TestDb) -> Services {
    let nats = TestNats::shared();
    let services = test.services_at(Arc::new(SystemClock::new()));
    services.broker.adopt((*nats.authority).clone()).await.unwrap();
    services.broker.open(BrokerOptions::new([nats.url.clone()])).await.unwrap();
    services
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        // NATS goes by the time of the machine.
        let clock = test.manual_clock();
        clock.advance(SystemClock::new().now() - clock.now());
        let org = test.org_with_admin("acme").await;
        let owner = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let friend = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let services = replica(&test).await;
        Self { test, services, org, owner, friend, stop: CancellationToken::new() }
    }

    /// What a process does beside its requests.
    fn run(&self) {
        let (broker, stop) = (self.services.broker.clone(), self.stop.clone());
        tokio::spawn(async move { broker.run(stop).await });
    }

    async fn make(&self, handle: &str, kind: &str) {
        let request: CreateSourceRequest = read(json!({"handle": handle, "kind": kind}));
        let made = self.services.sources.create(scope(&self.owner), request, None, |_| json!(null)).await;
        assert!(matches!(made, Ok(Made::New(_))), "{made:?}");
    }

    async fn grant(&self, handle: &str, body: Value) -> tidegate_model::SourceGrantId {
        let request: GrantSourceRequest = read(body);
        let sources = &self.services.sources;
        match sources.grant(scope(&self.owner), handle, request, None, |_| json!(null)).await.unwrap() {
            Granted::New(grant) | Granted::Known(grant) => grant.id,
            Granted::Replay(_) => panic!("no key was given"),
        }
    }

    async fn send(&self, from: &Caller, handle: &str, pipe: &str, say: &str) -> Result<Published> {
        self.services.messages.publish(scope(from), handle, pipe, text(say), None).await
    }

    async fn read(&self, by: &Caller, handle: &str, pipe: &str, read: MessagesRead) -> Result<MessagesPage> {
        let wanted = MessagesWanted { read, ..MessagesWanted::default() };
        self.services.messages.read(scope(by), handle, pipe, wanted).await
    }

    async fn apply(&self) {
        while self.services.broker.apply_pending().await.unwrap() > 0 {}
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Begins something, and leaves as soon as it waits for the so-manieth time; none where it was over before that.
async fn given_up<T>(mut work: impl Future<Output = T> + Unpin, mut waits: u32) -> Option<T> {
    let left = poll_fn(|context| match Pin::new(&mut work).poll(context) {
        Poll::Ready(over) => Poll::Ready(Some(over)),
        Poll::Pending if waits == 0 => Poll::Ready(None),
        Poll::Pending => {
            waits -= 1;
            Poll::Pending
        }
    });
    left.await
}

fn said(page: &MessagesPage) -> Vec<&str> {
    page.messages
        .iter()
        .map(|message| match &message.envelope.payload {
            Payload::Text(text) => text.as_str(),
            Payload::Bytes(_) => "bytes",
        })
        .collect()
}

fn forbidden<T: std::fmt::Debug>(outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error:?}");
}

/// A client of NATS with what was exchanged.
macro_rules! client {
    ($exchanged:expr) => {{
        let exchanged: &Exchanged = &$exchanged;
        let key = UserKey::from_seed(&exchanged.nats_user_seed).unwrap();
        connect(&exchanged.nats_url, &exchanged.nats_user_jwt, &key, &exchanged.inbox_prefix).await
    }};
}

#[tokio::test]
async fn messages_are_read_oldest_first_ten_at_a_time_and_again_from_anywhere() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    for number in 1..=12 {
        let sent = stage.send(&stage.friend, "build", "inbox", &format!("m{number}")).await.unwrap();
        assert_eq!((sent.sequence, sent.repeated), (number, false));
        assert_eq!(sent.envelope.sender, scope(&stage.friend).user_id());
    }
    let first = stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
    assert_eq!(said(&first), ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10"]);
    assert_eq!((first.unread, first.last), (Some(2), Some(10)));
    assert!(first.messages.iter().all(|message| message.envelope.sender == scope(&stage.friend).user_id()));
    let again = stage.read(&stage.owner, "build", "inbox", MessagesRead::After(8)).await.unwrap();
    assert_eq!(said(&again), ["m9", "m10", "m11", "m12"]);
    let since = MessagesRead::Since(first.messages[9].stored_at);
    assert_eq!(stage.read(&stage.owner, "build", "inbox", since).await.unwrap().messages[0].sequence, 10);
    let rest = stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
    assert_eq!((said(&rest), rest.unread), (vec!["m11", "m12"], Some(0)));
    let none = stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
    assert_eq!((said(&none), none.unread), (vec![], Some(0)));
    let place: i64 = stage.test.look("SELECT sequence FROM read_cursors").await;
    assert_eq!(place, 12);
    forbidden(stage.read(&stage.friend, "build", "inbox", MessagesRead::Next).await);
    assert_eq!(stage.services.messages.write_noted().await.unwrap(), 1);
    let shown = stage.services.sources.get(scope(&stage.owner), "build").await.unwrap();
    assert_eq!(shown.last_message.as_deref(), Some("m12"));
}

#[tokio::test]
async fn a_place_beyond_the_end_of_a_stream_that_came_back_from_a_backup_passes_over_nothing_new() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    for say in ["old 1", "old 2"] {
        stage.send(&stage.friend, "build", "inbox", say).await.unwrap();
    }
    let place = "INSERT INTO read_cursors (org_id, user_id, source_id, pipe, incarnation, sequence, at)
                 SELECT s.org_id, s.created_by, s.id, p.pipe, p.incarnation, 9, 'epoch'
                 FROM sources s JOIN pipe_streams p ON p.source_id = s.id";
    stage.test.execute(place).await;
    let none = stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
    assert_eq!(said(&none), Vec::<&str>::new());
    stage.send(&stage.friend, "build", "inbox", "new").await.unwrap();
    let page = stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
    assert_eq!(said(&page), ["new"]);
}

#[tokio::test]
async fn whoever_waits_gets_the_message_when_it_is_sent() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
    for wanted in [MessagesRead::Next, MessagesRead::After(1)] {
        let wait = Some(Duration::from_secs(20));
        let wanted = MessagesWanted { read: wanted, wait, limit: None };
        let (services, owner) = (stage.services.clone(), stage.owner.clone());
        let waiting = tokio::spawn(async move {
            let began = Instant::now();
            let page = services.messages.read(scope(&owner), "build", "inbox", wanted).await.unwrap();
            (page, began.elapsed())
        });
        stage.send(&stage.friend, "build", "inbox", "now").await.unwrap();
        let (page, took) = waiting.await.unwrap();
        assert_eq!(said(&page), ["now"]);
        assert!(took < Duration::from_secs(19), "{took:?}");
    }
}

#[tokio::test]
async fn whoever_follows_gets_each_message_as_it_is_stored_and_not_at_the_next_look() {
    const MESSAGES: u32 = 30;
    let stage = Stage::new().await;
    stage.make("shell", "pty").await;
    stage.send(&stage.owner, "shell", "stdout", "0").await.unwrap();
    let (sent, mut told) = tokio::sync::mpsc::channel(1);
    let (services, owner) = (stage.services.clone(), stage.owner.clone());
    let following = tokio::spawn(async move {
        let mut after = 1;
        while after <= u64::from(MESSAGES) {
            let read = MessagesRead::After(after);
            let wanted = MessagesWanted { read, wait: Some(Duration::from_secs(20)), limit: None };
            let page = services.messages.read(scope(&owner), "shell", "stdout", wanted).await.unwrap();
            after = page.last.unwrap();
            sent.send(Instant::now()).await.unwrap();
        }
    });
    let mut waits = Vec::new();
    for number in 1..=MESSAGES {
        stage.send(&stage.owner, "shell", "stdout", &number.to_string()).await.unwrap();
        let stored = Instant::now();
        let seen = tokio::time::timeout(tidegate_test_support::DEADLINE, told.recv()).await.unwrap().unwrap();
        waits.push(seen.saturating_duration_since(stored));
    }
    following.await.unwrap();
    waits.sort_unstable();
    let (median, most) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    eprintln!("a follower has a message {median:?} after it is stored, {most:?} at most");
    // Looks alone come once a second.
    assert!(median < Duration::from_millis(250), "{waits:?}");
}

#[tokio::test]
async fn a_repeat_stores_once_and_too_large_is_refused() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    let key = Idempotency::new(stage.friend.credential(), "messages", "k 1", b"").unwrap();
    let send = async |say: &str| {
        let messages = &stage.services.messages;
        messages.publish(scope(&stage.friend), "build", "inbox", text(say), Some(&key)).await
    };
    let first = send("once").await.unwrap();
    let second = send("once").await.unwrap();
    assert_eq!((second.repeated, second.sequence, &second.envelope), (true, first.sequence, &first.envelope));
    let other = send("twice").await.unwrap_err();
    assert!(matches!(other, Error::Conflict { code: "E_IDEMPOTENCY_MISMATCH", .. }), "{other:?}");
    // The same key of another sender is another message.
    let key = Idempotency::new(stage.owner.credential(), "messages", "k 1", b"").unwrap();
    let messages = &stage.services.messages;
    let mine =
        messages.publish(scope(&stage.owner), "build", "inbox", text("mine"), Some(&key)).await.unwrap();
    assert_eq!((mine.sequence, mine.repeated), (2, false));
    let large = stage.send(&stage.friend, "build", "inbox", &"x".repeat(64 * 1024)).await.unwrap_err();
    assert!(matches!(large, Error::TooLarge(_)), "{large:?}");
}

#[tokio::test]
async fn a_source_that_is_made_anew_starts_empty() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "old").await.unwrap();
    stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
    stage.services.sources.delete(scope(&stage.owner), "build").await.unwrap();
    stage.make("build", "message").await;
    stage.run();
    // The old stream has the same subjects, and goes first.
    let sent = stage.send(&stage.friend, "build", "inbox", "new").await.unwrap();
    assert_eq!(sent.sequence, 1);
    let page = stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
    assert_eq!(said(&page), ["new"]);
}

#[tokio::test]
async fn of_many_replicas_that_make_an_account_at_once_one_does() {
    let stage = Stage::new().await;
    let others = [replica(&stage.test).await, replica(&stage.test).await, replica(&stage.test).await];
    let exchanged =
        futures_util::future::join_all(others.iter().map(|one| one.exchange.exchange_for(&stage.owner)))
            .await;
    for exchanged in exchanged {
        client!(exchanged.unwrap()).expect("whoever made the account, its users connect");
    }
    let made: i64 = stage.test.look("SELECT count(*) FROM audit_log WHERE action = 'nats.account'").await;
    assert_eq!(made, 1);
    let pushed: i64 = stage.test.look("SELECT count(*) FROM nats_accounts WHERE pushed_at IS NOT NULL").await;
    assert_eq!(pushed, 1);
}

#[tokio::test]
async fn a_client_with_what_it_was_given_sends_and_reads_and_does_nothing_else() {
    let stage = Stage::new().await;
    stage.make("shell", "pty").await;
    let (me, friend) = (scope(&stage.owner), scope(&stage.friend));
    let inbox = stage.services.messages.write_route(friend, "shell", "inbox").await.unwrap();
    let exchanged = stage.services.exchange.exchange_for(&stage.friend).await.unwrap();
    assert!(exchanged.nats_user_jwt.len() <= 24 * 1024);
    let told = stage.services.logins.authenticate(&exchanged.jwt, None).await.unwrap();
    assert_eq!(told.credential(), stage.friend.credential());
    let client = client!(exchanged).unwrap();
    let hello = json!({"id": tidegate_model::MessageId::new(), "payload": "hi", "created_at": "2026-11-28T08:00:00Z",
                       "sender": me.user_id()});
    let acknowledged = client.request(inbox.subject.clone(), hello.to_string().into()).await.unwrap();
    assert!(String::from_utf8_lossy(&acknowledged.payload).contains("\"seq\":1"));
    let stdin = inbox.subject.replace(".inbox.", ".stdin.");
    stage.services.messages.write_route(me, "shell", "stdin").await.unwrap();
    let typed = tokio::time::timeout(Duration::from_millis(500), client.request(stdin, "rm".into())).await;
    assert!(typed.map_or(true, |answer| answer.is_err()), "nobody may type into another's shell");
    let page = stage.read(&stage.owner, "shell", "inbox", MessagesRead::Next).await.unwrap();
    assert_eq!((said(&page), page.messages[0].envelope.sender), (vec!["hi"], friend.user_id()));
    // The owner reads with a client, too.
    stage.send(&stage.friend, "shell", "inbox", "more").await.unwrap();
    let route = stage.services.messages.read_route(me, "shell", "inbox").await.unwrap();
    let client = client!(stage.services.exchange.exchange_for(&stage.owner).await.unwrap()).unwrap();
    let pull = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", route.stream, route.reader.unwrap());
    let answered = client.new_inbox();
    let mut answers = client.subscribe(answered.clone()).await.unwrap();
    client.publish_with_reply(pull, answered, "1".into()).await.unwrap();
    let message = answers.next().await.unwrap();
    assert!(String::from_utf8_lossy(&message.payload).contains("more"));
}

#[tokio::test]
async fn a_key_that_may_read_alone_sends_nothing_through_nats() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    let key = async |scopes: Value| {
        let new: NewApiKey = read(json!({"label": "robot", "scopes": scopes}));
        let admin = scope(&stage.org.admin);
        match stage.services.keys.insert_api_key(admin, &new, None, None, |_| json!(null)).await.unwrap() {
            Minted::New(_, secret) => secret,
            Minted::Replay(_) => panic!("a new key"),
        }
    };
    let admin = scope(&stage.org.admin);
    let inbox = stage.services.messages.write_route(admin, "build", "inbox").await.unwrap();
    for (scopes, sends) in [(json!(["pipes:read"]), false), (json!(["pipes:write"]), true)] {
        let secret = key(scopes).await;
        let exchanged = stage.services.exchange.exchange(secret.expose(), None, None).await.unwrap();
        let client = client!(exchanged).unwrap();
        let asked = client.request(inbox.subject.clone(), "x".into());
        let sent = tokio::time::timeout(Duration::from_secs(if sends { 10 } else { 1 }), asked).await;
        assert_eq!(sent.is_ok_and(|answer| answer.is_ok()), sends);
    }
    let secret = key(json!(["sessions:read"])).await;
    forbidden(stage.services.exchange.exchange(secret.expose(), None, None).await);
    let wrong = stage.services.exchange.exchange("ppz_00000000000000000000000000", None, None).await;
    assert!(matches!(wrong, Err(Error::Unauthenticated(_))), "{wrong:?}");
    let rival = stage.test.org_with_admin("rival").await;
    let token = stage.services.exchange.exchange_for(&stage.owner).await.unwrap().jwt;
    forbidden(stage.services.exchange.exchange(&token, Some(&rival.id.to_string()), None).await);
}

#[tokio::test]
async fn whoever_logs_out_is_cut_off_from_nats_at_once() {
    let stage = Stage::new().await;
    stage.run();
    let exchanged = stage.services.exchange.exchange_for(&stage.friend).await.unwrap();
    let client = client!(exchanged).unwrap();
    let mine = client!(stage.services.exchange.exchange_for(&stage.owner).await.unwrap()).unwrap();
    assert_eq!(client.connection_state().to_string(), "connected");
    let began = Instant::now();
    stage.services.logins.logout(&stage.friend).await.unwrap();
    let ended = Instant::now();
    eventually("the connection is closed", async || client.connection_state().to_string() != "connected")
        .await;
    eprintln!("logged out in {:?}, disconnected {:?} after that", ended - began, ended.elapsed());
    eventually("the token is refused", async || client!(exchanged).is_err()).await;
    assert_eq!(mine.connection_state().to_string(), "connected", "others stay");
}

#[tokio::test]
async fn a_right_to_type_is_on_top_and_goes_with_its_grant() {
    let stage = Stage::new().await;
    stage.make("shell", "pty").await;
    stage.run();
    let name = scope(&stage.friend).username().to_owned();
    let grant = stage.grant("shell", json!({"username": name, "right": "type"})).await;
    let friend = scope(&stage.friend);
    let stdin = stage.services.messages.write_route(friend, "shell", "stdin").await.unwrap();
    let exchanged = stage.services.exchange.exchange_for(&stage.friend).await.unwrap();
    let client = client!(exchanged).unwrap();
    let typed = client.request(stdin.subject.clone(), "ls".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&typed.payload).contains("\"seq\":1"));
    stage.services.sources.revoke_grant(scope(&stage.owner), "shell", grant).await.unwrap();
    eventually("the token is refused", async || client!(exchanged).is_err()).await;
    // At once a token that is good, and allows less.
    let client = client!(stage.services.exchange.exchange_for(&stage.friend).await.unwrap()).unwrap();
    let typed =
        tokio::time::timeout(Duration::from_millis(500), client.request(stdin.subject, "ls".into())).await;
    assert!(typed.map_or(true, |answer| answer.is_err()));
}

#[tokio::test]
async fn a_suspended_organization_is_cut_off_and_let_in_again() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "kept").await.unwrap();
    let exchanged = stage.services.exchange.exchange_for(&stage.owner).await.unwrap();
    let client = client!(exchanged).unwrap();
    let set = async |status: &str| {
        let id = stage.org.id;
        stage.test.execute(&format!("UPDATE organizations SET status = '{status}' WHERE id = '{id}'")).await;
        stage.services.broker.revoke_lapsed().await.unwrap();
        stage.apply().await;
    };
    set("suspended").await;
    eventually("it is cut off", async || client.connection_state().to_string() != "connected").await;
    assert!(client!(exchanged).is_err());
    assert_eq!(stage.services.broker.reconcile().await.unwrap().failed, 0);
    set("active").await;
    let client = client!(stage.services.exchange.exchange_for(&stage.owner).await.unwrap());
    client.expect("a new token is good");
    let page = stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
    assert_eq!(said(&page), ["kept"]);
}

#[tokio::test]
async fn nats_forgets_a_deleted_organization_once_its_streams_are_gone() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "hi").await.unwrap();
    let account: String = stage.test.look("SELECT public_key FROM nats_accounts").await;
    let account = AccountPublic::parse(&account).unwrap();
    let nats = TestNats::shared().system().await;
    let is_known = async || nats.account(&account).await.unwrap().is_some();
    let id = stage.org.id;
    stage.test.execute(&format!("UPDATE organizations SET status = 'deleted' WHERE id = '{id}'")).await;
    assert_eq!(stage.services.broker.reconcile().await.unwrap().failed, 0);
    assert!(is_known().await, "its streams are to be deleted first");
    stage.services.broker.revoke_lapsed().await.unwrap();
    // The account lets in whoever has a token of after the second in which the organization ended: until then what deletes
    // its streams is tried again.
    eventually("NATS forgets it", async || {
        stage.apply().await;
        stage.services.broker.reconcile().await.unwrap();
        !is_known().await
    })
    .await;
    assert_eq!(stage.services.broker.reconcile().await.unwrap().organizations, 0);
    let told = "SELECT count(*) FROM audit_log WHERE action = 'nats.account.forget'";
    assert_eq!(stage.test.look::<i64>(told).await, 1);
    // Whatever was to be told of it still is done, and brings nothing back.
    let late = "INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at)
                SELECT gen_random_uuid(), id, 'push_account', 'account', 'epoch', 'epoch' FROM organizations WHERE status = 'deleted'";
    stage.test.execute(late).await;
    stage.apply().await;
    let left: i64 = stage.test.look("SELECT count(*) FROM pipe_operations WHERE status <> 'done'").await;
    assert_eq!((left, is_known().await), (0, false));
}

#[tokio::test]
async fn what_differs_is_found_and_repaired_in_both_directions() {
    let stage = Stage::new().await;
    for handle in ["missing", "extra", "different", "same"] {
        stage.make(handle, "message").await;
        stage.send(&stage.friend, handle, "inbox", "hi").await.unwrap();
    }
    assert!(!stage.services.broker.reconcile().await.unwrap().is_some());
    let of = |handle: &str| format!("source_id = (SELECT id FROM sources WHERE handle = '{handle}')");
    // Its stream is deleted, and its row stands.
    stage
        .test
        .execute(&format!("CREATE TABLE kept AS SELECT * FROM pipe_streams WHERE {}", of("missing")))
        .await;
    stage.test.execute(&format!("DELETE FROM pipe_streams WHERE {}", of("missing"))).await;
    stage.apply().await;
    stage.test.execute("INSERT INTO pipe_streams SELECT * FROM kept; DROP TABLE kept").await;
    // Its row is gone, and nobody says so.
    stage.test.execute(&format!("DELETE FROM pipe_streams WHERE {}", of("extra"))).await;
    stage.test.execute("DELETE FROM pipe_operations WHERE status = 'pending'").await;
    stage.test.execute(&format!("UPDATE pipe_streams SET max_msgs = 7 WHERE {}", of("different"))).await;
    let drift = stage.services.broker.reconcile().await.unwrap();
    assert_eq!((drift.missing, drift.extra, drift.different, drift.foreign, drift.failed), (1, 1, 1, 0, 0));
    // Asked for once.
    assert!(!stage.services.broker.reconcile().await.unwrap().is_some());
    stage.apply().await;
    assert!(!stage.services.broker.reconcile().await.unwrap().is_some());
    let wrong: i64 = stage
        .test
        .look("SELECT count(*) FROM pipe_streams WHERE force_max_msgs IS DISTINCT FROM max_msgs")
        .await;
    assert_eq!(wrong, 0);
    let told: i64 = stage.test.look("SELECT count(*) FROM audit_log WHERE action = 'pipes.reconcile'").await;
    assert_eq!(told, 1);
    let kept = stage.read(&stage.owner, "same", "inbox", MessagesRead::After(0)).await.unwrap();
    assert_eq!(said(&kept), ["hi"]);
    let anew = stage.read(&stage.owner, "missing", "inbox", MessagesRead::Next).await.unwrap();
    assert_eq!(said(&anew), Vec::<&str>::new());
    stage.send(&stage.friend, "missing", "inbox", "again").await.unwrap();
}

#[tokio::test]
async fn a_place_that_was_made_beside_the_end_of_its_right_goes_with_its_reader() {
    let stage = Stage::new().await;
    stage.make("shell", "pty").await;
    stage.send(&stage.owner, "shell", "stdout", "hi").await.unwrap();
    let name = scope(&stage.friend).username().to_owned();
    stage.grant("shell", json!({"username": name, "right": "read"})).await;
    for reader in [&stage.owner, &stage.friend] {
        stage.read(reader, "shell", "stdout", MessagesRead::Next).await.unwrap();
    }
    // Whoever looked through the readers came too soon.
    stage.test.execute("DELETE FROM source_grants").await;
    stage.test.execute("DELETE FROM pipe_operations WHERE status = 'pending'").await;
    let drift = stage.services.broker.reconcile().await.unwrap();
    assert_eq!((drift.readers, drift.failed), (1, 0));
    let places: i64 = stage.test.look("SELECT count(*) FROM read_cursors").await;
    assert_eq!(places, 1, "the creator's stays");
    stage.apply().await;
    // A reader without a place would be found.
    assert!(!stage.services.broker.reconcile().await.unwrap().is_some());
}

#[tokio::test]
async fn whoever_stops_compares_nothing_more() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "hi").await.unwrap();
    stage.stop.cancel();
    let drift = stage.services.broker.reconcile_until(&stage.stop).await.unwrap();
    assert_eq!((drift.organizations, drift.failed), (0, 0));
    assert_eq!(stage.services.broker.reconcile().await.unwrap().organizations, 1);
}

#[tokio::test]
async fn without_nats_the_rows_wait_and_a_repeat_completes_them() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    let lost = stage.test.services_at(Arc::new(SystemClock::new()));
    let send = async |services: &Services| {
        services.messages.publish(scope(&stage.friend), "build", "inbox", text("hi"), None).await
    };
    let none = send(&lost).await.unwrap_err();
    assert!(matches!(none, Error::BrokerUnavailable(_)), "{none:?}");
    lost.broker.open(BrokerOptions::new(["nats://127.0.0.1:1"])).await.unwrap();
    let away = send(&lost).await.unwrap_err();
    assert!(matches!(away, Error::BrokerUnavailable(_)), "{away:?}");
    assert!(lost.broker.check().await.is_err());
    let waiting: i64 = stage.test.look("SELECT count(*) FROM pipe_operations WHERE status = 'pending'").await;
    assert_eq!(waiting, 1);
    assert_eq!(send(&stage.services).await.unwrap().sequence, 1);
}

#[tokio::test]
async fn a_full_account_is_said_so_and_a_change_is_waited_for() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "hi").await.unwrap();
    let limits = async |disk_bytes| {
        let change = PipeLimitsChange { disk_bytes, ..PipeLimitsChange::default() };
        stage.services.broker.limits(&Operator::console(), scope(&stage.owner), change).await
    };
    assert!(matches!(limits(Some(0)).await, Err(Error::Invalid(_))));
    let set = limits(Some(20_000_000)).await.unwrap();
    assert_eq!((set.disk_bytes, set.streams), (20_000_000, 20_000));
    assert_eq!(limits(None).await.unwrap(), set);
    let told: i64 = stage.test.look("SELECT count(*) FROM audit_log WHERE action = 'nats.limits'").await;
    assert_eq!(told, 2, "in the organization's log and in the platform's, once");
    stage.apply().await;
    let me = scope(&stage.owner);
    let request: CreatePipeRequest = read(json!({"name": "room"}));
    let made = stage.services.pipes.create(me, "build", request, None, |_| json!(null)).await;
    assert!(made.is_ok(), "{made:?}");
    for _ in 0..2 {
        let full = stage.send(&stage.owner, "build", "room", "hi").await.unwrap_err();
        assert!(matches!(full, Error::StorageFull { .. }), "{full:?}");
    }
    let smaller: tidegate_model::UpdatePipeRequest = read(json!({"maxBytes": 100_000}));
    let updated = stage.services.pipes.update(me, "build", "room", &smaller.retention).await.unwrap();
    stage.services.messages.settled(me, &updated.1).await.unwrap();
    stage.send(&stage.owner, "build", "room", "fits").await.unwrap();
    let listed = stage.services.pipes.list(me, "build").await.unwrap();
    let room = listed.iter().find(|pipe| pipe.name == "room").unwrap();
    assert_eq!(room.in_force.map(|found| found.max_bytes), Some(100_000));
}

#[tokio::test]
async fn what_was_refused_for_want_of_room_is_not_asked_for_again_and_again() {
    let stage = Stage::new().await;
    let me = scope(&stage.owner);
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "hi").await.unwrap();
    let change = PipeLimitsChange { disk_bytes: Some(20_000_000), ..PipeLimitsChange::default() };
    stage.services.broker.limits(&Operator::console(), me, change).await.unwrap();
    stage.apply().await;
    let request: CreatePipeRequest = read(json!({"name": "room"}));
    stage.services.pipes.create(me, "build", request, None, |_| json!(null)).await.unwrap();
    let full = stage.send(&stage.owner, "build", "room", "hi").await.unwrap_err();
    assert!(matches!(full, Error::StorageFull { .. }), "{full:?}");
    let compare = async || {
        let drift = stage.services.broker.reconcile().await.unwrap();
        stage.apply().await;
        let asked: i64 = stage.test.look("SELECT count(*) FROM pipe_operations").await;
        (drift.missing, drift.different, drift.failed, asked)
    };
    let asked = compare().await.3;
    assert_eq!(compare().await, (0, 0, 0, asked), "one that was never made");
    let keep = async |bytes: i64| {
        let change: tidegate_model::UpdatePipeRequest = read(json!({"maxBytes": bytes}));
        let updated = stage.services.pipes.update(me, "build", "room", &change.retention).await.unwrap();
        stage.services.messages.settled(me, &updated.1).await
    };
    keep(100_000).await.unwrap();
    stage.send(&stage.owner, "build", "room", "fits").await.unwrap();
    let full = keep(19_000_000).await.unwrap_err();
    assert!(matches!(full, Error::StorageFull { .. }), "{full:?}");
    let asked = compare().await.3;
    assert_eq!(compare().await, (0, 0, 0, asked), "one that may not grow");
    // Once in a while all the same: an operator may have given more.
    let later = "UPDATE pipe_operations SET finished_at = finished_at - interval '2 hours'";
    stage.test.execute(later).await;
    assert_eq!(compare().await, (0, 1, 0, asked + 1));
}

mod attacks;
mod first_message;
mod grants;
mod places;
mod room;
