//! Shares, extensions, activity and policies from the command line.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, SESSION, fake::session, run};

const SHARE: &str = "01970000-0000-7000-8000-0000000000ee";
const NAME: &str = "calm-harbour";

fn share() -> Value {
    json!({"id": SHARE, "sessionId": "01970000-0000-7000-8000-000000000001", "userId": "01970000-0000-7000-8000-000000000004",
           "user": "a\u{1b}da", "groupId": null, "group": null, "mode": "view", "createdAt": "2026-01-01T00:00:00Z",
           "expiresAt": "2026-01-01T02:00:00Z"})
}

fn bound(source: &str, owner: &str, value: Option<&str>) -> Value {
    json!({"source": source, "owner": owner, "value": value})
}

fn policy() -> Value {
    let bounds = json!([
        bound("request", "alice", Some("30m")),
        bound("organization_default", "acme", None),
        bound("organization_maximum", "acme", Some("8h")),
        bound("platform_default", "platform", Some("0")),
        bound("platform_maximum", "platform", Some("0")),
    ]);
    let limit = json!({"value": "30m", "source": "request", "owner": "alice", "at": "2026-01-01T00:30:00Z", "bounds": bounds});
    json!({"sessionId": "01970000-0000-7000-8000-000000000001", "idleTimeout": limit, "maxSessionDuration": limit,
           "extendedBy": "1h", "keptUntil": null, "warning": null})
}

fn user() -> Value {
    let login: Value = serde_json::from_str(&crate::fake::login("token")).unwrap();
    login["user"].clone()
}

async fn server() -> Fake {
    Fake::start(|request: &Request| {
        let line = request.line.as_str();
        let mut shown = session("running");
        shown["idleAt"] = json!("2026-01-01T00:30:00Z");
        match line {
            _ if line == format!("POST {SESSION}/shares") => Reply::Answer("201 Created", &[], share().to_string()),
            _ if line == format!("GET {SESSION}/shares") => Reply::ok(&json!({"shares": [share()], "total": 1})),
            _ if line == format!("POST {SESSION}/disconnect") => {
                Reply::Answer("204 No Content", &[], String::new())
            }
            _ if line.starts_with("DELETE ") => Reply::Answer("204 No Content", &[], String::new()),
            _ if line == format!("GET {SESSION}/policy") => Reply::ok(&policy()),
            _ if line == format!("GET {SESSION}/activity") => Reply::ok(&json!({"activity": [{"at": "2026-01-01T00:00:00Z",
                "kind": "input", "userId": "01970000-0000-7000-8000-000000000003", "user": "alice"}], "total": 1})),
            "GET /api/v1/users/me" => Reply::ok(&user()),
            _ if line.starts_with("GET /api/v1/sources/") => Reply::refusal("404 Not Found", "E_NOT_FOUND"),
            _ if line.starts_with("GET /api/v1/sessions?") => {
                Reply::ok(&json!({"sessions": [shown], "total": 1, "nextCursor": null}))
            }
            _ => Reply::ok(&shown),
        }
    })
    .await
}

fn last_body(server: &Fake) -> Value {
    serde_json::from_str(&server.seen().last().unwrap().body).unwrap()
}

#[tokio::test]
async fn what_is_open_is_ended_and_the_session_is_not() {
    let server = server().await;
    let (out, err, code) = run(&server, &["disconnect", NAME]).await;
    assert!(code == 0 && out.contains("nothing that you have opened"), "{out}{err}");
    assert_eq!(last_body(&server), json!({}));
    let (out, err, code) = run(&server, &["disconnect", NAME, "--user", "ada", "--json"]).await;
    let said: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && said["user"] == "ada", "{out}{err}");
    assert_eq!(last_body(&server), json!({"username": "ada"}));
    assert!(server.lines().iter().all(|line| !line.starts_with("DELETE ")), "{:?}", server.lines());
    run(&server, &["ls", "--shared"]).await;
    assert!(server.lines().last().unwrap().contains("shared=true"), "{:?}", server.lines());
}

#[tokio::test]
async fn a_session_is_shared_listed_and_taken_back() {
    let server = server().await;
    let (out, err, code) = run(&server, &["share", NAME, "--with", "ada", "--for", "2h"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("is shared with a\u{fffd}da to view, until 2026-01-01 02:00:00 UTC"), "{out}");
    assert_eq!(last_body(&server), json!({"username": "ada", "mode": "view", "expiresIn": "2h"}));
    run(&server, &["share", NAME, "--group", "crew", "--mode", "control"]).await;
    assert_eq!(last_body(&server), json!({"group": "crew", "mode": "control"}));
    let (out, err, _) = run(&server, &["share", "ls", NAME]).await;
    assert!(out.starts_with("ID") && out.contains(SHARE) && !out.contains('\u{1b}'), "{out}{err}");
    let (out, err, code) = run(&server, &["share", "rm", NAME, SHARE]).await;
    assert!(code == 0 && out.contains("has ended"), "{out}{err}");
    assert!(server.lines().contains(&format!("DELETE {SESSION}/shares/{SHARE}")), "{:?}", server.lines());
    let (_, err, code) = run(&server, &["share", "rm", NAME, "--with", "nobody"]).await;
    assert!(code == 1 && err.contains("tidegate share ls"), "{err}");
    // Whoever forgets to say with whom gets no other terminal instead.
    let (_, err, code) = run(&server, &["share", NAME]).await;
    assert!(code == 125 && err.contains("is a session: share it with --with"), "{err}");
    let (_, err, code) = run(&server, &["share", NAME, "--mode", "control"]).await;
    assert!(code == 2 && err.contains("--with"), "{err}");
    let (_, err, code) = run(&server, &["share", NAME, "--with", "ada", "--", "top"]).await;
    assert!(code == 2 && err.contains("cannot be used with"), "{err}");
    let (_, err, code) = run(&server, &["share", NAME, "--with", "ada", "--mode", "own"]).await;
    assert!(code == 2 && err.contains("control"), "{err}");
}

#[tokio::test]
async fn what_keeps_and_ends_a_session_is_shown() {
    let server = server().await;
    let (out, err, code) = run(&server, &["extend", NAME, "45m"]).await;
    assert!(code == 0 && out.contains("2026-01-01 00:30:00 UTC") && out.contains("never"), "{out}{err}");
    assert_eq!(last_body(&server), json!({"by": "45m"}));
    let (out, err, _) = run(&server, &["activity", NAME]).await;
    assert!(out.contains("input") && out.contains("alice"), "{out}{err}");
    let (out, err, _) = run(&server, &["policy", NAME]).await;
    assert!(
        out.contains("organization maximum") && out.contains("8h") && out.contains("holds: 30m"),
        "{out}{err}"
    );
    assert!(out.contains("no maximum"), "{out}");
    let (out, err, _) = run(&server, &["policy", NAME, "--json"]).await;
    let read: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(read["extendedBy"], "1h", "{err}");
}
