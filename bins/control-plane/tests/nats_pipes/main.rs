//! The client's pipes over NATS, against a control plane in this process and a real nats-server.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

// The server of the API's tests: one of them is enough.
#[path = "../api/support.rs"]
#[expect(dead_code, reason = "the API's tests need more of it")]
mod support;

use std::{
    collections::BTreeMap,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;
use tidegate_client::{
    Client, Delivery, IdempotencyKey, MessageToSend, NatsPipes, PipeError, PipeReader, PipeSender,
    PipesOptions, StatusCode,
};
use tidegate_engines::nats::{Durability, Nats, Options, Status};
use tidegate_model::{Handle, OrgRole, Payload, Secret};
use tidegate_test_support::{
    DEADLINE, eventually, eventually_some,
    nats::{Authority, HeaderMap, Seed, UserKey, connect, trust},
};
use tokio::time::{Instant as Moment, interval, timeout};

use support::{Somebody, World};

/// An organization whose owner has a terminal called `build`, and a friend.
struct Stand {
    world: World,
    owner: Somebody,
    friend: Somebody,
}

impl Stand {
    async fn new() -> Self {
        Self::on(World::with_nats().await).await
    }

    async fn on(world: World) -> Self {
        let owner = world.somebody("acme", OrgRole::User).await;
        let friend = world.somebody("acme", OrgRole::User).await;
        let body = json!({"handle": "build", "kind": "pty"});
        let made = world.call("POST", "/api/v1/sources", &owner.token, Some(body)).await;
        assert_eq!(made.status, 201, "{made:?}");
        Self { world, owner, friend }
    }

    fn client(&self, who: &Somebody) -> Client {
        let url = self.world.handle.url().parse().unwrap();
        Client::builder(url).token(Secret::new(who.token.clone())).build().unwrap()
    }

    async fn pipes(&self, who: &Somebody, options: PipesOptions) -> NatsPipes {
        NatsPipes::connect(&self.client(who), options).await.unwrap()
    }

    /// What the owner reads over HTTP from the beginning: texts in their order.
    async fn texts(&self, pipe: &str) -> Vec<String> {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/api/v1/sources/build/pipes/{pipe}/messages?limit=100&after={after}");
            let page = eventually_some("the control plane reaches NATS", async || {
                let page = self.world.call("GET", &path, &self.owner.token, None).await;
                (page.status == 200).then_some(page)
            })
            .await;
            let messages = page.body["messages"].as_array().unwrap();
            if messages.is_empty() {
                return found;
            }
            after = page.body["last"].as_u64().unwrap();
            found.extend(messages.iter().map(|message| message["payload"].as_str().unwrap().to_owned()));
        }
    }
}

fn build() -> Handle {
    "build".parse().unwrap()
}

fn text(text: impl Into<String>) -> MessageToSend {
    MessageToSend { payload: Payload::Text(text.into()), in_reply_to: None, ack_requested: false }
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Tokens that are renewed all the time.
fn short_lived() -> PipesOptions {
    PipesOptions { renew_after: Some(Duration::from_millis(150)), ..PipesOptions::default() }
}

/// Sends numbers, several on their way at a time, and `meanwhile` now and then; all of them are stored when this returns.
async fn send_all(sender: &PipeSender, count: usize, mut meanwhile: impl FnMut(usize)) {
    let mut pace = interval(Duration::from_millis(3));
    let mut waiting = Vec::new();
    for number in 0..count {
        pace.tick().await;
        meanwhile(number);
        let (message, key) = (text(number.to_string()), IdempotencyKey::random());
        let pending = timeout(DEADLINE, sender.send(&message, &key)).await.unwrap();
        waiting.push(pending.unwrap());
    }
    for pending in waiting {
        timeout(DEADLINE, pending.stored()).await.unwrap().unwrap();
    }
}

/// Reads so many messages, and acknowledges each.
async fn read_all(reader: &mut PipeReader, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        let delivery = reader.next(Moment::now() + DEADLINE).await.unwrap();
        let delivery = delivery.unwrap_or_else(|| panic!("{} of {count} came: {found:?}", found.len()));
        reader.acknowledge(&delivery).await.unwrap();
        found.push(said(&delivery));
    }
    found
}

fn said(delivery: &Delivery) -> String {
    match &delivery.message.payload {
        Payload::Text(text) => text.clone(),
        Payload::Bytes(_) => panic!("a text was sent"),
    }
}

