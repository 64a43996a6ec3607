//! Users, the password and logins from the command line.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, run};

const ORG: &str = "01970000-0000-7000-8000-0000000000aa";
const USER: &str = "01970000-0000-7000-8000-000000000003";
const LOGIN: &str = "01970000-0000-7000-8000-0000000000bb";

fn user(name: &str) -> Value {
    json!({"id": USER, "orgId": ORG, "username": name, "email": "b@example.com", "fullName": "Some\u{1b}body",
           "role": "user", "orgRole": "viewer", "provider": "local", "mode": "internal", "active": true,
           "homeOrgId": ORG, "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"})
}

async fn server() -> Fake {
    Fake::start(|request: &Request| match request.line.as_str() {
        line if line.starts_with("GET /api/v1/users?") => {
            Reply::ok(&json!({"users": [user("bobby"), user("Bob")], "total": 2, "nextCursor": null}))
        }
        "GET /api/v1/auth/logins?limit=100" => Reply::ok(&json!({"logins": [{"id": LOGIN, "current": true,
            "address": "192.0.2.1", "createdAt": "2026-01-01T00:00:00Z", "refreshedAt": "2026-01-01T00:00:00Z",
            "expiresAt": "2026-02-01T00:00:00Z"}], "total": 1, "nextCursor": null})),
        _ => Reply::ok(&user("Bob")),
    })
    .await
}

#[tokio::test]
async fn users_are_listed_and_deactivated_by_name_in_any_case() {
    let server = server().await;
    let (out, err, code) = run(&server, &["users", "ls", "--search", "bo"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("USER") && out.contains("bobby") && !out.contains('\u{1b}'), "{out}");
    let (out, err, code) = run(&server, &["users", "deactivate", "BOB"]).await;
    assert!(code == 0 && out.contains("Bob is deactivated"), "{out}{err}");
    assert!(server.lines().contains(&format!("PATCH /api/v1/users/{USER}")), "{:?}", server.lines());
    let (_, err, code) = run(&server, &["users", "deactivate", "carol"]).await;
    assert!(code == 1 && err.contains("no user is called `carol`"), "{err}");
}

#[tokio::test]
async fn another_address_of_ones_own_is_sent_with_the_password() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine");
    std::fs::write(&file, "tidewater gate\n").unwrap();
    let update = ["users", "update", "bob", "--email", "new@example.com"];
    let (_, err, code) = run(&server, &update).await;
    assert!(code == 1 && err.contains("nobody is here to ask"), "{err}");
    assert!(!server.lines().iter().any(|line| line.starts_with("PATCH")), "{:?}", server.lines());
    let (_, err, code) =
        run(&server, &[&update[..], &["--current-file", file.to_str().unwrap()]].concat()).await;
    assert_eq!(code, 0, "{err}");
    let seen = server.seen();
    let sent = seen.iter().find(|request| request.line.starts_with("PATCH")).unwrap();
    assert_eq!(sent.body, r#"{"email":"new@example.com","currentPassword":"tidewater gate"}"#);
}

#[tokio::test]
async fn a_user_is_deleted_only_when_the_name_is_said_twice() {
    let server = server().await;
    let (_, err, code) = run(&server, &["users", "delete", "bob", "--confirm", "bobby"]).await;
    assert!(code == 1 && err.contains("must be `Bob`"), "{err}");
    assert!(!server.lines().iter().any(|line| line.starts_with("DELETE")));
    let (out, err, code) = run(&server, &["users", "delete", "bob", "--confirm", "bob"]).await;
    assert_eq!((out.as_str(), code), ("Bob is deleted\n", 0), "{err}");
}

#[tokio::test]
async fn a_password_is_changed_from_files_and_logins_are_ended() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (old, new) = (file("old", "tidewater gate\n"), file("new", "a new password\n"));
    let (out, err, code) = run(&server, &["passwd", "--current-file", &old, "--new-file", &new]).await;
    assert!(code == 0 && out.contains("is changed"), "{out}{err}");
    let (_, err, code) = run(&server, &["passwd", "--current-file", &old]).await;
    assert!(code == 1 && err.contains("nobody is here to ask"), "{err}");
    let (out, err, code) = run(&server, &["logins", "list"]).await;
    assert!(code == 0 && out.contains("192.0.2.1"), "{out}{err}");
    let (out, err, _) = run(&server, &["logins", "end", LOGIN]).await;
    assert!(out.contains("has ended"), "{out}{err}");
    assert!(server.lines().contains(&format!("DELETE /api/v1/auth/logins/{LOGIN}")));
}

#[tokio::test]
async fn a_forgotten_password_is_asked_for_without_the_login() {
    let server = Fake::start(|_: &Request| Reply::Answer("202 Accepted", &[], String::new())).await;
    let (out, err, code) = run(&server, &["passwd", "--forgotten", "Bob"]).await;
    assert!(code == 0 && out.contains("a mail is on its way"), "{out}{err}");
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /api/v1/auth/password/reset");
    assert_eq!((seen[0].header("authorization"), seen[0].body.as_str()), ("", r#"{"username":"Bob"}"#));
    let (_, err, code) = run(&server, &["passwd", "--forgotten", "Bob", "--new-file", "x"]).await;
    assert!(code == 2 && err.contains("cannot be used with"), "{err}");
}
