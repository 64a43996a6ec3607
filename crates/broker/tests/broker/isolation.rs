//! What a user's program reaches, with a real client: its own, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tidegate_broker::{Position, Principal, StreamName, WriteGrant};
use tidegate_test_support::eventually;
use tidegate_test_support::nats::TestNats;
use uuid::Uuid;

use crate::raw::Raw;
use crate::support::{Outcome, Person, message, open_pipe};

#[tokio::test]
async fn a_person_publishes_to_its_own_pipes_and_to_every_inbox_and_reads_through_its_reader() {
    let org = TestNats::shared().organization().await;
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mine = open_pipe(&org, me, "mine", "stdout").await;
    let inbox = open_pipe(&org, other, "theirs", "inbox").await;
    let person = Person::of(&org, me, &[]).await;

    let stored = person.outcome(&mine.subject.from_sender(me), "out").await.answer();
    assert!(stored.contains("\"seq\":1") && stored.contains(mine.stream.as_str()), "{stored}");
    let stored = person.outcome(&inbox.subject.from_sender(me), "hello").await.answer();
    assert!(stored.contains("\"seq\":1"), "{stored}");

    let reader = Principal::new(me).reader();
    org.broker.ensure_reader(&mine.stream, &reader, Position::Oldest).await.unwrap();
    let stream = &mine.stream;
    let inbox = person.client.new_inbox();
    let mut answers = person.client.subscribe(inbox.clone()).await.unwrap();
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{reader}");
    person.client.publish_with_reply(next, inbox, Bytes::from_static(br#"{"batch":1}"#)).await.unwrap();
    let got = answers.next().await.unwrap();
    assert_eq!((got.subject.as_str(), &got.payload[..]), (&*mine.subject.from_sender(me), &b"out"[..]));
    person.outcome(&got.reply.unwrap(), "+ACK").await.answer();
    assert_eq!(org.broker.reader(stream, &reader).await.unwrap().unwrap().unread(), 0);
}

#[tokio::test]
async fn what_is_somebody_elses_in_the_same_organization_is_refused() {
    let org = TestNats::shared().organization().await;
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let stdin = open_pipe(&org, other, "shell", "stdin").await;
    let inbox = open_pipe(&org, other, "theirs", "inbox").await;
    let reader = Principal::new(other).reader();
    org.broker.ensure_reader(&inbox.stream, &reader, Position::Oldest).await.unwrap();
    let mut person = Person::of(&org, me, &[]).await;

    // typing into another's terminal, and speaking in another's name
    person.may_not_publish(&stdin.subject.from_sender(me)).await;
    person.may_not_publish(&stdin.subject.from_sender(other)).await;
    person.may_not_publish(&inbox.subject.from_sender(other)).await;
    let org_id = org.account.organization.simple();
    person.may_not_publish(&format!("{org_id}.{}.shell.stdin.{}", me.simple(), other.simple())).await;

    // listening: to the pipe, to everything, to another's answers, and to the common inbox
    person.may_not_subscribe(&inbox.subject.all_senders()).await;
    for subject in [">".to_owned(), "*".to_owned(), "*.*.*.*.*".to_owned(), "_R_.>".to_owned()] {
        person.may_not_subscribe(&subject).await;
    }
    for subject in ["_INBOX.>", "_INBOX_*.>", "$JS.>", "$SYS.>", "$JS.EVENT.>"] {
        person.may_not_subscribe(subject).await;
    }
    person.may_not_subscribe(&format!("_INBOX_{}.>", other.simple())).await;
    person.may_not_publish(&format!("_INBOX_{}.answer", other.simple())).await;

    // another's reader
    let stream = &inbox.stream;
    person.may_not_publish(&format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{reader}")).await;
    person.may_not_publish(&format!("$JS.API.CONSUMER.INFO.{stream}.{reader}")).await;
    person.may_not_publish(&format!("$JS.ACK.{stream}.{reader}.1.1.1.1.0")).await;
}

#[tokio::test]
async fn nothing_of_jetstreams_api_is_open_but_ones_own_reader() {
    let org = TestNats::shared().organization().await;
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let inbox = open_pipe(&org, other, "theirs", "inbox").await;
    let mut person = Person::of(&org, me, &[]).await;
    let (stream, me) = (&inbox.stream, me.simple());
    let filter = inbox.subject.from_sender(other);
    for call in [
        // readers: today's way, and the two of before
        format!("CONSUMER.CREATE.{stream}.{me}"),
        format!("CONSUMER.CREATE.{stream}.{me}.{filter}"),
        format!("CONSUMER.CREATE.{stream}"),
        format!("CONSUMER.DURABLE.CREATE.{stream}.{me}"),
        format!("CONSUMER.DELETE.{stream}.{me}"),
        format!("CONSUMER.PAUSE.{stream}.{me}"),
        format!("CONSUMER.RESET.{stream}.{me}"),
        format!("CONSUMER.UNPIN.{stream}.{me}"),
        format!("CONSUMER.INFO.{stream}.{me}"),
        format!("CONSUMER.NAMES.{stream}"),
        format!("CONSUMER.LIST.{stream}"),
        // messages without a reader
        format!("DIRECT.GET.{stream}"),
        format!("DIRECT.GET.{stream}.{filter}"),
        format!("STREAM.MSG.GET.{stream}"),
        format!("STREAM.MSG.DELETE.{stream}"),
        // streams
        format!("STREAM.CREATE.{stream}"),
        format!("STREAM.UPDATE.{stream}"),
        format!("STREAM.INFO.{stream}"),
        format!("STREAM.DELETE.{stream}"),
        format!("STREAM.PURGE.{stream}"),
        format!("STREAM.SNAPSHOT.{stream}"),
        format!("STREAM.RESTORE.{stream}"),
        "STREAM.NAMES".to_owned(),
        "STREAM.LIST".to_owned(),
        "INFO".to_owned(),
    ] {
        person.may_not_publish(&format!("$JS.API.{call}")).await;
    }
    person.may_not_publish("$SYS.REQ.SERVER.PING").await;
    person.may_not_publish("$SYS.REQ.CLAIMS.LIST").await;
    // one's own name on a stream one was given no reader of
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{me}");
    assert_eq!(person.outcome(&next, r#"{"batch":1}"#).await, Outcome::Nobody);
}

#[tokio::test]
async fn another_organization_does_not_exist() {
    let nats = TestNats::shared();
    let (ours, theirs) = (nats.organization().await, nats.organization().await);
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let secret = open_pipe(&theirs, other, "theirs", "inbox").await;
    let reader = Principal::new(other).reader();
    theirs.broker.ensure_reader(&secret.stream, &reader, Position::Oldest).await.unwrap();
    theirs.broker.publish(message(&secret, other, "1", "secret")).await.unwrap();

    // with a user's rights
    let mut person = Person::of(&ours, me, &[]).await;
    person.may_not_publish(&secret.subject.from_sender(me)).await;
    person.may_not_subscribe(&secret.subject.all_senders()).await;

    // with every right of one's own account, which nobody is given
    let rights = tidegate_broker::Permissions::default();
    let client = ours.client(&rights, "_INBOX").await;
    let mut everything = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    theirs.broker.publish(message(&secret, other, "2", "secret")).await.unwrap();
    theirs.broker.fetch(&secret.stream, &reader, 10, None).await.unwrap();
    let stream = &secret.stream;
    for call in [
        format!("$JS.API.STREAM.INFO.{stream}"),
        format!("$JS.API.STREAM.DELETE.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.x"),
        format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.x"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{reader}"),
    ] {
        let request = async_nats::Request::new()
            .payload(r#"{"batch":1,"seq":1,"stream_name":"x","config":{}}"#.into())
            .timeout(Some(Duration::from_millis(300)));
        if let Ok(answer) = client.send_request(call.clone(), request).await {
            let text = String::from_utf8_lossy(&answer.payload);
            assert!(text.contains("\"error\""), "{call}: {text}");
        }
    }
    client.publish(secret.subject.from_sender(other), "forged".into()).await.unwrap();
    client.flush().await.unwrap();
    let state = theirs.broker.stream(stream).await.unwrap().unwrap();
    assert_eq!((state.messages, state.last), (2, 2), "nothing was stored, and the stream is there");
    // what was heard of it all are one's own requests
    while let Ok(Some(heard)) = tokio::time::timeout(Duration::from_millis(50), everything.next()).await {
        assert!(!heard.payload.starts_with(b"secret"), "{heard:?}");
    }
}

#[tokio::test]
async fn an_answer_is_never_stored_whatever_reply_subject_is_asked_for() {
    let org = TestNats::shared().organization().await;
    let (me, victim) = (Uuid::new_v4(), Uuid::new_v4());
    let mine = open_pipe(&org, me, "mine", "stdout").await;
    let stdin = open_pipe(&org, victim, "shell", "stdin").await;
    let reader = Principal::new(me).reader();
    org.broker.ensure_reader(&mine.stream, &reader, Position::Oldest).await.unwrap();
    let mut person = Person::of(&org, me, &[]).await;
    let plain = stdin.subject.from_sender(victim);
    let own = mine.subject.from_sender(me);
    for number in 1..=3 {
        org.broker.publish(message(&mine, me, &number.to_string(), "rm -rf ~\n")).await.unwrap();
    }
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{reader}", mine.stream);
    let ack = org.broker.fetch(&mine.stream, &reader, 1, None).await.unwrap().remove(0).ack;
    let calls = [
        // the acknowledgement of a publish and of a delivery, and messages of one's own making
        (own.clone(), "rm -rf ~\n"),
        (ack.subject().to_owned(), "+ACK"),
        (ack.subject().to_owned(), "+NXT"),
        (next, r#"{"batch":1}"#),
    ];

    // where the stream listens, no client may have an answer sent
    let (_, tokens) = plain.split_once('.').unwrap();
    let listened = format!("_R_.{tokens}");
    for (subject, payload) in &calls {
        person.refusals().await;
        person.client.publish_with_reply(subject.clone(), listened.clone(), (*payload).into()).await.unwrap();
        person.is_refused("Reply", &listened).await;
    }
    // a trace of a message is an answer too
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Trace-Dest", listened.as_str());
    person.client.publish_with_headers(own.clone(), headers, "x".into()).await.unwrap();
    person.is_refused("Publish", &listened).await;

    // and where clients publish to, an answer reaches nobody
    for (subject, payload) in &calls {
        person.client.publish_with_reply(subject.clone(), plain.clone(), (*payload).into()).await.unwrap();
    }
    // an answer that does come says that those before went out
    person.outcome(&own, "").await.answer();
    org.broker.publish(message(&stdin, victim, "1", "ls\n")).await.unwrap();
    let stored = org.broker.read(&stdin.stream, Position::Oldest, 10).await.unwrap();
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert_eq!(&stored[0].payload[..], b"ls\n");
}

#[tokio::test]
async fn a_stream_on_a_subject_that_may_be_a_reply_would_store_answers() {
    // The reason why streams do not listen where clients publish: should this fail one day, NATS checks replies itself.
    let org = TestNats::shared().organization().await;
    let me = Uuid::new_v4();
    let mine = open_pipe(&org, me, "mine", "stdout").await;
    let admin = org.client(&tidegate_broker::Permissions::default(), "_INBOX").await;
    let config = r#"{"name":"probe","subjects":["probe"],"storage":"file","max_bytes":1024}"#;
    admin.request("$JS.API.STREAM.CREATE.probe", config.into()).await.unwrap();
    let mut person = Person::of(&org, me, &[]).await;
    person.may_not_publish("probe").await;
    person.client.publish_with_reply(mine.subject.from_sender(me), "probe", "x".into()).await.unwrap();
    let probe = StreamName::parse("probe").unwrap();
    let stored = async || org.broker.stream(&probe).await.unwrap().unwrap().messages == 1;
    eventually("the acknowledgement is stored", stored).await;
}

#[tokio::test]
async fn an_answer_commands_nothing_whatever_reply_subject_is_asked_for() {
    let org = TestNats::shared().organization().await;
    let (me, victim) = (Uuid::new_v4(), Uuid::new_v4());
    let mine = open_pipe(&org, me, "mine", "stdout").await;
    let theirs = open_pipe(&org, victim, "theirs", "inbox").await;
    org.broker.publish(message(&theirs, victim, "1", "kept")).await.unwrap();
    let reader = Principal::new(me).reader();
    org.broker.ensure_reader(&mine.stream, &reader, Position::Oldest).await.unwrap();
    let person = Person::of(&org, me, &[]).await;
    for (number, call) in [
        format!("$JS.API.STREAM.PURGE.{}", theirs.stream),
        format!("$JS.API.STREAM.DELETE.{}", theirs.stream),
        format!("$JS.API.CONSUMER.DURABLE.CREATE.{}.{reader}", theirs.stream),
        format!("$JS.API.CONSUMER.CREATE.{}.{reader}", theirs.stream),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(
            r#"{{"stream_name":"{}","config":{{"name":"{reader}","durable_name":"{reader}","ack_policy":"explicit"}}}}"#,
            theirs.stream
        );
        let body = if call.contains("CONSUMER") { body } else { String::new() };
        person.outcome(&mine.subject.from_sender(me), &body).await.answer();
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{reader}", mine.stream);
        person.client.publish_with_reply(next, call, r#"{"batch":1}"#.into()).await.unwrap();
        let wanted = u64::try_from(number + 1).unwrap();
        let taken =
            async || org.broker.reader(&mine.stream, &reader).await.unwrap().unwrap().delivered == wanted;
        eventually("the message goes out", taken).await;
    }
    let state = org.broker.stream(&theirs.stream).await.unwrap().expect("the stream is there");
    assert_eq!((state.messages, state.readers), (1, 0));
}

#[tokio::test]
async fn a_write_grant_opens_one_pipe_and_no_other_name() {
    let org = TestNats::shared().organization().await;
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let stdin = open_pipe(&org, other, "shell", "stdin").await;
    let control = open_pipe(&org, other, "shell", "stdctrl").await;
    let mut person = Person::of(&org, me, &[WriteGrant::new("shell", "stdin").unwrap()]).await;
    let stored = person.outcome(&stdin.subject.from_sender(me), "ls\n").await.answer();
    assert!(stored.contains("\"seq\":1"), "{stored}");
    person.may_not_publish(&stdin.subject.from_sender(other)).await;
    person.may_not_publish(&control.subject.from_sender(me)).await;
}

#[tokio::test]
async fn nobody_listens_to_more_than_a_server_can_bear() {
    let org = TestNats::shared().organization().await;
    let mut person = Person::of(&org, Uuid::new_v4(), &[]).await;
    let mut open = Vec::new();
    for _ in 0..1_000 {
        open.push(person.client.subscribe(person.client.new_inbox()).await.unwrap());
    }
    assert_eq!(person.refusals().await, Vec::<String>::new());
    open.push(person.client.subscribe(person.client.new_inbox()).await.unwrap());
    eventually("one more is refused", async || {
        person.refusals().await.iter().any(|text| text.to_lowercase().contains("subscriptions"))
    })
    .await;
}

/// What a client wrote into the headers comes back with what the server says of the message, in one block.
#[tokio::test]
async fn a_sender_writes_neither_itself_nor_a_place_nor_a_time() {
    let org = TestNats::shared().organization().await;
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let pipe = open_pipe(&org, other, "theirs", "inbox").await;
    org.broker.publish(message(&pipe, other, "1", "first")).await.unwrap();
    let forged = format!(
        "NATS/1.0\r\nNats-Subject: {}\r\nNats-Sequence: 777\r\nNats-Time-Stamp: x\r\nNats-Num-Pending: 0\r\n\r\n",
        pipe.subject.from_sender(other)
    );
    let mut raw = Raw::of(&org, me).await;
    raw.publish(&pipe.subject.from_sender(me), forged.as_bytes(), b"second").await;
    org.broker.publish(message(&pipe, other, "3", "third")).await.unwrap();

    let honest = |found: &[tidegate_broker::Stored]| {
        let told: Vec<_> = found.iter().map(|found| (found.sequence, found.sender)).collect();
        assert_eq!(told, [(1, Some(other)), (2, Some(me)), (3, Some(other))]);
    };
    honest(&org.broker.read(&pipe.stream, Position::Oldest, 10).await.unwrap());
    let one = org.broker.message(&pipe.stream, 2).await.unwrap().unwrap();
    assert_eq!((one.sequence, one.sender, &one.payload[..]), (2, Some(me), &b"second"[..]));
    let reader = Principal::new(other).reader();
    org.broker.ensure_reader(&pipe.stream, &reader, Position::Oldest).await.unwrap();
    let fetched = org.broker.fetch(&pipe.stream, &reader, 10, None).await.unwrap();
    honest(&fetched.into_iter().map(|fetched| fetched.message).collect::<Vec<_>>());
}

#[tokio::test]
async fn headers_that_are_no_headers_cut_nobody_off() {
    let org = TestNats::shared().organization().await;
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let pipe = open_pipe(&org, other, "theirs", "inbox").await;
    let reader = Principal::new(other).reader();
    org.broker.ensure_reader(&pipe.stream, &reader, Position::Oldest).await.unwrap();
    let mut watch = org.broker.watch(&pipe.stream);
    watch.ready(tidegate_test_support::DEADLINE).await;
    let mut raw = Raw::of(&org, me).await;
    let blocks: [&[u8]; 7] = [
        b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n",
        b"NATS/1.0\r\na line without a colon\r\n\r\n",
        b"garbage\r\nA: b\r\n\r\n",
        b"NATS/1.0\r\nA: b\r\n\r\nC: d\r\n\r\n",
        b"NATS/1.0\r\n: nameless\r\n b\xc3\r\n\r\n",
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 x\r\nA",
    ];
    for (number, block) in blocks.iter().enumerate() {
        raw.publish(&pipe.subject.from_sender(me), block, number.to_string().as_bytes()).await;
    }
    let stored = || async { org.broker.stream(&pipe.stream).await.unwrap().unwrap().last };
    let count = u64::try_from(blocks.len()).unwrap();
    eventually("everything is stored", async || stored().await == count).await;

    watch.news().await;
    assert!(watch.is_listening());
    let expected: Vec<String> = (0..blocks.len()).map(|number| number.to_string()).collect();
    let read = org.broker.read(&pipe.stream, Position::Oldest, 100).await.unwrap();
    let texts = |found: &[tidegate_broker::Stored]| -> Vec<String> {
        found.iter().map(|found| String::from_utf8_lossy(&found.payload).into_owned()).collect()
    };
    assert_eq!(texts(&read), expected);
    assert!(read.iter().all(|found| found.sender == Some(me)), "{read:?}");
    assert_eq!(org.broker.last(&pipe.stream).await.unwrap().unwrap().sequence, count);
    let fetched = org.broker.fetch(&pipe.stream, &reader, 100, None).await.unwrap();
    for fetched in &fetched {
        org.broker.acknowledge(&fetched.ack).await.unwrap();
    }
    assert_eq!(texts(&fetched.into_iter().map(|fetched| fetched.message).collect::<Vec<_>>()), expected);
    assert_eq!(org.broker.reader(&pipe.stream, &reader).await.unwrap().unwrap().unread(), 0);
    // The same connection all the while.
    assert!(watch.is_listening());
}

#[tokio::test]
async fn a_time_that_no_message_can_have_finds_all_or_none() {
    let org = TestNats::shared().organization().await;
    let me = Uuid::new_v4();
    let pipe = open_pipe(&org, me, "mine", "inbox").await;
    org.broker.publish(message(&pipe, me, "1", "once")).await.unwrap();
    for (year, found) in [(-5_000, 1), (1_600, 1), (1_969, 1), (2_263, 0), (12_000, 0)] {
        let time =
            chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap().and_time(chrono::NaiveTime::MIN).and_utc();
        let read = org.broker.read(&pipe.stream, Position::Time(time), 10).await.unwrap();
        assert_eq!(read.len(), found, "{year}");
    }
}
