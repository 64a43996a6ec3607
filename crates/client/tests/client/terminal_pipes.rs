//! Bytes into a pipe, in order and once; a pipe that is followed over lost connections.

use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tidegate_client::{Followed, LostAnswer, PipeFlow, PipeFrom, PipeWriting, WriterClosed};
use tidegate_model::{Handle, Payload};

use crate::fake::{Fake, Reply, Request};

const THEN: &str = "2026-01-01T00:00:00Z";

fn build() -> Handle {
    "build".parse().unwrap()
}

fn message(sequence: u64, payload: &Value) -> Value {
    json!({
        "id": "01970000-0000-7000-8000-0000000000aa", "sender": "01970000-0000-7000-8000-000000000003",
        "subject": "s", "payload": payload, "created_at": THEN, "in_reply_to": null, "ack_requested": false,
        "sequence": sequence, "stored_at": THEN,
    })
}

fn page(sequences: &[u64], incarnation: &str) -> Reply {
    let messages: Vec<Value> =
        sequences.iter().map(|sequence| message(*sequence, &json!(format!("m{sequence}")))).collect();
    Reply::ok(&json!({
        "messages": messages, "last": sequences.last(), "unread": null, "skipped": 0, "incarnation": incarnation,
    }))
}

fn payload(request: &Request) -> Payload {
    let body: Value = serde_json::from_str(&request.body).unwrap();
    serde_json::from_value(body["payload"].clone()).unwrap()
}

/// Stores what is sent, numbered.
fn stored(sequence: &mut u64, request: &Request) -> Reply {
    *sequence += 1;
    let body: Value = serde_json::from_str(&request.body).unwrap();
    Reply::Answer("201 Created", &[], message(*sequence, &body["payload"]).to_string())
}

#[tokio::test]
async fn what_was_sent_again_has_its_key_and_nothing_overtakes_it() {
    let (mut sequence, mut asked) = (0, 0);
    let server = Fake::start(move |request: &Request| {
        asked += 1;
        match asked {
            1 => Reply::HangUp,
            2 => Reply::refusal("503 Service Unavailable", "E_BROKER_UNAVAILABLE"),
            _ => stored(&mut sequence, request),
        }
    })
    .await;
    let options = PipeWriting { batch: Duration::ZERO, largest: 4, ..PipeWriting::default() };
    let (writer, carrier) = server.client().write_pipe(&build(), "stdout", options);
    writer.bytes(b"\xc3").await.unwrap();
    writer.bytes(b"\xa9\x00\xff123").await.unwrap();
    writer.text("end").await.unwrap();
    writer.bytes(b"x").await.unwrap();
    let flow = writer.flow();
    drop(writer);
    carrier.run().await.unwrap();
    assert_eq!(*flow.borrow(), PipeFlow::Flowing);
    let seen = server.seen();
    let payloads: Vec<Payload> = seen.iter().map(payload).collect();
    let first = Payload::Bytes(b"\xc3\xa9\x00\xff".to_vec());
    let rest = [Payload::Bytes(b"123".to_vec()), Payload::Text("end".into()), Payload::Bytes(b"x".to_vec())];
    assert_eq!(payloads, [vec![first; 3], rest.to_vec()].concat());
    let keys: Vec<&str> = seen.iter().map(|request| request.header("idempotency-key")).collect();
    assert!(keys[0] == keys[1] && keys[1] == keys[2] && !keys[0].is_empty(), "{keys:?}");
    assert!(keys[2] != keys[3] && keys[3] != keys[4] && keys[4] != keys[5], "{keys:?}");
}

#[tokio::test]
async fn whoever_writes_more_than_may_wait_waits() {
    let mut sequence = 0;
    let server = Fake::start(move |request: &Request| stored(&mut sequence, request)).await;
    let options = PipeWriting { waiting: 4, ..PipeWriting::default() };
    let (writer, carrier) = server.client().write_pipe(&build(), "stdout", options);
    assert_eq!(writer.bytes(b"1234").now_or_never(), Some(Ok(())));
    assert_eq!(writer.bytes(b"5").now_or_never(), None, "there is no room");
    let carrying = tokio::spawn(carrier.run());
    writer.bytes(b"56789").await.unwrap();
    drop(writer);
    carrying.await.unwrap().unwrap();
    let sent: Vec<u8> =
        server.seen().iter().flat_map(|request| payload(request).as_bytes().to_vec()).collect();
    assert_eq!(sent, b"123456789");
}

#[tokio::test]
async fn a_refusal_ends_it_and_those_who_wait_hear_of_it() {
    let server = Fake::start(|_: &Request| Reply::refusal("403 Forbidden", "E_FORBIDDEN")).await;
    let options = PipeWriting { waiting: 1, ..PipeWriting::default() };
    let (writer, carrier) = server.client().write_pipe(&build(), "stdin", options);
    let carrying = tokio::spawn(carrier.run());
    assert_eq!(writer.bytes(b"ls\r").await, Err(WriterClosed));
    let error = carrying.await.unwrap().unwrap_err();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(403));
    assert_eq!(writer.text("x").await, Err(WriterClosed));
}

