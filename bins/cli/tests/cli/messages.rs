//! `send` and `read` from the command line: what a script learns from their exit codes.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{Fake, Reply, Request, run};

const MESSAGES: &str = "/api/v1/sources/build/pipes/inbox/messages";
const PLACE: &str = "/api/v1/sources/build/pipes/inbox/place";

fn message(sequence: u64, payload: &Value) -> Value {
    json!({"id": format!("01970000-0000-7000-8000-00000000000{sequence}"), "sender": "01970000-0000-7000-8000-000000000003",
           "subject": "a.b.build.inbox.c", "payload": payload, "created_at": "2026-01-01T00:00:00Z", "in_reply_to": null,
           "ack_requested": false, "sequence": sequence, "stored_at": "2026-01-01T00:00:01Z"})
}

/// One whose sender is known by name.
fn named(sequence: u64, payload: &Value) -> Value {
    let mut message = message(sequence, payload);
    message["sender_name"] = json!("ada");
    message
}

fn page(messages: &[Value], unread: Option<u64>, incarnation: &str) -> Reply {
    let last = messages.last().map(|message| message["sequence"].clone());
    Reply::ok(
        &json!({"messages": messages, "last": last, "unread": unread, "skipped": 0, "incarnation": incarnation}),
    )
}

const THEN: &str = "2026-01-01T00:00:00Z";

/// A server that refuses every message so.
async fn refusing(status: &'static str, code: &'static str) -> Fake {
    Fake::start(move |_: &Request| Reply::refusal(status, code)).await
}

#[tokio::test]
async fn a_message_is_sent_until_it_is_acknowledged_and_always_under_one_key() {
    let mut tries = 0;
    let server = Fake::start(move |_: &Request| {
        tries += 1;
        match tries {
            1 => Reply::HangUp,
            2 => Reply::refusal("503 Service Unavailable", "E_NOT_READY"),
            _ => Reply::Answer("201 Created", &[], message(7, &json!("hi")).to_string()),
        }
    })
    .await;
    let (out, err, code) = run(&server, &["send", "build", "hi", "--ack"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("is stored in build/inbox at 7"), "{out}");
    let seen = server.seen();
    assert_eq!((seen.len(), &seen[0].line), (3, &format!("POST {MESSAGES}")));
    let keys: Vec<&str> = seen.iter().map(|request| request.header("idempotency-key")).collect();
    assert!(!keys[0].is_empty() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let body: Value = serde_json::from_str(&seen[0].body).unwrap();
    assert_eq!(body, json!({"payload": "hi", "ack_requested": true}));
}

#[tokio::test]
async fn a_script_learns_from_the_exit_code_what_to_do() {
    for (status, word, code, why) in [
        ("404 Not Found", "E_NOT_FOUND", 3, "refused"),
        ("403 Forbidden", "E_FORBIDDEN", 3, "refused"),
        ("503 Service Unavailable", "E_PIPES_UNAVAILABLE", 4, "--key nightly-17"),
        ("507 Insufficient Storage", "E_STORAGE_FULL", 5, "refused"),
        ("413 Payload Too Large", "E_TOO_LARGE", 5, "refused"),
        ("409 Conflict", "E_IDEMPOTENCY_MISMATCH", 1, "refused"),
    ] {
        let server = refusing(status, word).await;
        let words = ["send", "build", "hi", "--key", "nightly-17", "--timeout", "0"];
        let (out, err, seen) = run(&server, &words).await;
        assert!((seen, out.as_str()) == (code, "") && err.contains(why), "{status}: {seen} {err}");
        if code != 1 {
            let (_, err, seen) = run(&server, &["read", "build", "--json"]).await;
            let said: Value = serde_json::from_str(&err).unwrap();
            assert_eq!((seen, &said["error"]["code"]), (code, &json!(word)), "{err}");
        }
    }
    let server = refusing("500 Internal Server Error", "E_INTERNAL").await;
    for words in [["send", "Build", "hi"].as_slice(), &["send", "build/"], &["read", "build", "--after", "x"]]
    {
        assert_eq!(run(&server, words).await.2, 2, "{words:?}");
    }
    let large = "x".repeat((64 << 10) + 1);
    let (_, err, code) = run(&server, &["send", "build", &large]).await;
    assert!(code == 5 && err.contains("64 KiB"), "{err}");
    assert!(server.lines().is_empty(), "{:?}", server.lines());
}

#[tokio::test]
async fn what_comes_from_standard_input_is_sent_as_it_is() {
    let server = Fake::start(|_: &Request| {
        Reply::Answer("201 Created", &[], message(1, &json!({"base64": "AP8="})).to_string())
    })
    .await;
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["send", "build/results", "--json"])
        .env("TIDEGATE_URL", server.url.as_str())
        .env("TIDEGATE_TOKEN", "first")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(&[0, 255]).await.unwrap();
    let ended = program.wait_with_output().await.unwrap();
    let said: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.status.code(), &said["sequence"]), (Some(0), &json!(1)));
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /api/v1/sources/build/pipes/results/messages");
    assert_eq!(serde_json::from_str::<Value>(&seen[0].body).unwrap(), json!({"payload": {"base64": "AP8="}}));
}

