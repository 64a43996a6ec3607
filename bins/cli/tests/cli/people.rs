//! Organizations, members and invites from the command line.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, run};

const ORG: &str = "01970000-0000-7000-8000-0000000000aa";
const USER: &str = "01970000-0000-7000-8000-000000000003";

fn organization() -> Value {
    json!({"id": ORG, "name": "acme", "displayName": "ACME", "description": "", "k8sNamespace": "tidegate-acme",
           "status": "active", "ownerUserId": USER, "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"})
}

fn member(name: &str) -> Value {
    json!({"userId": USER, "username": name, "fullName": "Some\u{1b}body", "role": "user", "owner": false,
           "active": true, "joinedAt": "2026-01-01T00:00:00Z"})
}

/// A server with one organization of two members.
async fn server() -> Fake {
    Fake::start(|request: &Request| match request.line.as_str() {
        "GET /api/v1/me/permissions" => {
            Reply::ok(&json!({"orgId": ORG, "organization": "acme", "orgRole": "org_admin",
            "owner": true, "role": "user", "permissions": ["member.read", "member.manage"]}))
        }
        "GET /api/v1/users/me" => {
            Reply::ok(&json!({"id": USER, "orgId": ORG, "username": "alice", "email": null,
            "fullName": "Alice", "role": "user", "orgRole": "org_admin", "provider": "local", "active": true,
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}))
        }
        line if line.starts_with("GET") && line.contains("/members?") => {
            Reply::ok(&json!({"members": [member("alice"), member("Bob")], "total": 2, "nextCursor": null}))
        }
        line if line.contains("/members") => Reply::ok(&member("Bob")),
        _ => Reply::ok(&organization()),
    })
    .await
}

#[tokio::test]
async fn whoami_says_who_where_and_what() {
    let server = server().await;
    let (out, err, code) = run(&server, &["whoami"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("alice") && out.contains("org_admin, its owner") && out.contains("member.manage"),
        "{out}"
    );
    let (json, _, _) = run(&server, &["whoami", "--json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["user"]["username"], &json["permissions"]["owner"]), (&"alice".into(), &true.into()));
}

#[tokio::test]
async fn members_are_shown_and_named_in_any_case() {
    let server = server().await;
    let (out, err, code) = run(&server, &["members", "list"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("USER") && out.contains("Bob") && !out.contains('\u{1b}'), "{out}");
    let (out, err, _) = run(&server, &["members", "set-role", "bob", "--role", "viewer"]).await;
    assert!(out.contains("Bob has the role user"), "{out}{err}");
    let line = format!("PATCH /api/v1/organizations/{ORG}/members/{USER}");
    assert!(server.lines().contains(&line), "{:?}", server.lines());
    let (_, err, code) = run(&server, &["members", "remove", "carol"]).await;
    assert!(code == 1 && err.contains("no member is called `carol`"), "{err}");
}

#[tokio::test]
async fn an_organization_is_changed_in_what_is_named_and_in_something() {
    let server = server().await;
    let (_, err, code) = run(&server, &["org", "update", "acme"]).await;
    assert!(code == 2 && err.contains("--display-name"), "{err}");
    let (_, err, code) = run(&server, &["org", "update", "acme", "--description", "Of tides"]).await;
    assert_eq!(code, 0, "{err}");
    let seen = server.seen();
    let sent = seen.iter().find(|request| request.line.starts_with("PATCH")).unwrap();
    assert_eq!(sent.body, r#"{"description":"Of tides"}"#);
}

#[tokio::test]
async fn an_organization_ends_only_when_its_name_is_said_twice() {
    let server = server().await;
    let (_, err, code) = run(&server, &["org", "delete", "acme", "--confirm", "other"]).await;
    assert!(code == 1 && err.contains("must be `acme`"), "{err}");
    assert!(!server.lines().iter().any(|line| line.starts_with("DELETE")));
    let (out, err, code) = run(&server, &["org", "delete", "acme", "--confirm", "acme"]).await;
    assert_eq!((out.as_str(), code), ("acme has ended\n", 0), "{err}");
    assert!(server.lines().contains(&format!("DELETE /api/v1/organizations/{ORG}")));
}