/// Reads on until so many messages are there by their sequences, while the server is killed and comes back. It is given each
/// once, and each is acknowledged in the end: the server that comes back may not know that it gave it out.
async fn read_on(reader: &mut PipeReader, found: &mut BTreeMap<u64, String>, count: usize) {
    let until = Moment::now() + 2 * DEADLINE;
    while found.len() < count {
        assert!(Moment::now() < until, "{} of {count} came: {found:?}", found.len());
        let delivery = match reader.next(until).await {
            // There is no server for the moment.
            Err(error) if error.is_passing() => continue,
            outcome => outcome.unwrap().unwrap(),
        };
        reader.acknowledge(&delivery).await.unwrap();
        let before = found.insert(delivery.message.sequence, said(&delivery));
        assert_eq!(before, None, "{delivery:?} was given twice");
    }
}

#[tokio::test]
async fn what_is_sent_over_nats_is_read_over_nats_in_order_through_renewals_of_the_token() {
    const COUNT: usize = 100;
    let stand = Stand::new().await;
    let (writes, reads) =
        (stand.pipes(&stand.friend, short_lived()).await, stand.pipes(&stand.owner, short_lived()).await);
    let sender = writes.sender(&build(), "inbox").await.unwrap();
    let mut reader = reads.reader(&build(), "inbox").await.unwrap();
    let before = (writes.connections(), reads.connections());
    let until = Moment::now() + DEADLINE;
    let mut sent = Vec::new();
    // As long as it takes on this machine until both were renewed in the middle of it.
    while writes.connections() < before.0 + 2 || reads.connections() < before.1 + 2 {
        assert!(Moment::now() < until, "no token was renewed");
        let (found, ()) = tokio::join!(read_all(&mut reader, COUNT), send_all(&sender, COUNT, |_| {}));
        assert_eq!(found, numbers(COUNT));
        sent.extend(found);
    }
    assert_eq!(stand.texts("inbox").await, sent, "each once");
    let none = reader.next(Moment::now() + Duration::from_millis(200)).await.unwrap();
    assert_eq!((none, reader.skipped()), (None, 0));
    // The sender is whoever the credential says.
    let path = "/api/v1/sources/build/pipes/inbox/messages?after=0&limit=1";
    let page = stand.world.call("GET", path, &stand.owner.token, None).await;
    assert_eq!(page.body["messages"][0]["sender"], json!(stand.friend.id));
}

#[tokio::test]
async fn a_repeat_under_the_same_key_is_stored_once_and_what_is_too_large_is_refused() {
    let stand = Stand::new().await;
    let pipes = stand.pipes(&stand.friend, PipesOptions::default()).await;
    let sender = pipes.sender(&build(), "inbox").await.unwrap();
    let key = IdempotencyKey::new("nightly-17").unwrap();
    let first = sender.send(&text("once"), &key).await.unwrap().stored().await.unwrap();
    let again = sender.send(&text("once"), &key).await.unwrap().stored().await.unwrap();
    assert_eq!((first.0.sequence, first.1), (1, false));
    assert_eq!((again.0.sequence, again.1), (1, true));
    // A repeat is known over HTTP, too.
    let over_http = stand.client(&stand.friend).send_message(&build(), "inbox", &text("once"), key).await;
    assert_eq!(over_http.unwrap().sequence, 1);
    let large = sender.send(&text("x".repeat(64 << 10)), &IdempotencyKey::random()).await.unwrap_err();
    assert!(matches!(large, PipeError::Message(_)), "{large}");
    assert_eq!(stand.texts("inbox").await, ["once"]);
    let refused = pipes.sender(&build(), "stdin").await.unwrap_err();
    let status = refused.of_api().and_then(tidegate_client::Error::status);
    assert_eq!(status, Some(StatusCode::FORBIDDEN), "{refused}");
    let missing = pipes.reader(&build(), "nothing").await.unwrap_err();
    assert!(missing.to_string().contains("nothing"), "{missing}");
}

#[tokio::test]
async fn whoever_guesses_a_key_does_not_take_the_place_of_what_is_sent_under_it() {
    let stand = Stand::new().await;
    let credential = json!({"api_key": stand.owner.token});
    let opened = stand.world.call("POST", "/api/v1/auth/exchange", "", Some(credential)).await;
    let said = |name: &str| opened.body[name].as_str().unwrap().to_owned();
    let own = UserKey::from_seed(&Seed::new(said("nats_user_seed"))).unwrap();
    let guesser =
        connect(&said("nats_url"), &said("nats_user_jwt"), &own, &said("inbox_prefix")).await.unwrap();
    let path = "/api/v1/sources/build/pipes/inbox/open";
    let route = stand.world.call("POST", path, &stand.owner.token, Some(json!({"use": "write"}))).await;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", format!("{}:nightly-17", stand.friend.id.replace('-', "")));
    let subject = route.body["subject"].as_str().unwrap().to_owned();
    let answer = guesser.request_with_headers(subject, headers, "{}".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&answer.payload).contains("\"seq\""), "{answer:?}");

    let key = IdempotencyKey::new("nightly-17").unwrap();
    let pipes = stand.pipes(&stand.friend, PipesOptions::default()).await;
    let sender = pipes.sender(&build(), "inbox").await.unwrap();
    let (stored, repeated) = sender.send(&text("mine"), &key).await.unwrap().stored().await.unwrap();
    assert_eq!((stored.sequence, repeated), (2, false), "it is stored beside what the guesser sent");
    // Another connection of the same user, over NATS or not, knows it.
    let again = stand.pipes(&stand.friend, PipesOptions::default()).await;
    let sender = again.sender(&build(), "inbox").await.unwrap();
    let (stored, repeated) = sender.send(&text("mine"), &key).await.unwrap().stored().await.unwrap();
    assert_eq!((stored.sequence, repeated), (2, true));
    let over_http = stand.client(&stand.friend).send_message(&build(), "inbox", &text("mine"), key).await;
    assert_eq!(over_http.unwrap().sequence, 2);
}

