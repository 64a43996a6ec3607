//! Streams, messages and readers.

use std::time::Duration;

use bytes::Bytes;
use tidegate_broker::{
    Error, MAX_MESSAGE_BYTES, Missing, OrgBroker, Outgoing, Position, Retention, StreamName,
};
use tidegate_test_support::nats::TestNats;
use uuid::Uuid;

use crate::support::{RETENTION, message, now, open_pipe, pipe_of, spec};

const READER: &str = "reader";

#[tokio::test]
async fn a_stream_is_made_changed_looked_at_listed_and_deleted() {
    let org = TestNats::shared().organization().await;
    let me = Uuid::new_v4();
    let pipe = pipe_of(&org, me, "mine", "inbox");
    assert_eq!(org.broker.stream(&pipe.stream).await.unwrap(), None);
    let made = org.broker.ensure_stream(&spec(&pipe, RETENTION)).await.unwrap();
    assert_eq!((made.retention, made.messages, made.last), (RETENTION, 0, 0));
    assert_eq!(made.subject, pipe.subject.all_senders());
    let again = org.broker.ensure_stream(&spec(&pipe, RETENTION)).await.unwrap();
    assert_eq!(again.created, made.created);

    let other = Retention { age: Duration::from_secs(1), messages: 1, bytes: 2_048 };
    let changed = org.broker.ensure_stream(&spec(&pipe, other)).await.unwrap();
    assert_eq!((changed.retention, changed.created), (other, made.created));
    for number in 0..300 {
        open_pipe(&org, me, &format!("more-{number}"), "inbox").await;
    }
    assert_eq!(org.broker.streams().await.unwrap().len(), 301);

    assert!(org.broker.delete_stream(&pipe.stream).await.unwrap());
    assert!(!org.broker.delete_stream(&pipe.stream).await.unwrap());
    let error = org.broker.publish(message(&pipe, me, "1", "late")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Missing::Stream)), "{error}");
}