#[tokio::test]
async fn a_message_in_doubt_is_looked_for_once_its_key_is_too_old() {
    let (mut sequence, mut asked) = (8, 0);
    let server = Fake::start(move |request: &Request| {
        asked += 1;
        match asked {
            // Stored, and the answer is lost; later not stored.
            2 | 4 => Reply::HangUp,
            3 => {
                assert!(request.line.contains("?after=9&limit=100"), "{}", request.line);
                let messages = [message(10, &json!({"base64": "dHdv"}))];
                Reply::ok(&json!({"messages": messages, "last": 10, "unread": null, "skipped": 0, "incarnation": THEN}))
            }
            // It is sent again, as another message.
            5 => {
                assert!(request.line.contains("?after=10&limit=100"), "{}", request.line);
                page(&[], THEN)
            }
            _ => stored(&mut sequence, request),
        }
    })
    .await;
    let options = PipeWriting {
        batch: Duration::ZERO,
        largest: 3,
        key_lasts: Duration::ZERO,
        lost_answer: LostAnswer::Look { after: 8 },
        ..PipeWriting::default()
    };
    let (writer, carrier) = server.client().write_pipe(&build(), "stdout", options);
    writer.bytes(b"onetwotre").await.unwrap();
    drop(writer);
    carrier.run().await.unwrap();
    let seen = server.seen();
    let sent: Vec<&Request> = seen.iter().filter(|request| request.line.starts_with("POST")).collect();
    let texts: Vec<Payload> = sent.iter().map(|request| payload(request)).collect();
    let bytes = |text: &[u8]| Payload::Bytes(text.to_vec());
    assert_eq!(texts, [bytes(b"one"), bytes(b"two"), bytes(b"tre"), bytes(b"tre")]);
    let keys: Vec<&str> = sent.iter().map(|request| request.header("idempotency-key")).collect();
    assert_ne!(keys[2], keys[3]);
}

#[tokio::test]
async fn a_keystroke_in_doubt_is_given_up_once_its_key_is_too_old() {
    let server = Fake::start(|_: &Request| Reply::HangUp).await;
    let options = PipeWriting { key_lasts: Duration::ZERO, ..PipeWriting::default() };
    let (writer, carrier) = server.client().write_pipe(&build(), "stdin", options);
    writer.bytes(b"x").await.unwrap();
    drop(writer);
    assert!(carrier.run().await.unwrap_err().is_passing());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_follower_gives_every_message_once_over_lost_connections() {
    let mut asked = 0;
    let server = Fake::start(move |request: &Request| {
        asked += 1;
        let query = request.line.split_once('?').unwrap().1;
        match (asked, query) {
            (1, "after=3&limit=100") => page(&[4, 5], THEN),
            (2, "after=5&limit=100") => page(&[], THEN),
            // Longer than a call is repeated by itself.
            (3..=9, "after=5&limit=100&wait=20") => Reply::HangUp,
            (10, "after=5&limit=100&wait=20") => page(&[9], THEN),
            (11, "after=9&limit=100&wait=20") => page(&[12], "2026-02-02T00:00:00Z"),
            (12, "after=0&limit=100&wait=20") => page(&[1], "2026-02-02T00:00:00Z"),
            (13, "after=1&limit=100&wait=20") => Reply::refusal("403 Forbidden", "E_FORBIDDEN"),
            _ => Reply::refusal("400 Bad Request", query),
        }
    })
    .await;
    let mut follower = server.client().follow_pipe(&build(), "stdout", PipeFrom::After(3));
    let mut heard = Vec::new();
    let error = loop {
        heard.push(match follower.next().await {
            Ok(Followed::Message(message)) => message.sequence.to_string(),
            Ok(Followed::Away(_)) => "away".to_owned(),
            Ok(other) => format!("{other:?}"),
            Err(error) => break error,
        });
    };
    assert_eq!(heard, ["4", "5", "CaughtUp", "away", "Back", "Missed(3)", "9", "Anew", "1"]);
    assert_eq!(error.status().map(|status| status.as_u16()), Some(403), "{error}");
}

#[tokio::test]
async fn from_now_on_is_behind_the_end_of_the_stream_that_it_was_asked_of() {
    let later = "2026-02-02T00:00:00Z";
    let mut asked = 0;
    let server = Fake::start(move |request: &Request| {
        asked += 1;
        match (asked, request.line.as_str()) {
            (1, "GET /api/v1/sources/build/pipes/stdout/end") => {
                Reply::ok(&json!({"last": 6, "incarnation": THEN}))
            }
            (2, line) if line.contains("?after=6&") => page(&[7], THEN),
            (3, line) if line.contains("?after=7&") => page(&[], later),
            (4, line) if line.contains("?after=0&") => page(&[1], later),
            (_, line) => Reply::refusal("400 Bad Request", line),
        }
    })
    .await;
    let mut follower = server.client().follow_pipe(&build(), "stdout", PipeFrom::Now);
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(match follower.next().await.unwrap() {
            Followed::Message(message) => message.sequence.to_string(),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(heard, ["7", "Anew", "1"]);
}

#[tokio::test]
async fn a_pipe_that_was_made_anew_between_its_end_and_the_first_look_is_given_whole() {
    let later = "2026-02-02T00:00:00Z";
    let server = Fake::start(move |request: &Request| match request.line.as_str() {
        line if line.contains("/end") => Reply::ok(&json!({"last": 500, "incarnation": THEN})),
        line if line.contains("?after=500&") => page(&[], later),
        _ => page(&[1], later),
    })
    .await;
    let mut follower = server.client().follow_pipe(&build(), "stdout", PipeFrom::Now);
    assert_eq!(follower.next().await.unwrap(), Followed::Anew);
    let Followed::Message(message) = follower.next().await.unwrap() else { panic!("no message") };
    assert_eq!(message.sequence, 1);
}
