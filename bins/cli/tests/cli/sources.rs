//! Sources, pipes and grants from the command line.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, run};

const ID: &str = "01970000-0000-7000-8000-0000000000d1";
const ME: &str = "01970000-0000-7000-8000-000000000003";
const GRANT: &str = "01970000-0000-7000-8000-0000000000d4";
const OTHER: &str = "01970000-0000-7000-8000-0000000000d5";
const GROUP: &str = "01970000-0000-7000-8000-0000000000cc";

fn source(handle: &str) -> Value {
    json!({"id": ID, "orgId": "01970000-0000-7000-8000-0000000000aa", "createdBy": ME, "createdByUsername": "al\u{1b}ice",
           "handle": handle, "kind": "pty", "createdAt": "2026-01-01T00:00:00Z", "lastMessageAt": "2026-01-01T00:00:00Z",
           "lastMessage": "one\n\u{1b}[2Jtwo"})
}

fn retention(seconds: i64) -> Value {
    json!({"ttlSeconds": seconds, "maxMsgs": 5_000, "maxBytes": 16 << 20})
}

fn listed(name: &str, auto: bool, in_force: &Value) -> Value {
    json!({"name": name, "auto": auto, "id": null, "createdBy": ME, "createdByUsername": "alice", "retention": retention(3_600),
           "inForce": in_force, "createdAt": "2026-01-01T00:00:00Z"})
}

fn made(in_force: &Value) -> Value {
    json!({"id": ID, "sourceId": ID, "createdBy": ME, "name": "room", "ttlSeconds": 3_600, "maxMsgs": null, "maxBytes": null,
           "createdAt": "2026-01-01T00:00:00Z", "retention": retention(3_600), "inForce": in_force})
}

fn grant(id: &str, user: Option<&str>, group: Option<&str>, right: &str) -> Value {
    json!({"id": id, "sourceId": ID, "userId": user.map(|_| ME), "user": user, "groupId": group.map(|_| GROUP), "group": group,
           "everyone": user.is_none() && group.is_none(), "right": right, "grantedBy": ME, "createdAt": "2026-01-01T00:00:00Z"})
}

async fn server() -> Fake {
    Fake::start(|request: &Request| {
        let created = |body: Value| Reply::Answer("201 Created", &[], body.to_string());
        match request.line.as_str() {
            "GET /api/v1/sources?limit=100" => {
                Reply::ok(&json!({"sources": [source("build")], "total": 2, "nextCursor": "next"}))
            }
            "GET /api/v1/sources?limit=100&cursor=next" => {
                Reply::ok(&json!({"sources": [source("zebra")], "total": 2, "nextCursor": null}))
            }
            "POST /api/v1/sources" if request.body.contains("taken") => {
                Reply::refusal("409 Conflict", "E_SOURCE_TAKEN")
            }
            "POST /api/v1/sources" => created(source("build")),
            "GET /api/v1/sources/build" => Reply::ok(&source("build")),
            "GET /api/v1/sources/build/pipes" => Reply::ok(&json!({"total": 3, "pipes": [
                listed("inbox", true, &retention(3_600)), listed("hall", false, &Value::Null), listed("room", false, &retention(60)),
            ]})),
            "POST /api/v1/sources/build/pipes" => created(made(&Value::Null)),
            "PATCH /api/v1/sources/build/pipes/room" => Reply::ok(&made(&retention(60))),
            "GET /api/v1/sources/build/grants" => Reply::ok(&json!({"total": 2, "grants": [
                grant(GRANT, Some("ada"), None, "read"), grant(OTHER, None, None, "write"),
            ]})),
            "POST /api/v1/sources/build/grants" => created(grant(GRANT, Some("a\u{1b}da"), None, "read")),
            line if line.starts_with("DELETE ") => Reply::Answer("204 No Content", &[], String::new()),
            _ => Reply::refusal("404 Not Found", "E_NOT_FOUND"),
        }
    })
    .await
}

fn last_body(server: &Fake) -> Value {
    serde_json::from_str(&server.seen().last().unwrap().body).unwrap()
}

#[tokio::test]
async fn sources_are_listed_page_by_page_and_shown_with_their_pipes() {
    let server = server().await;
    let (out, err, code) = run(&server, &["source", "ls"]).await;
    assert!(code == 0 && out.starts_with("HANDLE") && err.contains("1 of 2; --all shows all"), "{out}{err}");
    assert!(out.contains("one \u{fffd}[2Jtwo") && !out.contains('\u{1b}') && !out.contains("zebra"), "{out}");
    let (out, err, _) = run(&server, &["source", "ls", "--all", "--json"]).await;
    let read: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&read["sources"][1]["handle"], &read["nextCursor"]),
        (&json!("zebra"), &Value::Null),
        "{err}"
    );
    let (out, err, code) = run(&server, &["source", "show", "build"]).await;
    assert!(code == 0 && out.contains("al\u{fffd}ice") && out.contains("IN FORCE"), "{out}{err}");
    let line = |name: &str| out.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("inbox").contains("its kind") && line("inbox").ends_with("yes"), "{out}");
    assert!(line("hall").contains("1h") && line("hall").ends_with("unused"), "{out}");
    assert!(line("room").ends_with("not yet: 1m, 5000, 16Mi"), "{out}");
}