#[tokio::test]
async fn a_stream_that_is_something_else_is_an_error_and_no_quiet_mismatch() {
    let org = TestNats::shared().organization().await;
    let (me, stream) = (Uuid::new_v4(), StreamName::parse("taken").unwrap());
    let client = org.client(&tidegate_broker::Permissions::default(), "_INBOX").await;
    let config = format!(r#"{{"name":"{stream}","subjects":["x"],"storage":"memory","max_bytes":1024}}"#);
    let answer = client.request(format!("$JS.API.STREAM.CREATE.{stream}"), config.into()).await.unwrap();
    let error_or_memory = String::from_utf8_lossy(&answer.payload).into_owned();
    // Memory is not among what an organization has.
    assert!(error_or_memory.contains("\"error\""), "{error_or_memory}");
    let config = format!(
        r#"{{"name":"{stream}","subjects":["x"],"storage":"file","max_bytes":1024,"retention":"workqueue"}}"#
    );
    client.request(format!("$JS.API.STREAM.CREATE.{stream}"), config.into()).await.unwrap();
    let pipe = pipe_of(&org, me, "mine", "inbox");
    let wanted = tidegate_broker::StreamSpec { name: stream, ..spec(&pipe, RETENTION) };
    let error = org.broker.ensure_stream(&wanted).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. } | Error::Mismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_message_is_stored_once_however_often_it_is_sent_and_ids_are_each_senders_own() {
    let org = TestNats::shared().organization().await;
    let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
    let pipe = open_pipe(&org, me, "mine", "inbox").await;
    let first = org.broker.publish(message(&pipe, me, "1", "a")).await.unwrap();
    let again = org.broker.publish(message(&pipe, me, "1", "a")).await.unwrap();
    let others = org.broker.publish(message(&pipe, other, "1", "b")).await.unwrap();
    assert_eq!((first.sequence, first.repeated), (1, false));
    assert_eq!((again.sequence, again.repeated), (1, true));
    assert_eq!((others.sequence, others.repeated), (2, false));
    let last = org.broker.last(&pipe.stream).await.unwrap().unwrap();
    assert_eq!((last.sender, last.sequence, &last.payload[..]), (Some(other), 2, &b"b"[..]));
    assert_eq!(last.subject, pipe.subject.from_sender(other));
    assert!((now() - last.time).num_seconds().abs() < 60);
}

#[tokio::test]
async fn bytes_of_any_kind_come_back_as_sent_up_to_the_bound_and_no_further() {
    let org = TestNats::shared().organization().await;
    let me = Uuid::new_v4();
    let pipe = open_pipe(&org, me, "mine", "stdout").await;
    let bytes: Vec<u8> = (0..MAX_MESSAGE_BYTES).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let headers = vec![("Kind".to_owned(), "raw".to_owned())];
    let outgoing = Outgoing { headers, payload: bytes.clone().into(), ..message(&pipe, me, "1", "") };
    org.broker.publish(outgoing).await.unwrap();
    let stored = org.broker.message(&pipe.stream, 1).await.unwrap().unwrap();
    assert_eq!(stored.payload, bytes);
    assert_eq!(stored.header("kind"), Some("raw"));
    let too_large = Bytes::from(vec![0; MAX_MESSAGE_BYTES + 1]);
    let outgoing = Outgoing { payload: too_large, ..message(&pipe, me, "2", "") };
    assert!(matches!(org.broker.publish(outgoing).await.unwrap_err(), Error::TooLarge { .. }));
    for (name, value) in [("Nats-Rollup", "all"), ("a", "b\r\nc"), ("a b", "c"), ("", "c")] {
        let headers = vec![(name.to_owned(), value.to_owned())];
        let outgoing = Outgoing { headers, ..message(&pipe, me, "3", "") };
        assert!(matches!(org.broker.publish(outgoing).await.unwrap_err(), Error::Invalid { .. }), "{name}");
    }
    let headers = vec![("a".to_owned(), "b".repeat(1_100))];
    let outgoing = Outgoing { headers, ..message(&pipe, me, "3", "") };
    assert!(matches!(org.broker.publish(outgoing).await.unwrap_err(), Error::TooLarge { .. }));
    assert_eq!(org.broker.stream(&pipe.stream).await.unwrap().unwrap().messages, 1);
}

async fn fetch_all(broker: &OrgBroker, stream: &StreamName) -> Vec<u64> {
    let fetched = broker.fetch(stream, READER, 10, None).await.unwrap();
    for one in &fetched {
        broker.acknowledge(&one.ack).await.unwrap();
    }
    fetched.iter().map(|one| one.message.sequence).collect()
}

#[tokio::test]
async fn a_reader_gets_the_oldest_first_ten_at_a_time_and_remembers() {
    let org = TestNats::shared().organization().await;
    let (me, broker) = (Uuid::new_v4(), &org.broker);
    let pipe = open_pipe(&org, me, "mine", "inbox").await;
    for number in 1..=15 {
        broker.publish(message(&pipe, me, &number.to_string(), "x")).await.unwrap();
    }
    let stream = &pipe.stream;
    let made = broker.ensure_reader(stream, READER, Position::Oldest).await.unwrap();
    assert_eq!(made.unread(), 15);
    assert_eq!(fetch_all(broker, stream).await, (1..=10).collect::<Vec<_>>());
    let unacknowledged = broker.fetch(stream, READER, 10, None).await.unwrap();
    assert_eq!(unacknowledged.len(), 5);
    let state = broker.ensure_reader(stream, READER, Position::Oldest).await.unwrap();
    assert_eq!((state.delivered, state.acknowledged, state.pending, state.unread()), (15, 10, 0, 5));
    broker.give_back(&unacknowledged[0].ack).await.unwrap();
    let again = broker.fetch(stream, READER, 10, Some(Duration::from_secs(5))).await.unwrap();
    assert_eq!((again[0].message.sequence, again[0].deliveries), (11, 2));
    assert_eq!(broker.readers(stream).await.unwrap(), [READER]);

    // read again, from the start, from a place, from a time, and only what is new
    broker.move_reader(stream, READER, Position::Oldest).await.unwrap();
    assert_eq!(fetch_all(broker, stream).await.first(), Some(&1));
    broker.move_reader(stream, READER, Position::Sequence(14)).await.unwrap();
    assert_eq!(fetch_all(broker, stream).await, [14, 15]);
    let since = broker.message(stream, 15).await.unwrap().unwrap().time;
    broker.move_reader(stream, READER, Position::Time(since)).await.unwrap();
    assert_eq!(fetch_all(broker, stream).await, [15]);
    broker.move_reader(stream, READER, Position::Newest).await.unwrap();
    assert_eq!(fetch_all(broker, stream).await, [0_u64; 0]);

    assert!(broker.delete_reader(stream, READER).await.unwrap());
    assert!(!broker.delete_reader(stream, READER).await.unwrap());
    assert_eq!(broker.reader(stream, READER).await.unwrap(), None);
    let error = broker.fetch(stream, READER, 10, None).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Missing::Reader)), "{error}");
}