/// A nats-server of the test's own, that can be killed.
struct Server {
    nats: Nats,
    _folder: TempDir,
}

impl Server {
    async fn start() -> (Self, World) {
        let authority = Authority::generate();
        let mode = Permissions::from_mode(0o711);
        let folder = tempfile::Builder::new().prefix("tg-nats-").permissions(mode).tempdir().unwrap();
        let options = Options::for_tests(folder.path(), trust(&authority));
        let options = Options { durability: Durability::Full, ..options };
        let nats = Nats::start(options).await.unwrap();
        let world = World::with_nats_at(nats.url(), authority).await;
        (Self { nats, _folder: folder }, world)
    }

    fn kill(&self) {
        // Between two starts there is none to kill.
        let Some(pid) = self.nats.pid() else { return };
        Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }

    async fn is_ready(&self) {
        let mut status = self.nats.status();
        let ready = status.wait_for(|status| matches!(status, Status::Ready { .. }));
        timeout(DEADLINE, ready).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_killed_nats_server_loses_and_doubles_nothing_and_keeps_the_order() {
    const COUNT: usize = 300;
    let (server, world) = Server::start().await;
    let stand = Stand::on(world).await;
    let pipes =
        stand.pipes(&stand.friend, PipesOptions { timeout: DEADLINE, ..PipesOptions::default() }).await;
    let sender = pipes.sender(&build(), "inbox").await.unwrap();
    send_all(&sender, COUNT, |number| {
        if number % 100 == 50 {
            server.kill();
        }
    })
    .await;
    server.is_ready().await;
    assert_eq!(stand.texts("inbox").await, numbers(COUNT), "each once and in order");

    // Those who read come through it, too; what was on its way comes again, and no message is given twice.
    // Less is asked for at one time than a killed server forgets.
    let options = PipesOptions { timeout: DEADLINE, ahead: 16, ..PipesOptions::default() };
    let mut reader = stand.pipes(&stand.owner, options).await.reader(&build(), "inbox").await.unwrap();
    let mut found = BTreeMap::new();
    read_on(&mut reader, &mut found, 50).await;
    server.kill();
    read_on(&mut reader, &mut found, COUNT).await;
    assert_eq!(
        found.into_values().collect::<Vec<_>>(),
        numbers(COUNT),
        "each once, in the order of the pipe"
    );
    // Nothing is left of it: what the server gave out again was acknowledged, and was not given to anybody.
    let until = Moment::now() + 2 * DEADLINE;
    loop {
        let again = match reader.next(Moment::now() + Duration::from_millis(200)).await {
            Err(error) if error.is_passing() => None,
            outcome => outcome.unwrap(),
        };
        assert_eq!(again, None, "nothing is given twice");
        let read = stand.world.call("GET", "/api/v1/pipes/subscriptions", &stand.owner.token, None).await;
        let inbox = &read.body["subscriptions"][0];
        if (&inbox["sequence"], &inbox["unread"]) == (&json!(COUNT), &json!(0)) {
            break;
        }
        assert!(Moment::now() < until, "the reader's place is behind the last message: {read:?}");
    }
    server.nats.stop().await.unwrap();
}

#[tokio::test]
async fn an_ended_credential_ends_it_with_what_to_do_and_without_endless_tries() {
    let stand = Stand::new().await;
    let pipes = stand.pipes(&stand.friend, PipesOptions::default()).await;
    let right = json!({"username": stand.friend.name, "right": "read"});
    let granted =
        stand.world.call("POST", "/api/v1/sources/build/grants", &stand.owner.token, Some(right)).await;
    assert_eq!(granted.status, 201, "{granted:?}");
    let sender = pipes.sender(&build(), "inbox").await.unwrap();
    let mut reader = pipes.reader(&build(), "stdout").await.unwrap();
    let sent = sender.send(&text("before"), &IdempotencyKey::random()).await.unwrap();
    sent.stored().await.unwrap();
    let out = stand.world.call("POST", "/api/v1/auth/logout", &stand.friend.token, None).await;
    assert!(out.status < 300, "{out:?}");
    let ended = |error: &PipeError| {
        error.of_api().and_then(tidegate_client::Error::status) == Some(StatusCode::UNAUTHORIZED)
    };
    let began = Instant::now();
    let error = timeout(DEADLINE, reader.next(Moment::now() + DEADLINE)).await.unwrap().unwrap_err();
    assert!(ended(&error), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let refused = async || {
        let sent = sender.send(&text("after"), &IdempotencyKey::random()).await.unwrap();
        sent.stored().await.is_err_and(|error| ended(&error))
    };
    eventually("who sends hears of it, too", refused).await;
    let made = pipes.connections();
    let again = NatsPipes::connect(&stand.client(&stand.friend), PipesOptions::default()).await.unwrap_err();
    assert!(ended(&again), "{again}");
    assert_eq!(pipes.connections(), made, "nothing is tried any more");
    assert_eq!(stand.texts("inbox").await, ["before"]);
}

#[tokio::test]
async fn a_right_that_is_given_later_is_used_without_connecting_anew() {
    let stand = Stand::new().await;
    let pipes = stand.pipes(&stand.friend, PipesOptions::default()).await;
    let refused = pipes.sender(&build(), "stdin").await.unwrap_err();
    assert!(refused.of_api().is_some(), "{refused}");
    let right = json!({"username": stand.friend.name, "right": "type"});
    let granted =
        stand.world.call("POST", "/api/v1/sources/build/grants", &stand.owner.token, Some(right)).await;
    assert_eq!(granted.status, 201, "{granted:?}");
    // The token is older than the right.
    let sender = pipes.sender(&build(), "stdin").await.unwrap();
    let typed = sender.send(&text("ls\n"), &IdempotencyKey::random()).await.unwrap();
    let (stored, _) = timeout(DEADLINE, typed.stored()).await.unwrap().unwrap();
    assert_eq!(stored.sequence, 1);
    let path = format!("/api/v1/sources/build/grants/{}", granted.body["id"].as_str().unwrap());
    assert_eq!(stand.world.call("DELETE", &path, &stand.owner.token, None).await.status, 204);
    let not_any_more = async || {
        let typed = sender.send(&text("rm\n"), &IdempotencyKey::random()).await.unwrap();
        let outcome = timeout(DEADLINE, typed.stored()).await.unwrap();
        outcome.is_err_and(|error| {
            error.of_api().and_then(tidegate_client::Error::status) == Some(StatusCode::FORBIDDEN)
        })
    };
    eventually("the right is gone", not_any_more).await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_unread_and_a_fresh_reader_gets_nothing_of_before() {
    let stand = Stand::new().await;
    let pipes = stand.pipes(&stand.owner, PipesOptions::default()).await;
    let sender = pipes.sender(&build(), "stdout").await.unwrap();
    send_all(&sender, 3, |_| {}).await;
    let mut reader = pipes.reader(&build(), "stdout").await.unwrap();
    assert_eq!(read_all(&mut reader, 1).await, ["0"]);
    let delivery = reader.next(Moment::now() + DEADLINE).await.unwrap().unwrap();
    assert_eq!((delivery.message.sequence, delivery.pending), (2, 1));
    drop(reader);
    let page = stand
        .world
        .call("GET", "/api/v1/sources/build/pipes/stdout/messages", &stand.owner.token, None)
        .await;
    assert_eq!(page.body["unread"], 2, "the second and the third were not acknowledged: {page:?}");
    let mut fresh = pipes.reader_anew(&build(), "stdout").await.unwrap();
    let none = fresh.next(Moment::now() + Duration::from_millis(200)).await.unwrap();
    assert_eq!(none, None);
    sender.send(&text("new"), &IdempotencyKey::random()).await.unwrap().stored().await.unwrap();
    assert_eq!(read_all(&mut fresh, 1).await, ["new"]);
}

#[tokio::test]
async fn without_nats_who_connects_hears_why_in_time() {
    let (server, world) = Server::start().await;
    let stand = Stand::on(world).await;
    server.nats.stop().await.unwrap();
    let options = PipesOptions { timeout: Duration::from_millis(500), ..PipesOptions::default() };
    let error = NatsPipes::connect(&stand.client(&stand.friend), options).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    assert!(
        matches!(error, PipeError::Unreachable { .. } | PipeError::Api(_) | PipeError::NoAnswer),
        "{error}"
    );
}