#[tokio::test]
async fn messages_are_read_once_or_again_and_none_is_a_code_of_its_own() {
    let server = Fake::start(|request: &Request| match request.line.split_once('?').map(|line| line.1) {
        Some("confirmed=0&limit=10") => {
            page(&[named(1, &json!("one\n")), message(2, &json!("\u{1b}[2Jtwo"))], Some(5), THEN)
        }
        Some("after=2&limit=1") => page(&[message(3, &json!("three"))], None, THEN),
        None => Reply::ok(&json!({"sequence": 2, "incarnation": THEN, "unread": 3})),
        _ => page(&[], Some(0), THEN),
    })
    .await;
    let (out, err, code) = run(&server, &["read", "build"]).await;
    assert!(code == 0 && err.contains("3 more to read"), "{err}");
    assert!(out.contains("one\n2  ") && out.contains("\u{fffd}[2Jtwo") && !out.contains('\u{1b}'), "{out}");
    assert!(out.contains("  ada\n") && out.contains("  01970000-0000-7000-8000-000000000003\n"), "{out}");
    // The place moves once they are written.
    let confirmed: Vec<Request> =
        server.seen().into_iter().filter(|request| request.line == format!("PUT {PLACE}")).collect();
    assert_eq!(confirmed.len(), 1, "{:?}", server.lines());
    assert_eq!(
        serde_json::from_str::<Value>(&confirmed[0].body).unwrap(),
        json!({"confirmed": 2, "incarnation": THEN})
    );
    let (out, _, _) = run(&server, &["read", "build", "--json"]).await;
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["payload"]), (2, &json!("\u{1b}[2Jtwo")));
    let (out, err, code) = run(&server, &["read", "build", "--after", "2", "--limit", "1"]).await;
    assert!(code == 0 && out.contains("three"), "{out}{err}");
    let (out, err, code) = run(&server, &["read", "build", "--limit", "5"]).await;
    assert!((code, out.as_str()) == (6, "") && err.contains("no message is there"), "{out}{err}");
}

#[tokio::test]
async fn things_that_are_no_messages_hide_none_behind_them() {
    let server = Fake::start(|request: &Request| {
        if request.line.contains("after=2") {
            return page(&[message(3, &json!("here"))], None, THEN);
        }
        let passed_over =
            json!({"messages": [], "last": 2, "unread": null, "skipped": 2, "incarnation": THEN});
        Reply::ok(&passed_over)
    })
    .await;
    let (out, err, code) = run(&server, &["read", "build", "--after", "0", "--limit", "2"]).await;
    assert!(code == 0 && out.contains("here"), "{out}{err}");
}

