//! Messages and credentials for NATS over HTTP, with a real nats-server.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_model::OrgRole;
use tidegate_test_support::{
    eventually,
    nats::{Seed, UserKey, connect},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Answer, Somebody, World};

struct Stand {
    world: World,
    owner: Somebody,
    friend: Somebody,
}

const INBOX: &str = "/api/v1/sources/build/pipes/inbox/messages";

impl Stand {
    /// An organization with two members, one of whom has a terminal called `build`.
    async fn new() -> Self {
        let world = World::with_nats().await;
        let owner = world.somebody("acme", OrgRole::User).await;
        let friend = world.somebody("acme", OrgRole::User).await;
        let body = json!({"handle": "build", "kind": "pty"});
        let made = world.call("POST", "/api/v1/sources", &owner.token, Some(body)).await;
        assert_eq!(made.status, 201, "{made:?}");
        Self { world, owner, friend }
    }

    async fn send(&self, who: &Somebody, path: &str, body: Value) -> Answer {
        self.world.call("POST", path, &who.token, Some(body)).await
    }

    async fn read(&self, who: &Somebody, path: &str) -> Answer {
        self.world.call("GET", path, &who.token, None).await
    }
}

fn said(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let messages = answer.body["messages"].as_array().unwrap();
    messages.iter().map(|message| message["payload"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_is_sent_is_read_once_in_order_and_again_from_anywhere() {
    let stand = Stand::new().await;
    for text in ["one", "two", "three"] {
        // Whoever one says that one is, and when: the credential knows better.
        let body = json!({"payload": text, "sender": stand.owner.id, "created_at": "2001-01-01T00:00:00Z"});
        let sent = stand.send(&stand.friend, INBOX, body).await;
        assert_eq!((sent.status, &sent.body["sender"]), (201, &json!(stand.friend.id)), "{sent:?}");
        assert!(!sent.body["created_at"].as_str().unwrap().starts_with("2001"), "{sent:?}");
    }
    let first = stand.read(&stand.owner, &format!("{INBOX}?limit=2")).await;
    assert_eq!((said(&first), &first.body["unread"]), (vec!["one", "two"], &json!(1)), "{first:?}");
    assert_eq!(first.header("cache-control"), Some("no-store"));
    assert_eq!(said(&stand.read(&stand.owner, INBOX).await), ["three"]);
    let none = stand.read(&stand.owner, INBOX).await;
    assert_eq!((said(&none), &none.body["unread"], &none.body["last"]), (vec![], &json!(0), &Value::Null));
    let again = stand.read(&stand.owner, &format!("{INBOX}?after=1&limit=100")).await;
    assert_eq!((said(&again), &again.body["unread"]), (vec!["two", "three"], &Value::Null));
    let since = first.body["messages"][1]["stored_at"].as_str().unwrap().replace('+', "%2B");
    assert_eq!(said(&stand.read(&stand.owner, &format!("{INBOX}?since={since}")).await), ["two", "three"]);
    let seen = async || {
        let source = stand.read(&stand.owner, "/api/v1/sources/build").await.body;
        source["lastMessage"] == "three"
    };
    eventually("the list shows what was last sent", seen).await;
    let pipes = stand.read(&stand.friend, "/api/v1/sources/build/pipes").await.body;
    let inbox = pipes["pipes"].as_array().unwrap().iter().find(|pipe| pipe["name"] == "inbox").unwrap();
    assert_eq!(inbox["inForce"], inbox["retention"], "{pipes}");
}

#[tokio::test]
async fn a_message_is_waited_for_and_a_repeat_with_a_key_is_stored_once() {
    let stand = Stand::new().await;
    let path = format!("{INBOX}?wait=20");
    let (waited, sent) = tokio::join!(stand.read(&stand.owner, &path), async {
        tokio::task::yield_now().await;
        stand.send(&stand.friend, INBOX, json!({"payload": {"base64": "AP8="}})).await
    });
    assert_eq!(sent.status, 201, "{sent:?}");
    assert_eq!(waited.body["messages"][0]["payload"], json!({"base64": "AP8="}), "{waited:?}");

    let keyed = async |text: &str| {
        let credential = format!("Bearer {}", stand.friend.token);
        let headers = [("Authorization", credential), ("Idempotency-Key", "once".to_owned())];
        let body = json!({"payload": text}).to_string();
        stand.world.raw("POST", INBOX, &headers, body.as_bytes()).await
    };
    let first = keyed("hello").await;
    let again = keyed("hello").await;
    assert_eq!((first.status, again.status), (201, 200), "{first:?} {again:?}");
    assert_eq!((&again.body["id"], &again.body["sequence"]), (&first.body["id"], &first.body["sequence"]));
    keyed("bye").await.refused(409, "E_IDEMPOTENCY_MISMATCH");
    assert_eq!(said(&stand.read(&stand.owner, INBOX).await), ["hello"]);
}

#[tokio::test]
async fn only_those_allowed_read_and_write_and_everything_bad_is_named() {
    let stand = Stand::new().await;
    let of = |pipe: &str| format!("/api/v1/sources/build/pipes/{pipe}/messages");
    let hello = || json!({"payload": "hello"});
    stand.read(&stand.friend, INBOX).await.refused(403, "E_FORBIDDEN");
    stand.read(&stand.friend, &of("stdout")).await.refused(403, "E_FORBIDDEN");
    stand.send(&stand.friend, &of("stdin"), hello()).await.refused(403, "E_FORBIDDEN");
    stand.send(&stand.owner, &of("nothing"), hello()).await.refused(404, "E_NOT_FOUND");
    let rival = stand.world.somebody("rival", OrgRole::Admin).await;
    stand.send(&rival, INBOX, hello()).await.refused(404, "E_NOT_FOUND");
    stand.read(&rival, INBOX).await.refused(404, "E_NOT_FOUND");
    // Somebody who may not hears that first.
    stand.read(&stand.friend, &format!("{INBOX}?limit=0")).await.refused(403, "E_FORBIDDEN");

    let bad = stand.send(&stand.owner, INBOX, json!({"payload": 1, "ack_requested": "x", "odd": 1})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["ack_requested", "odd", "payload"]);
    let query = "after=x&limit=101&wait=31&odd=1";
    let bad = stand.read(&stand.owner, &format!("{INBOX}?{query}")).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["after", "limit", "odd", "wait"]);
    let both = stand.read(&stand.owner, &format!("{INBOX}?after=1&since=2026-01-01T00:00:00Z")).await;
    assert_eq!(both.refused(400, "E_INVALID").fields(), ["since"]);
    let large = stand.send(&stand.owner, INBOX, json!({"payload": "x".repeat(64 << 10)})).await;
    large.refused(413, "E_TOO_LARGE");
    assert_eq!(said(&stand.read(&stand.owner, INBOX).await), Vec::<&str>::new());
}

#[tokio::test]
async fn a_changed_pipe_answers_what_is_in_force_and_an_ended_one_starts_empty_when_it_is_made_anew() {
    let stand = Stand::new().await;
    let (pipes, room) = ("/api/v1/sources/build/pipes", "/api/v1/sources/build/pipes/room");
    let messages = format!("{room}/messages");
    assert_eq!(stand.send(&stand.owner, pipes, json!({"name": "room"})).await.status, 201);
    assert_eq!(stand.send(&stand.owner, &messages, json!({"payload": "old"})).await.status, 201);
    let change = Some(json!({"ttlSeconds": 60, "maxMsgs": 7}));
    let changed = stand.world.call("PATCH", room, &stand.owner.token, change).await;
    assert_eq!((changed.status, &changed.body["inForce"]), (200, &changed.body["retention"]), "{changed:?}");
    assert_eq!(changed.body["inForce"]["maxMsgs"], 7);
    let ended = stand.world.call("DELETE", room, &stand.owner.token, None).await;
    assert_eq!(ended.status, 204, "{ended:?}");
    assert_eq!(stand.send(&stand.owner, pipes, json!({"name": "room"})).await.status, 201);
    let read = stand.read(&stand.owner, &format!("{messages}?after=0")).await;
    assert_eq!(said(&read), Vec::<&str>::new());
}

/// A reader of server-sent events.
struct Follower {
    stream: TcpStream,
    text: String,
}

impl Follower {
    async fn open(stand: &Stand, who: &Somebody, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(stand.world.handle.address()).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\n{headers}\r\n",
            who.token
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut follower = Self { stream, text: String::new() };
        follower.until("\r\n\r\n").await;
        follower
    }

    /// Reads on until something was said; what was read so far.
    async fn until(&mut self, wanted: &str) -> &str {
        let reading = async {
            while !self.text.contains(wanted) {
                let mut bytes = [0; 4_096];
                let count = self.stream.read(&mut bytes).await.unwrap();
                assert!(count > 0, "it ended before {wanted}: {}", self.text);
                self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        };
        timeout(Duration::from_secs(30), reading).await.unwrap_or_else(|_| panic!("waits for {wanted}"));
        &self.text
    }
}

#[tokio::test]
async fn a_pipe_is_followed_from_a_place_on_until_the_right_to_read_it_is_taken_away() {
    let stand = Stand::new().await;
    let stdout = "/api/v1/sources/build/pipes/stdout/messages";
    let right = json!({"username": stand.friend.name, "right": "read"});
    let grant = stand.send(&stand.owner, "/api/v1/sources/build/grants", right).await;
    for text in ["first", "second"] {
        stand.send(&stand.owner, stdout, json!({"payload": text})).await;
    }
    let mut behind = Follower::open(&stand, &stand.friend, stdout, "Last-Event-ID: 1\r\n").await;
    let seen = behind.until("second").await;
    assert!(seen.contains("200 OK") && seen.contains("text/event-stream"), "{seen}");
    assert!(seen.contains("-2\nevent: message\ndata: {") && !seen.contains("first"), "{seen}");
    let mut now = Follower::open(&stand, &stand.friend, stdout, "").await;
    now.until("retry: 2000\n").await;
    stand.send(&stand.owner, stdout, json!({"payload": "third"})).await;
    behind.until("-3\nevent: message").await;
    let seen = now.until("third").await;
    assert!(seen.contains("-3\nevent: message") && !seen.contains("second"), "{seen}");

    let grant = format!("/api/v1/sources/build/grants/{}", grant.body["id"].as_str().unwrap());
    assert_eq!(stand.world.call("DELETE", &grant, &stand.owner.token, None).await.status, 204);
    stand.send(&stand.owner, stdout, json!({"payload": "secret"})).await;
    let seen = now.until("\r\n0\r\n\r\n").await;
    assert!(
        seen.contains(": pipe stdout of source build needs the right to read") && !seen.contains("secret"),
        "{seen}"
    );
    let refused = stand.read(&stand.friend, stdout).await;
    refused.refused(403, "E_FORBIDDEN");
}

/// The id of the last event in what was read.
fn last_id(seen: &str) -> &str {
    seen.rsplit("id: ").next().unwrap().lines().next().unwrap()
}

#[tokio::test]
async fn whoever_comes_back_to_a_pipe_that_was_made_anew_is_told_and_gets_it_from_its_first_message_on() {
    let stand = Stand::new().await;
    for text in ["one", "two", "three"] {
        stand.send(&stand.owner, INBOX, json!({"payload": text})).await;
    }
    let mut first = Follower::open(&stand, &stand.owner, &format!("{INBOX}?after=0"), "").await;
    let had = last_id(first.until("three").await).to_owned();
    drop(first);
    let header = format!("Last-Event-ID: {had}\r\n");
    // In the same stream nothing is said of it.
    stand.send(&stand.owner, INBOX, json!({"payload": "four"})).await;
    let mut same = Follower::open(&stand, &stand.owner, INBOX, &header).await;
    let seen = same.until("four").await;
    assert!(!seen.contains("reset") && !seen.contains("three"), "{seen}");
    drop(same);

    let source = "/api/v1/sources/build";
    assert_eq!(stand.world.call("DELETE", source, &stand.owner.token, None).await.status, 204);
    let again = stand.send(&stand.owner, "/api/v1/sources", json!({"handle": "build", "kind": "pty"})).await;
    assert_eq!(again.status, 201, "{again:?}");
    stand.send(&stand.owner, INBOX, json!({"payload": "anew"})).await;
    let mut back = Follower::open(&stand, &stand.owner, INBOX, &header).await;
    let seen = back.until("anew").await.to_owned();
    let (reset, message) = (seen.find("event: reset").unwrap(), seen.find("event: message").unwrap());
    assert!(reset < message, "{seen}");
    assert!(
        last_id(&seen).ends_with("-1") && last_id(&seen)[..8] == had[..8] && !seen.contains(&had),
        "{seen}"
    );
    // A sequence alone is what clients had before, and is taken as it is.
    let mut bare = Follower::open(&stand, &stand.owner, INBOX, "Last-Event-ID: 0\r\n").await;
    assert!(!bare.until("anew").await.contains("reset"));

    let headers = [
        ("Authorization", format!("Bearer {}", stand.owner.token)),
        ("Accept", "text/event-stream".to_owned()),
        ("Last-Event-ID", "1-x".to_owned()),
    ];
    let bad = stand.world.raw("GET", INBOX, &headers, b"").await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["Last-Event-ID"]);
}

#[tokio::test]
async fn from_now_on_is_behind_the_end_of_the_pipe_and_holds_for_whoever_is_cut_off_before_the_first_message()
{
    let stand = Stand::new().await;
    for text in ["one", "two"] {
        stand.send(&stand.owner, INBOX, json!({"payload": text})).await;
    }
    let end = stand.read(&stand.owner, "/api/v1/sources/build/pipes/inbox/end").await;
    assert_eq!(
        (end.status, &end.body["last"], end.header("cache-control")),
        (200, &json!(2), Some("no-store"))
    );
    assert!(end.body["incarnation"].is_string(), "{end:?}");
    let mut now = Follower::open(&stand, &stand.owner, INBOX, "").await;
    let began = last_id(now.until("\n:\n").await).to_owned();
    assert!(began.ends_with("-2"), "{began}");
    drop(now);
    stand.send(&stand.owner, INBOX, json!({"payload": "meanwhile"})).await;
    let header = format!("Last-Event-ID: {began}\r\n");
    let mut back = Follower::open(&stand, &stand.owner, INBOX, &header).await;
    let seen = back.until("meanwhile").await;
    assert!(!seen.contains("two") && !seen.contains("reset"), "{seen}");
}

/// The sizes of the chunks in what was read.
fn chunks(seen: &str) -> Vec<usize> {
    let (_, mut rest) = seen.split_once("\r\n\r\n").unwrap();
    let mut sizes = Vec::new();
    while let Some((size, body)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        sizes.push(size);
        rest = body.get(size + 2..).unwrap_or_default();
    }
    sizes
}

#[tokio::test]
async fn large_messages_come_in_pieces_that_are_bounded_each_once_and_in_order() {
    let stand = Stand::new().await;
    for number in 0..14 {
        let text = format!("{number:02}{}", "x".repeat(60_000));
        let sent = stand.send(&stand.owner, INBOX, json!({"payload": text})).await;
        assert_eq!(sent.status, 201, "{sent:?}");
    }
    stand.send(&stand.owner, INBOX, json!({"payload": "last"})).await;
    let mut follower = Follower::open(&stand, &stand.owner, &format!("{INBOX}?after=0"), "").await;
    let seen = follower.until("\"last\"").await;
    let order: Vec<&str> = seen.split("\"payload\":\"").skip(1).map(|rest| &rest[..2]).collect();
    let wanted: Vec<String> = (0..14).map(|number| format!("{number:02}")).chain(["la".to_owned()]).collect();
    assert_eq!(order, wanted);
    let sizes = chunks(seen);
    assert!(sizes.len() > 3 && sizes.iter().all(|size| *size <= 256 * 1_024), "{sizes:?}");
}

#[tokio::test]
async fn nobody_follows_more_than_so_many_pipes_at_once() {
    let stand = Stand::new().await;
    stand.send(&stand.owner, INBOX, json!({"payload": "one"})).await;
    let open = async || Follower::open(&stand, &stand.owner, &format!("{INBOX}?after=0"), "").await;
    let mut followers = Vec::new();
    for _ in 0..32 {
        let mut follower = open().await;
        follower.until("one").await;
        followers.push(follower);
    }
    let mut refused = open().await;
    let said = refused.until("E_TOO_MANY_FOLLOWED").await;
    assert!(
        said.starts_with("HTTP/1.1 429") && said.to_lowercase().contains("\r\nretry-after: 5\r\n"),
        "{said}"
    );
    // Others have their own.
    let right = json!({"username": stand.friend.name, "right": "read"});
    stand.send(&stand.owner, "/api/v1/sources/build/grants", right).await;
    Follower::open(&stand, &stand.friend, &format!("{INBOX}?after=0"), "").await.until("one").await;
    drop(followers.pop());
    let room = async || {
        // Who left is missed when something is written to them.
        stand.send(&stand.owner, INBOX, json!({"payload": "more"})).await;
        open().await.text.starts_with("HTTP/1.1 200")
    };
    eventually("a stream that ended leaves room for another one", room).await;
}

#[tokio::test]
async fn a_stream_that_ends_while_the_database_works_for_it_costs_no_connection() {
    let stand = Stand::new().await;
    stand.send(&stand.owner, INBOX, json!({"payload": "one"})).await;
    let mut follower = Follower::open(&stand, &stand.owner, &format!("{INBOX}?after=0"), "").await;
    follower.until("one").await;
    let holder = stand.world.db.superuser().await;
    holder.batch_execute("BEGIN; LOCK TABLE sources IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waiting = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query ILIKE 'select%source%'";
    let mut pid = 0;
    let waits = async || {
        pid = stand.world.db.look::<i32>(waiting).await;
        pid != 0
    };
    eventually("a look waits for the lock", waits).await;
    let out = stand.world.call("POST", "/api/v1/auth/logout", &stand.owner.token, None).await;
    assert!(out.status < 300, "{out:?}");
    // The login's end is seen within this time, and cuts nothing short.
    let ended = ": the login that opened the stream has ended";
    assert!(timeout(Duration::from_secs(2), follower.until(ended)).await.is_err(), "{}", follower.text);
    holder.batch_execute("ROLLBACK").await.unwrap();
    follower.until(ended).await;
    let looked = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'idle'");
    let idle = async || stand.world.db.look::<i64>(&looked).await == 1;
    eventually("its connection is there for others", idle).await;
}

#[tokio::test]
async fn whoever_follows_is_cut_off_when_the_login_ends() {
    let stand = Stand::new().await;
    let mut follower = Follower::open(&stand, &stand.owner, &format!("{INBOX}?after=0"), "").await;
    follower.until("retry: 2000\n").await;
    let out = stand.world.call("POST", "/api/v1/auth/logout", &stand.owner.token, None).await;
    assert!(out.status < 300, "{out:?}");
    let seen = follower.until("\r\n0\r\n\r\n").await;
    assert!(seen.contains(": the login that opened the stream has ended"), "{seen}");
}

#[tokio::test]
async fn whoever_waits_for_a_message_waits_no_longer_than_the_login_lasts() {
    let stand = Stand::new().await;
    let path = format!("{INBOX}?wait=30");
    let (waited, out) = tokio::join!(stand.read(&stand.owner, &path), async {
        // Once there is a reader, the owner waits.
        let waits = async || stand.world.db.look::<i64>("SELECT count(*) FROM read_cursors").await > 0;
        eventually("somebody waits", waits).await;
        stand.world.call("POST", "/api/v1/auth/logout", &stand.owner.token, None).await
    });
    assert!(out.status < 300, "{out:?}");
    waited.refused(401, "E_UNAUTHENTICATED");
}

#[tokio::test]
async fn a_credential_is_exchanged_for_one_that_opens_nats() {
    let stand = Stand::new().await;
    let exchange =
        async |body: Value| stand.world.call("POST", "/api/v1/auth/exchange", "", Some(body)).await;
    let opened = exchange(json!({"api_key": stand.friend.token})).await;
    assert_eq!((opened.status, opened.header("cache-control")), (200, Some("no-store")), "{opened:?}");
    let text = |name: &str| opened.body[name].as_str().unwrap().to_owned();
    assert_eq!(text("account_name"), "acme");
    assert!(text("nats_url").starts_with("nats://127.0.0.1:"), "{opened:?}");
    assert!(text("nats_user_seed").starts_with("SU") && text("nats_user_jwt").len() < 24 << 10);
    let me = stand.world.call("GET", "/api/v1/users/me", &text("jwt"), None).await;
    assert_eq!((me.status, &me.body["id"]), (200, &json!(stand.friend.id)), "{me:?}");

    let key = UserKey::from_seed(&Seed::new(text("nats_user_seed"))).unwrap();
    let (url, token, prefix) = (text("nats_url"), text("nats_user_jwt"), text("inbox_prefix"));
    let client = connect(&url, &token, &key, &prefix).await;
    assert!(client.is_ok(), "NATS lets it in");

    exchange(json!({"api_key": "ppz_wrong"})).await.refused(401, "E_UNAUTHENTICATED");
    let other = json!({"api_key": stand.friend.token, "account_id": "rival"});
    exchange(other).await.refused(403, "E_FORBIDDEN");
    let missing = exchange(json!({"odd": 1})).await;
    assert_eq!(missing.refused(400, "E_INVALID").fields(), ["api_key", "odd"]);
}

#[tokio::test]
async fn a_pipe_is_opened_for_a_client_of_nats_by_those_who_may_use_it_so() {
    let stand = Stand::new().await;
    let of = |pipe: &str| format!("/api/v1/sources/build/pipes/{pipe}/open");
    let (reads, writes) = (json!({"use": "read"}), json!({"use": "write"}));
    let open =
        async |who: &Somebody, pipe: &str, body: &Value| stand.send(who, &of(pipe), body.clone()).await;
    let simple = |id: &str| id.replace('-', "");

    let written = open(&stand.friend, "inbox", &writes).await;
    assert_eq!((written.status, written.header("cache-control")), (200, Some("no-store")), "{written:?}");
    let subject = written.body["subject"].as_str().unwrap();
    let ends = format!(".{}.build.inbox.{}", simple(&stand.owner.id), simple(&stand.friend.id));
    assert!(subject.ends_with(&ends), "{subject}");
    assert_eq!((&written.body["reader"], written.body.as_object().unwrap().len()), (&Value::Null, 4));
    assert_eq!(written.body["inboxPrefix"], format!("_INBOX_{}", simple(&stand.friend.id)));
    open(&stand.friend, "inbox", &reads).await.refused(403, "E_FORBIDDEN");
    open(&stand.friend, "stdin", &writes).await.refused(403, "E_FORBIDDEN");
    open(&stand.owner, "nothing", &reads).await.refused(404, "E_NOT_FOUND");
    let rival = stand.world.somebody("rival", OrgRole::Admin).await;
    open(&rival, "inbox", &writes).await.refused(404, "E_NOT_FOUND");
    open(&rival, "inbox", &json!({"odd": 1})).await.refused(404, "E_NOT_FOUND");
    let bad = open(&stand.owner, "inbox", &json!({"use": "type", "anew": 1, "odd": 1})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["anew", "odd", "use"]);
    let bad = open(&stand.owner, "inbox", &json!({"use": "write", "anew": true})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["anew"]);

    // One's place stays where it is, or is moved behind what is there.
    stand.send(&stand.friend, INBOX, json!({"payload": "old"})).await;
    for _ in 0..2 {
        let read = open(&stand.owner, "inbox", &reads).await;
        assert_eq!((read.status, &read.body["reader"]), (200, &json!(simple(&stand.owner.id))), "{read:?}");
        assert_eq!(read.body["stream"], written.body["stream"]);
    }
    let anew = open(&stand.owner, "inbox", &json!({"use": "read", "anew": true})).await;
    assert_eq!(anew.status, 200, "{anew:?}");
    stand.send(&stand.friend, INBOX, json!({"payload": "new"})).await;
    assert_eq!(said(&stand.read(&stand.owner, INBOX).await), ["new"]);
}

#[tokio::test]
async fn a_key_that_may_read_opens_nothing_to_write() {
    let stand = Stand::new().await;
    let admin = stand.world.member("acme", OrgRole::Admin).await;
    let path = "/api/v1/sources/build/pipes/inbox/open";
    for (scope, status) in [("pipes:read", 403), ("pipes:write", 200), ("sessions:read", 403)] {
        let new = json!({"label": "robot", "scopes": [scope]});
        let made = stand.world.call("POST", "/api/v1/organizations/acme/keys", &admin, Some(new)).await;
        let key = made.body["plaintext"].as_str().unwrap();
        let opened = stand.world.call("POST", path, key, Some(json!({"use": "write"}))).await;
        assert_eq!(opened.status, status, "{scope}: {opened:?}");
    }
}

#[tokio::test]
async fn without_nats_what_is_refused_is_refused_and_the_rest_is_asked_for_again() {
    let world = World::new().await;
    let owner = world.somebody("acme", OrgRole::User).await;
    let body = json!({"handle": "build"});
    assert_eq!(world.call("POST", "/api/v1/sources", &owner.token, Some(body)).await.status, 201);
    let hello = || Some(json!({"payload": "hello"}));
    let sent = world.call("POST", INBOX, &owner.token, hello()).await;
    assert!(sent.refused(503, "E_PIPES_UNAVAILABLE").header("retry-after").is_some(), "{sent:?}");
    world.call("GET", INBOX, &owner.token, None).await.refused(503, "E_PIPES_UNAVAILABLE");
    let nowhere = INBOX.replace("build", "nothing");
    world.call("POST", &nowhere, &owner.token, hello()).await.refused(404, "E_NOT_FOUND");
    let body = Some(json!({"api_key": owner.token}));
    world.call("POST", "/api/v1/auth/exchange", "", body).await.refused(503, "E_PIPES_UNAVAILABLE");
}