#[tokio::test]
async fn a_fetch_waits_for_the_first_message_and_no_longer_than_told() {
    let org = TestNats::shared().organization().await;
    let (me, broker) = (Uuid::new_v4(), &org.broker);
    let pipe = open_pipe(&org, me, "mine", "inbox").await;
    broker.ensure_reader(&pipe.stream, READER, Position::Oldest).await.unwrap();
    let started = std::time::Instant::now();
    let none = broker.fetch(&pipe.stream, READER, 10, Some(Duration::from_millis(200))).await.unwrap();
    assert!(none.is_empty() && started.elapsed() >= Duration::from_millis(200));
    let (fetched, sent) = tokio::join!(
        broker.fetch(&pipe.stream, READER, 10, Some(Duration::from_secs(30))),
        broker.publish(message(&pipe, me, "1", "x"))
    );
    sent.unwrap();
    assert_eq!(fetched.unwrap().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_stream_is_read_from_any_place_without_moving_a_reader() {
    let org = TestNats::shared().organization().await;
    let (me, broker) = (Uuid::new_v4(), &org.broker);
    let pipe = open_pipe(&org, me, "mine", "inbox").await;
    let stream = &pipe.stream;
    assert!(broker.read(stream, Position::Oldest, 10).await.unwrap().is_empty());
    assert_eq!(broker.last(stream).await.unwrap(), None);
    for number in 1..=25 {
        broker.publish(message(&pipe, me, &number.to_string(), "x")).await.unwrap();
    }
    let read = async |from, limit| {
        let found = broker.read(stream, from, limit).await.unwrap();
        found.iter().map(|stored| stored.sequence).collect::<Vec<_>>()
    };
    assert_eq!(read(Position::Oldest, 10).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(read(Position::Sequence(21), 10).await, (21..=25).collect::<Vec<_>>());
    assert_eq!(read(Position::Sequence(26), 10).await, [0_u64; 0]);
    let since = broker.message(stream, 24).await.unwrap().unwrap().time;
    assert_eq!(read(Position::Time(since), 10).await, [24, 25]);
    assert_eq!(broker.message(stream, 99).await.unwrap(), None);

    // dropped: what comes next has the next number, and a place that is gone means the next there is
    broker.ensure_stream(&spec(&pipe, Retention { messages: 1, ..RETENTION })).await.unwrap();
    broker.publish(message(&pipe, me, "26", "x")).await.unwrap();
    assert_eq!(read(Position::Sequence(3), 10).await, [26]);
    let state = broker.stream(stream).await.unwrap().unwrap();
    assert_eq!((state.first, state.last, state.messages), (26, 26, 1));
    let nowhere = StreamName::parse("nowhere").unwrap();
    let error = broker.read(&nowhere, Position::Oldest, 10).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(Missing::Stream)), "{error}");
    assert!(matches!(broker.last(&nowhere).await.unwrap_err(), Error::NotFound(Missing::Stream)));
}

#[tokio::test]
async fn a_stream_made_again_is_another_incarnation() {
    let org = TestNats::shared().organization().await;
    let (me, broker) = (Uuid::new_v4(), &org.broker);
    let pipe = open_pipe(&org, me, "mine", "inbox").await;
    broker.publish(message(&pipe, me, "1", "old")).await.unwrap();
    let before = broker.stream(&pipe.stream).await.unwrap().unwrap();
    broker.delete_stream(&pipe.stream).await.unwrap();
    let after = broker.ensure_stream(&spec(&pipe, RETENTION)).await.unwrap();
    assert_ne!(after.created, before.created);
    assert_eq!((after.messages, after.last), (0, 0));
}

#[tokio::test]
async fn more_requests_than_may_wait_are_refused_and_not_queued() {
    let nats = TestNats::shared();
    let org = nats.organization().await;
    let me = Uuid::new_v4();
    let pipe = open_pipe(&org, me, "mine", "inbox").await;
    let options = tidegate_broker::Options { in_flight: 1, ..nats.options() };
    let clock = std::sync::Arc::new(tidegate_model::SystemClock::new());
    let broker = OrgBroker::connect(&options, org.account.clone(), clock).await.unwrap();
    let (first, second) = tokio::join!(
        broker.publish(message(&pipe, me, "1", "x")),
        broker.publish(message(&pipe, me, "2", "x"))
    );
    assert!(first.is_ok());
    assert!(matches!(second.unwrap_err(), Error::Busy { limit: 1 }));
}

#[tokio::test]
async fn whoever_watches_is_told_after_a_message_is_stored_and_all_share_one_consumer() {
    let org = TestNats::shared().organization().await;
    let (me, broker) = (Uuid::new_v4(), &org.broker);
    let pipe = open_pipe(&org, me, "mine", "stdout").await;
    let mut watches = [broker.watch(&pipe.stream), broker.watch(&pipe.stream)];
    for watch in &mut watches {
        watch.ready(tidegate_test_support::DEADLINE).await;
        assert!(watch.is_listening());
    }
    assert_eq!((broker.watched(), broker.readers(&pipe.stream).await.unwrap().len()), (1, 1));
    for number in 1..=20 {
        broker.publish(message(&pipe, me, &number.to_string(), "x")).await.unwrap();
        for watch in &mut watches {
            let told = tokio::time::timeout(tidegate_test_support::DEADLINE, watch.news());
            told.await.expect("a message is told of");
            let found = broker.read(&pipe.stream, Position::Sequence(number), 1).await.unwrap();
            assert_eq!(found.len(), 1, "message {number} is there when it is told of");
        }
    }
    drop(watches);
    let over = async || broker.watched() == 0;
    tidegate_test_support::eventually("nothing is watched when nobody watches", over).await;
    let gone = async || broker.readers(&pipe.stream).await.unwrap().is_empty();
    tidegate_test_support::eventually("and NATS forgets it", gone).await;
}