#[tokio::test]
async fn a_follower_goes_on_where_it_was_and_begins_anew_where_the_pipe_did() {
    let mut asked = 0;
    let server = Fake::start(move |request: &Request| {
        asked += 1;
        let query = request.line.split_once('?').unwrap().1;
        match (asked, query) {
            (1, "after=4&limit=10&wait=20") => page(&[message(5, &json!("five"))], None, THEN),
            (2, "after=5&limit=10&wait=20") => Reply::HangUp,
            (_, "after=5&limit=10&wait=20") => {
                page(&[message(9, &json!("nine"))], None, "2026-02-02T00:00:00Z")
            }
            (_, "after=0&limit=10&wait=20") => {
                page(&[message(1, &json!("again"))], None, "2026-02-02T00:00:00Z")
            }
            _ => Reply::refusal("403 Forbidden", "E_FORBIDDEN"),
        }
    })
    .await;
    let (out, err, code) = run(&server, &["read", "build", "--after", "4", "--follow"]).await;
    assert_eq!(code, 3, "the right to read was taken away: {err}");
    let texts: Vec<&str> = out.lines().filter(|line| !line.contains("UTC")).collect();
    assert_eq!(texts, ["five", "again"], "{err}");
    assert!(err.contains("made anew"), "{err}");
}

#[tokio::test]
async fn a_follower_confirms_what_it_has_written_and_asks_again_for_what_was_lost() {
    let mut asked = 0;
    let server = Fake::start(move |request: &Request| {
        asked += 1;
        let query = request.line.split_once('?').unwrap().1;
        match (asked, query) {
            (1, "confirmed=0&limit=10&wait=20") => {
                page(&[message(1, &json!("one")), message(2, &json!("two"))], Some(2), THEN)
            }
            (2, "confirmed=2&incarnation=2026-01-01T00%3A00%3A00Z&limit=10&wait=20") => Reply::HangUp,
            // What it has comes once more, from a platform that was killed before it wrote the place down.
            (3, "confirmed=2&incarnation=2026-01-01T00%3A00%3A00Z&limit=10&wait=20") => {
                page(&[message(2, &json!("two")), message(3, &json!("three"))], Some(2), THEN)
            }
            (4, "confirmed=3&incarnation=2026-01-01T00%3A00%3A00Z&limit=10&wait=20") => {
                page(&[message(1, &json!("anew"))], Some(1), "2026-02-02T00:00:00Z")
            }
            _ => Reply::refusal("403 Forbidden", "E_FORBIDDEN"),
        }
    })
    .await;
    let (out, err, code) = run(&server, &["read", "build", "--follow"]).await;
    assert_eq!(code, 3, "the right to read was taken away: {err}");
    let texts: Vec<&str> = out.lines().filter(|line| !line.contains("UTC")).collect();
    assert_eq!(texts, ["one", "two", "three", "anew"], "{err}");
    assert!(err.contains("the pipe is another one than before"), "{err}");
}

#[tokio::test]
async fn messages_that_were_written_and_cannot_be_confirmed_are_said_to_come_again() {
    for (status, word, wanted) in
        [("403 Forbidden", "E_FORBIDDEN", 3), ("503 Service Unavailable", "E_PIPES_UNAVAILABLE", 4)]
    {
        let server = Fake::start(move |request: &Request| {
            if request.line.starts_with("PUT") {
                Reply::refusal(status, word)
            } else {
                page(&[message(1, &json!("one"))], Some(1), THEN)
            }
        })
        .await;
        let (out, err, code) = run(&server, &["read", "build"]).await;
        assert!(code == wanted && out.contains("one") && err.contains("do not count as read"), "{err}");
    }
}

/// Runs the program with this standard input: standard output, standard error, exit code.
async fn run_with(server: &Fake, words: &[&str], input: &[u8]) -> (String, String, i32) {
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(words)
        .env("TIDEGATE_URL", server.url.as_str())
        .env("TIDEGATE_TOKEN", "first")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = program.stdin.take().unwrap();
    // A program that ends early reads no more of it.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let ended = program.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(ended.stdout), text(ended.stderr), ended.status.code().unwrap())
}

