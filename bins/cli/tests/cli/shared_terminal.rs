//! A terminal that is shared over pipes, as its own screen goes away.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use tidegate_model::{Payload, TerminalControl};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

use crate::{Fake, Reply, Request, fake};

const ME: &str = "01970000-0000-7000-8000-000000000003";
const THEN: &str = "2026-01-01T00:00:00Z";

/// A source of one's own that takes whatever is sent, and that nobody may read.
async fn source() -> Fake {
    let mut sequence = 0;
    Fake::start(move |request: &Request| match request.line.as_str() {
        "GET /api/v1/users/me" => Reply::ok(&json!({"id": ME, "orgId": ME, "username": "ada", "email": null,
            "fullName": "Ada", "role": "user", "orgRole": "user", "provider": "local", "active": true,
            "createdAt": THEN, "updatedAt": THEN})),
        "GET /api/v1/sources/build" => {
            Reply::ok(&json!({"id": "01970000-0000-7000-8000-0000000000cc", "orgId": ME,
            "createdBy": ME, "createdByUsername": "ada", "handle": "build", "kind": "pty", "createdAt": THEN,
            "lastMessageAt": null, "lastPipe": null, "lastMessage": null}))
        }
        line if line.starts_with("POST") && line.ends_with("/messages") => {
            sequence += 1;
            let body: Value = serde_json::from_str(&request.body).unwrap();
            let stored = json!({"id": "01970000-0000-7000-8000-0000000000aa", "sender": ME, "subject": "s",
                "payload": body["payload"], "created_at": THEN, "sequence": sequence});
            Reply::Answer("201 Created", &[], stored.to_string())
        }
        _ => Reply::refusal("403 Forbidden", "E_FORBIDDEN"),
    })
    .await
}

/// What was stored of the program's output, and what was said at its end.
fn output(server: &Fake) -> (String, Option<TerminalControl>) {
    let (mut bytes, mut last) = (Vec::new(), None);
    let stdout = |request: &fake::Request| request.line.ends_with("/pipes/stdout/messages");
    for request in server.seen().into_iter().filter(stdout) {
        let body: Value = serde_json::from_str(&request.body).unwrap();
        match serde_json::from_value(body["payload"].clone()).unwrap() {
            Payload::Text(text) => last = TerminalControl::decode(&text),
            Payload::Bytes(more) => bytes.extend(more),
        }
    }
    (String::from_utf8(bytes).unwrap(), last)
}

#[tokio::test]
async fn a_screen_that_is_gone_ends_neither_the_program_nor_what_others_see() {
    let server = source().await;
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    let script =
        format!("echo first; until [ -e '{}' ]; do sleep 0.05; done; echo second; exit 3", gone.display());
    let mut share = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["share", "build", "--", "sh", "-c", &script])
        .env("TIDEGATE_URL", server.url.as_str())
        .env("TIDEGATE_TOKEN", "first")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut shown, words) = (share.stdout.take().unwrap(), share.stderr.take().unwrap());
    let mut first = [0; 7];
    shown.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first\r\n");
    drop((shown, words));
    std::fs::write(&gone, "").unwrap();
    let ended = timeout(Duration::from_mins(1), share.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(3), "the program's own");
    let (stored, last) = output(&server);
    assert_eq!(stored, "first\r\nsecond\r\n");
    assert_eq!(last, Some(TerminalControl::End { exit_code: Some(3) }));
}
