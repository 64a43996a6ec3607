//! Reading by a place that moves once its reader confirms: what is lost comes again, and what was confirmed does not.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, process::Command};

use tidegate_engines::nats::{Nats, Options, Trust};
use tidegate_model::Confirmation;

use super::*;

impl Stage {
    /// A source with so many messages in its inbox: `m1` and so on.
    async fn filled(messages: u64) -> Self {
        let stage = Self::new().await;
        stage.make("build", "message").await;
        stage.fill(1..=messages).await;
        stage
    }

    async fn fill(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.send(&self.friend, "build", "inbox", &format!("m{number}")).await.unwrap();
        }
    }

    /// The next page behind what is confirmed of another.
    async fn after(&self, page: Option<&MessagesPage>) -> MessagesPage {
        let sequence = page.and_then(|page| page.last).unwrap_or_default();
        self.confirmed(sequence, page.and_then(|page| page.incarnation)).await.unwrap()
    }

    async fn confirmed(
        &self,
        sequence: u64,
        incarnation: Option<chrono::DateTime<chrono::Utc>>,
    ) -> Result<MessagesPage> {
        let confirmation = Confirmation { sequence, incarnation };
        self.read(&self.owner, "build", "inbox", MessagesRead::Confirmed(confirmation)).await
    }

    async fn next(&self) -> MessagesPage {
        self.read(&self.owner, "build", "inbox", MessagesRead::Next).await.unwrap()
    }

    async fn confirm(&self, page: &MessagesPage, sequence: u64) -> tidegate_service::ReadPlace {
        let confirmation = Confirmation { sequence, incarnation: page.incarnation };
        let messages = &self.services.messages;
        messages.confirm(scope(&self.owner), "build", "inbox", confirmation).await.unwrap()
    }

    async fn written(&self) -> i64 {
        self.test.look("SELECT sequence FROM read_cursors").await
    }
}

fn numbers(page: &MessagesPage) -> Vec<u64> {
    let sequences: Vec<u64> = page.messages.iter().map(|message| message.sequence).collect();
    let says: Vec<String> = sequences.iter().map(|number| format!("m{number}")).collect();
    assert_eq!(said(page), says, "each message stands where it was stored");
    sequences
}