#[tokio::test]
async fn a_source_is_made_and_ended_and_a_bad_handle_never_leaves_the_machine() {
    let server = server().await;
    let (out, err, code) = run(&server, &["source", "create", "build", "--kind", "pty"]).await;
    assert!(code == 0 && out.contains("build is yours"), "{out}{err}");
    assert_eq!(last_body(&server), json!({"handle": "build", "kind": "pty"}));
    assert!(!server.seen()[0].header("idempotency-key").is_empty());
    let (_, err, code) = run(&server, &["source", "create", "taken", "--json"]).await;
    let said: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((code, &said["error"]["code"]), (1, &json!("E_SOURCE_TAKEN")), "{err}");
    let asked = server.lines().len();
    for (handle, why) in [("Build", "1 to 32 characters"), ("inbox", "reserved word")] {
        let (_, err, code) = run(&server, &["source", "create", handle]).await;
        assert!(code == 2 && err.contains(why), "{err}");
    }
    assert_eq!(server.lines().len(), asked);
    let (out, _, code) = run(&server, &["source", "rm", "build"]).await;
    assert!(code == 0 && out.contains("build has ended"), "{out}");
    assert_eq!(server.lines().last().unwrap(), "DELETE /api/v1/sources/build");
}

#[tokio::test]
async fn rights_are_given_and_taken_back_by_whom_they_are_for() {
    let server = server().await;
    let (out, err, code) = run(&server, &["source", "grant", "build", "read", "--user", "ada"]).await;
    assert!(code == 0 && out.contains("a\u{fffd}da may read build"), "{out}{err}");
    assert_eq!(last_body(&server), json!({"username": "ada", "right": "read"}));
    for (words, body) in [
        (["--group", "crew"].as_slice(), json!({"group": "crew", "right": "type"})),
        (&["--group", GROUP], json!({"groupId": GROUP, "right": "type"})),
        (&["--everyone"], json!({"everyone": true, "right": "type"})),
    ] {
        run(&server, &[["source", "grant", "build", "type"].as_slice(), words].concat()).await;
        assert_eq!(last_body(&server), body);
    }
    let (_, err, code) = run(&server, &["source", "grant", "build", "read"]).await;
    assert!(code == 2 && err.contains("--everyone"), "{err}");
    let (out, _, _) = run(&server, &["source", "grants", "build"]).await;
    assert!(out.starts_with("ID") && out.contains("everyone") && out.contains(GRANT), "{out}");

    for (words, id) in
        [(["read", "--user", "ADA"].as_slice(), GRANT), (&["write", "--everyone"], OTHER), (&[OTHER], OTHER)]
    {
        let (out, err, code) =
            run(&server, &[["source", "revoke", "build"].as_slice(), words].concat()).await;
        assert!(code == 0 && out.contains("has ended"), "{out}{err}");
        assert_eq!(server.lines().last().unwrap(), &format!("DELETE /api/v1/sources/build/grants/{id}"));
    }
    for (words, why) in [
        (["write", "--user", "ada"].as_slice(), "tidegate source grants build"),
        (&["read"], "say whose right it is"),
        (&["own"], "neither read, write or type"),
        (&[OTHER, "--everyone"], "leave --user"),
    ] {
        let (_, err, code) = run(&server, &[["source", "revoke", "build"].as_slice(), words].concat()).await;
        assert!(code == 1 && err.contains(why), "{err}");
    }
}

#[tokio::test]
async fn what_a_pipe_keeps_is_said_in_units_and_what_is_not_in_force_is_told() {
    let server = server().await;
    let words = ["pipe", "create", "build/room", "--ttl", "1h", "--max-bytes", "64Mi"];
    let (out, err, code) = run(&server, &words).await;
    assert!(code == 0 && out.trim() == "build/room keeps 1h, 5000 messages, 16Mi", "{out}{err}");
    assert_eq!(last_body(&server), json!({"name": "room", "ttlSeconds": 3_600, "maxBytes": 64 << 20}));
    let words = ["pipe", "set", "build/room", "--ttl", "default", "--max-msgs", "7"];
    let (out, err, code) = run(&server, &words).await;
    assert!(code == 0 && out.contains("not yet in force: 1m, 5000, 16Mi"), "{out}{err}");
    assert_eq!(last_body(&server), json!({"ttlSeconds": null, "maxMsgs": 7}));
    let (_, err, code) = run(&server, &["pipe", "set", "build/room"]).await;
    assert!(code == 2 && err.contains("--ttl"), "{err}");
    for (at, why) in [
        ("build/stdin", "reserved word"),
        ("build", "HANDLE/PIPE"),
        ("build/", "HANDLE/PIPE"),
        ("B/room", "a handle"),
    ] {
        let (_, err, code) = run(&server, &["pipe", "create", at]).await;
        assert!(code == 2 && err.contains(why), "{err}");
    }
    let (out, _, _) = run(&server, &["pipe", "ls", "build", "--json"]).await;
    let read: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&read["total"], &read["pipes"][1]["inForce"]), (&json!(3), &Value::Null));
    let (out, _, code) = run(&server, &["pipe", "rm", "build/room"]).await;
    assert!(code == 0 && out.contains("build/room has ended"), "{out}");
    assert_eq!(server.lines().last().unwrap(), "DELETE /api/v1/sources/build/pipes/room");
}