#[tokio::test]
async fn each_line_is_a_message_of_its_own_in_order_and_under_a_key_of_its_own() {
    let mut sequence = 0;
    let server = Fake::start(move |request: &Request| {
        sequence += 1;
        let body: Value = serde_json::from_str(&request.body).unwrap();
        Reply::Answer("201 Created", &[], message(sequence, &body["payload"]).to_string())
    })
    .await;
    let words = ["send", "build", "--lines", "--key", "nightly"];
    let (out, err, code) = run_with(&server, &words, b"one\n\ntwo \xff\nlast").await;
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("4 lines are stored in build/inbox, the last at 4"), "{err}");
    let seen = server.seen();
    let sent = |request: &Request| serde_json::from_str::<Value>(&request.body).unwrap()["payload"].clone();
    let payloads: Vec<Value> = seen.iter().map(sent).collect();
    assert_eq!(payloads, [json!("one"), json!(""), json!({"base64": "dHdvIP8="}), json!("last")]);
    let keys: Vec<&str> = seen.iter().map(|request| request.header("idempotency-key")).collect();
    assert_eq!(keys, ["nightly.1", "nightly.2", "nightly.3", "nightly.4"]);

    let (out, _, code) = run_with(&server, &["send", "build", "--lines", "--json"], b"a\nb\n").await;
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, lines.len(), &lines[1]["payload"]), (0, 2, &json!("b")));
    let (_, err, code) = run_with(&server, &words, b"").await;
    assert!(code == 0 && err.contains("there were no lines"), "{err}");
}

#[tokio::test]
async fn lines_that_are_not_sent_are_told_with_what_to_do() {
    let mut tries = 0;
    let server = Fake::start(move |_: &Request| {
        tries += 1;
        match tries {
            1 => Reply::Answer("201 Created", &[], message(1, &json!("one")).to_string()),
            _ => Reply::refusal("503 Service Unavailable", "E_PIPES_UNAVAILABLE"),
        }
    })
    .await;
    let words = ["send", "build", "--lines", "--key", "nightly", "--timeout", "0"];
    let (_, err, code) = run_with(&server, &words, b"one\ntwo\nthree\n").await;
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("the first 1 lines are stored") && err.contains("--key nightly"), "{err}");
    let long = "x".repeat((64 << 10) + 1);
    let (_, err, code) = run_with(&server, &words, long.as_bytes()).await;
    assert!(code == 5 && err.contains("line 1 is too long"), "{err}");
    for words in [
        ["send", "build", "text", "--lines"].as_slice(),
        &["send", "build", "--over", "pigeon"],
        &["read", "build", "--over", "nats", "--after", "0"],
        // What no clock can add is no number of seconds, and no panic.
        &["send", "build", "hi", "--timeout", "18446744073709551615"],
        &["send", "build", "hi", "--ack", "--wait-read", "18446744073709551615"],
        &["read", "build", "--wait", "18446744073709551615"],
    ] {
        assert_eq!(run(&server, words).await.2, 2, "{words:?}");
    }
}

#[tokio::test]
async fn over_nats_a_script_hears_the_control_planes_refusal_with_its_code() {
    let server = refusing("403 Forbidden", "E_FORBIDDEN").await;
    for words in [["send", "build", "hi", "--over", "nats"].as_slice(), &["read", "build", "--over", "nats"]]
    {
        let (out, err, code) = run(&server, words).await;
        assert_eq!((out.as_str(), code), ("", 3), "{err}");
        assert_eq!(err, "tidegate: refused\n");
    }
    assert_eq!(server.lines(), ["POST /api/v1/auth/exchange", "POST /api/v1/auth/exchange"]);
    let server = refusing("503 Service Unavailable", "E_PIPES_UNAVAILABLE").await;
    let (_, err, code) = run(&server, &["send", "build", "hi", "--over", "nats", "--timeout", "1"]).await;
    assert_eq!(code, 4, "{err}");
}
