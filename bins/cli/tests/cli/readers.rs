//! What one reads, who is there, and who has read a message.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, run};

const ADA: &str = "01970000-0000-7000-8000-000000000003";
const THEN: &str = "2026-01-01T00:00:00Z";

fn source() -> Value {
    json!({"id": "01970000-0000-7000-8000-0000000000cc", "orgId": "01970000-0000-7000-8000-000000000002",
           "createdBy": ADA, "createdByUsername": "ada", "handle": "build", "kind": "pty", "createdAt": THEN,
           "lastMessageAt": null, "lastMessage": null})
}

fn grant(who: &str, right: &str) -> Value {
    let user = (who != "everyone").then_some(who);
    json!({"id": "01970000-0000-7000-8000-0000000000dd", "sourceId": "01970000-0000-7000-8000-0000000000cc",
           "userId": user.map(|_| ADA), "user": user, "groupId": null, "group": null, "everyone": user.is_none(),
           "right": right, "grantedBy": ADA, "createdAt": THEN})
}

#[tokio::test]
async fn what_waits_in_the_pipes_that_one_reads_is_one_table() {
    let server = Fake::start(|request: &Request| {
        let row = |handle: &str, unread: Value, last: Value| {
            json!({"sourceId": "01970000-0000-7000-8000-0000000000cc", "handle": handle, "kind": "message", "owner": null,
                   "pipe": "inbox", "sequence": 4, "at": THEN, "unread": unread, "last": last})
        };
        let last = json!({"sequence": 7, "sender": ADA, "storedAt": THEN, "text": "over\u{1b}[2J"});
        match request.line.as_str() {
            "GET /api/v1/pipes/subscriptions?limit=100" => {
                Reply::ok(&json!({"subscriptions": [row("build", json!(3), last)], "total": 2, "nextCursor": "more"}))
            }
            _ => Reply::ok(&json!({"subscriptions": [row("quiet", Value::Null, Value::Null)], "total": 2, "nextCursor": null})),
        }
    })
    .await;
    let (out, err, code) = run(&server, &["subs"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert!(code == 0 && lines.len() == 3 && lines[0].starts_with("PIPE"), "{out}{err}");
    assert!(lines[1].contains("build/inbox") && lines[1].contains("over\u{fffd}[2J"), "{out}");
    assert!(lines[2].contains("quiet/inbox") && lines[2].contains('?'), "{out}");
    let (out, _, _) = run(&server, &["subs", "--json"]).await;
    let read: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(read["subscriptions"][1]["handle"], "quiet");
}

#[tokio::test]
async fn who_uses_pipes_and_who_may_use_a_source_are_two_tables() {
    let server = Fake::start(|request: &Request| match request.line.as_str() {
        "GET /api/v1/pipes/members?limit=100" => Reply::ok(&json!({"members": [
            {"userId": ADA, "username": "ada", "seenAt": THEN, "connectedUntil": null, "pipes": 2}], "total": 1, "nextCursor": null})),
        "GET /api/v1/sources/build" => Reply::ok(&source()),
        "GET /api/v1/sources/build/grants" => Reply::ok(&json!({"grants":
            [grant("everyone", "read"), grant("bob", "read"), grant("bob", "type")], "total": 3})),
        _ => Reply::refusal("403 Forbidden", "E_FORBIDDEN"),
    })
    .await;
    let (out, err, code) = run(&server, &["who"]).await;
    assert!(code == 0 && out.lines().nth(1).unwrap().starts_with("ada"), "{out}{err}");
    let (out, err, code) = run(&server, &["who", "build"]).await;
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(code, 0, "{err}");
    assert_eq!(rows[1][..4], ["ada", "yes", "yes", "yes"]);
    assert_eq!(rows[2][..4], ["bob", "yes", "-", "yes"]);
    assert_eq!(rows[3][..4], ["everyone", "yes", "-", "-"]);
    let (_, err, code) = run(&server, &["who", "other"]).await;
    assert!(code == 1 && err.contains("refused"), "{err}");
}

#[tokio::test]
async fn receipts_tell_scripts_whether_somebody_has_read() {
    let mut asked = 0;
    let server = Fake::start(move |request: &Request| {
        let message = json!({"id": "01970000-0000-7000-8000-0000000000aa", "sender": ADA, "subject": "s", "payload": "x",
            "created_at": THEN, "in_reply_to": null, "ack_requested": true, "sequence": 9});
        let found = |receipts: Value| {
            Reply::ok(&json!({"id": "01970000-0000-7000-8000-0000000000aa", "sequence": 9, "receipts": receipts}))
        };
        match request.line.as_str() {
            line if line.starts_with("POST ") => Reply::Answer("201 Created", &[], message.to_string()),
            "GET /api/v1/sources/build/pipes/inbox/messages/9/receipts" => {
                asked += 1;
                let read = json!([{"userId": ADA, "username": "ada", "readBy": null}]);
                found(if asked < 3 { json!([]) } else { read })
            }
            _ => Reply::refusal("404 Not Found", "E_NOT_FOUND"),
        }
    })
    .await;
    let (out, err, code) = run(&server, &["receipts", "build", "9"]).await;
    assert!(code == 6 && out.contains("nobody has read message 9"), "{out}{err}");
    let (out, err, code) = run(&server, &["send", "build", "x", "--ack", "--wait-read", "20"]).await;
    assert!(code == 0 && out.contains("is stored") && err.contains("read by ada"), "{out}{err}");
    let (out, err, code) = run(&server, &["receipts", "build", "9"]).await;
    assert!(code == 0 && out.contains("ada") && out.contains("over NATS"), "{out}{err}");
    let (_, _, code) = run(&server, &["receipts", "build", "10"]).await;
    assert_eq!(code, 3);
    let (_, err, code) = run(&server, &["send", "build", "x", "--wait-read", "1"]).await;
    assert!(code == 2 && err.contains("--ack"), "{err}");
}