fn complaint(outcome: Result<MessagesPage>) -> String {
    match outcome {
        Err(Error::Invalid(fields)) => fields.to_string(),
        other => panic!("it is refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_lost_answer_is_answered_again_and_what_is_confirmed_is_not() {
    let stage = Stage::filled(12).await;
    let first = stage.after(None).await;
    assert_eq!((numbers(&first), first.unread), ((1..=10).collect(), Some(12)));
    assert!(
        first.messages.iter().all(|it| it.sender_name.as_deref() == Some(scope(&stage.friend).username()))
    );
    // It never arrived.
    assert_eq!(stage.after(None).await, first);
    assert_eq!(stage.written().await, 0);
    let second = stage.after(Some(&first)).await;
    assert_eq!((numbers(&second), second.unread), (vec![11, 12], Some(2)));
    assert_eq!(stage.written().await, 10);
    // Whoever begins anew, in another process for instance, begins at the place.
    assert_eq!(stage.after(None).await, second);
    // Less than the place moves nothing.
    assert_eq!(numbers(&stage.confirmed(3, first.incarnation).await.unwrap()), [11, 12]);
    let place = stage.confirm(&second, 12).await;
    assert_eq!((place.sequence, place.incarnation, place.unread), (12, first.incarnation, 0));
    assert_eq!(stage.confirm(&second, 11).await, place);
    assert_eq!(numbers(&stage.after(Some(&second)).await), Vec::<u64>::new());
    assert_eq!(said(&stage.next().await), Vec::<&str>::new());
    let waits = stage.services.messages.unread(scope(&stage.owner), "build", "inbox").await.unwrap();
    assert_eq!(waits, 0);
}

#[tokio::test]
async fn what_is_not_there_yet_or_of_another_stream_is_not_confirmed() {
    let stage = Stage::filled(2).await;
    let page = stage.after(None).await;
    let refused = complaint(stage.confirmed(3, page.incarnation).await);
    assert!(refused.contains("confirmed") && refused.contains("the last one is 2"), "{refused}");
    assert_eq!(stage.written().await, 0);
    let before = page.incarnation.map(|at| at - chrono::TimeDelta::seconds(1));
    let other = stage.confirmed(9, before).await.unwrap();
    assert_eq!((numbers(&other), other.incarnation), (vec![1, 2], page.incarnation));
    assert_eq!(numbers(&stage.after(Some(&page)).await), Vec::<u64>::new());

    // Deleted and made anew, it begins at its first message, whatever one had of the other.
    stage.services.sources.delete(scope(&stage.owner), "build").await.unwrap();
    stage.run();
    stage.make("build", "message").await;
    stage.fill(1..=1).await;
    let anew = stage.after(Some(&page)).await;
    assert_eq!(numbers(&anew), [1]);
    assert_ne!(anew.incarnation, page.incarnation);
    assert_eq!(numbers(&stage.after(Some(&anew)).await), Vec::<u64>::new());
}

#[tokio::test]
async fn whoever_waits_behind_the_place_gets_what_is_sent_and_counts_it() {
    let stage = Stage::filled(1).await;
    let page = stage.after(None).await;
    let confirmation = Confirmation { sequence: 1, incarnation: page.incarnation };
    let read = MessagesRead::Confirmed(confirmation);
    let wanted = MessagesWanted { read, wait: Some(Duration::from_secs(20)), limit: None };
    let (page, ()) =
        tokio::join!(stage.services.messages.read(scope(&stage.owner), "build", "inbox", wanted), async {
            // The confirmation counts before anything comes.
            eventually("the place moves", async || stage.written().await == 1).await;
            stage.fill(2..=2).await;
        });
    let page = page.unwrap();
    assert_eq!((numbers(&page), page.unread), (vec![2], Some(1)));
}

#[tokio::test]
async fn each_reader_has_a_place_and_both_ways_of_reading_have_one_together() {
    let stage = Stage::filled(6).await;
    let admin = async || {
        let read = MessagesRead::Confirmed(Confirmation { sequence: 0, incarnation: None });
        stage.read(&stage.org.admin, "build", "room", read).await
    };
    let request: CreatePipeRequest = read(json!({"name": "room"}));
    let made =
        stage.services.pipes.create(scope(&stage.owner), "build", request, None, |_| json!(null)).await;
    assert!(made.is_ok(), "{made:?}");
    forbidden(admin().await);
    stage.grant("build", json!({"everyone": true, "right": "read"})).await;
    for say in ["a", "b"] {
        stage.send(&stage.owner, "build", "room", say).await.unwrap();
    }
    let begin = Confirmation { sequence: 0, incarnation: None };
    let mine = stage.read(&stage.owner, "build", "room", MessagesRead::Confirmed(begin)).await.unwrap();
    let all = Confirmation { sequence: 2, incarnation: mine.incarnation };
    stage.services.messages.confirm(scope(&stage.owner), "build", "room", all).await.unwrap();
    assert_eq!(said(&admin().await.unwrap()), ["a", "b"], "another reader's place is another one");

    let three = MessagesWanted { limit: Some(3), ..MessagesWanted::default() };
    let shared = stage.services.messages.read(scope(&stage.owner), "build", "inbox", three).await.unwrap();
    assert_eq!(numbers(&shared), [1, 2, 3]);
    let page = stage.after(None).await;
    assert_eq!((numbers(&page), page.unread), (vec![4, 5, 6], Some(3)));
    assert_eq!(stage.confirm(&page, 5).await.unread, 1);
    assert_eq!((numbers(&stage.next().await), stage.next().await.unread), (vec![6], Some(0)));
    assert_eq!(numbers(&stage.after(None).await), Vec::<u64>::new());
}

/// Gets messages past the control plane as its own fetch does, and acknowledges none.
async fn fetch(stage: &Stage, count: usize) -> (tidegate_test_support::nats::Client, Vec<String>) {
    let me = scope(&stage.owner);
    let route = stage.services.messages.read_route(me, "build", "inbox").await.unwrap();
    let client = client!(stage.services.exchange.exchange_for(&stage.owner).await.unwrap()).unwrap();
    let pull = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", route.stream, route.reader.unwrap());
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    client.publish_with_reply(pull, inbox, count.to_string().into()).await.unwrap();
    let mut replies = Vec::new();
    while replies.len() < count {
        replies.push(answers.next().await.unwrap().reply.unwrap().to_string());
    }
    (client, replies)
}

#[tokio::test]
async fn what_was_fetched_and_never_acknowledged_comes_in_order_and_once() {
    let stage = Stage::filled(7).await;
    // A program was killed between the two: JetStream keeps the first three back for half a minute.
    let (client, replies) = fetch(&stage, 3).await;
    assert_eq!(numbers(&stage.next().await), [4, 5, 6, 7], "work that is shared goes on with the rest");
    let page = stage.after(None).await;
    assert_eq!(numbers(&page), [1, 2, 3, 4, 5, 6, 7], "a place is in order, and passes over nothing");
    let place = stage.confirm(&page, 7).await;
    assert_eq!((place.sequence, place.unread), (7, 0));
    // They come back to JetStream's reader, and to nobody who reads over HTTP.
    for reply in replies {
        client.publish(reply, "-NAK".into()).await.unwrap();
    }
    client.flush().await.unwrap();
    stage.fill(8..=8).await;
    assert_eq!(numbers(&stage.next().await), [8]);
    let subscriptions = stage
        .services
        .messages
        .subscriptions(scope(&stage.owner), &tidegate_service::Paging::default())
        .await;
    let subscriptions = subscriptions.unwrap().items;
    assert_eq!((subscriptions[0].sequence, subscriptions[0].unread), (8, Some(0)));
}

#[tokio::test]
async fn a_client_of_nats_goes_on_behind_what_was_confirmed_over_http() {
    let stage = Stage::filled(5).await;
    let page = stage.after(None).await;
    stage.confirm(&page, 4).await;
    let (_, replies) = fetch(&stage, 1).await;
    let sequence = replies[0].split('.').nth(5).unwrap();
    assert_eq!(sequence, "5", "{replies:?}");
}

#[tokio::test]
async fn a_place_beyond_the_end_of_its_stream_is_set_back_and_nothing_new_is_passed_over() {
    let stage = Stage::filled(3).await;
    let page = stage.after(None).await;
    stage.confirm(&page, 2).await;
    // The streams came back from a backup, the database did not.
    let lost = "UPDATE read_cursors SET sequence = 90";
    stage.test.execute(lost).await;
    assert_eq!(numbers(&stage.after(None).await), [3]);
    assert_eq!(stage.written().await, 2);
    stage.test.execute(lost).await;
    assert_eq!(numbers(&stage.next().await), [3]);
    stage.test.execute(lost).await;
    assert_eq!(stage.services.broker.reconcile().await.unwrap().places, 1);
    assert_eq!(stage.written().await, 3);
    assert!(!stage.services.broker.reconcile().await.unwrap().is_some());
    stage.fill(4..=4).await;
    assert_eq!(numbers(&stage.after(None).await), [4]);
    let refused = complaint(stage.confirmed(90, page.incarnation).await);
    assert!(refused.contains("the last one is 4"), "{refused}");
}

#[tokio::test]
async fn whose_right_was_taken_away_confirms_nothing_and_leaves_no_place() {
    let stage = Stage::new().await;
    stage.make("shell", "pty").await;
    let name = scope(&stage.friend).username().to_owned();
    let grant = stage.grant("shell", json!({"username": name, "right": "read"})).await;
    stage.send(&stage.owner, "shell", "stdout", "$").await.unwrap();
    let read = async |sequence, incarnation| {
        let confirmation = Confirmation { sequence, incarnation };
        stage.read(&stage.friend, "shell", "stdout", MessagesRead::Confirmed(confirmation)).await
    };
    let page = read(0, None).await.unwrap();
    assert_eq!(said(&page), ["$"]);
    stage.services.sources.revoke_grant(scope(&stage.owner), "shell", grant).await.unwrap();
    forbidden(read(1, page.incarnation).await);
    let confirmation = Confirmation { sequence: 1, incarnation: page.incarnation };
    let messages = &stage.services.messages;
    forbidden(messages.confirm(scope(&stage.friend), "shell", "stdout", confirmation).await);
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM read_cursors").await, 0);
    stage.apply().await;
    assert!(!stage.services.broker.reconcile().await.unwrap().is_some(), "the reader is gone, too");
}

#[tokio::test]
async fn whoever_leaves_while_they_wait_takes_nothing_along() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    let wait = Some(Duration::from_secs(1));
    let wanted = MessagesWanted { read: MessagesRead::Next, wait, limit: None };
    let messages = &stage.services.messages;
    for waits in 0_u32.. {
        let reading = Box::pin(messages.read(scope(&stage.owner), "build", "inbox", wanted));
        let over = given_up(reading, waits).await.is_some();
        let say = waits.to_string();
        stage.send(&stage.friend, "build", "inbox", &say).await.unwrap();
        let page = stage.read(&stage.owner, "build", "inbox", MessagesRead::Next).await.unwrap();
        assert_eq!(said(&page), [&say]);
        if over {
            assert!(waits > 3, "{waits}");
            break;
        }
    }
}

#[tokio::test]
async fn a_place_survives_a_killed_server_between_page_and_confirmation() {
    let test = TestDb::new().await;
    let clock = test.manual_clock();
    clock.advance(SystemClock::new().now() - clock.now());
    test.org_with_admin("acme").await;
    let owner = test.caller(&test.user_in("acme", OrgRole::User).await).await;
    let services = test.services_at(Arc::new(SystemClock::new()));
    let mut folder = tempfile::Builder::new();
    let folder = folder.prefix("tg-nats-").permissions(Permissions::from_mode(0o711)).tempdir().unwrap();
    let trust = services.broker.trust().await.unwrap();
    let (operator, system_account, system_token) = (trust.operator, trust.system_account, trust.system_token);
    let trust = Trust { operator, system_account, system_token };
    let nats = Nats::start(Options::for_tests(folder.path(), trust)).await.unwrap();
    services.broker.open(BrokerOptions::new([nats.url()])).await.unwrap();
    let me = scope(&owner);
    let request: CreateSourceRequest = read(json!({"handle": "build", "kind": "message"}));
    services.sources.create(me, request, None, |_| json!(null)).await.unwrap();
    for number in 1..=9 {
        services.messages.publish(me, "build", "inbox", text(&format!("m{number}")), None).await.unwrap();
    }
    let (mut confirmation, mut had) = (Confirmation { sequence: 0, incarnation: None }, Vec::new());
    for _ in 0..3 {
        let wanted =
            MessagesWanted { read: MessagesRead::Confirmed(confirmation), limit: Some(3), wait: None };
        let page = tidegate_test_support::eventually_some("the next page", async || {
            services.messages.read(me, "build", "inbox", wanted).await.ok()
        })
        .await;
        had.extend(numbers(&page));
        let before = nats.pid();
        let pid = before.unwrap().to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        eventually("it runs again", async || nats.pid().is_some_and(|now| Some(now) != before)).await;
        confirmation = Confirmation { sequence: page.last.unwrap(), incarnation: page.incarnation };
    }
    assert_eq!(had, (1..=9).collect::<Vec<u64>>());
    eventually("the last page is confirmed", async || {
        let place = services.messages.confirm(me, "build", "inbox", confirmation).await;
        place.is_ok_and(|place| (place.sequence, place.unread) == (9, 0))
    })
    .await;
    nats.stop().await.unwrap();
}
