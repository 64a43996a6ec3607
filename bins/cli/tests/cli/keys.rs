//! API keys: made, listed, and used instead of a login.

use std::path::Path;

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, fake::login, run};

const PLAINTEXT: &str = "ppz_0123456789abcdef0123456789";
const KEY: &str = "01970000-0000-7000-8000-000000000009";

fn user() -> Value {
    let answer: Value = serde_json::from_str(&login("first")).unwrap();
    answer["user"].clone()
}

fn key() -> Value {
    json!({
        "id": KEY, "orgId": user()["orgId"], "createdByUserId": user()["id"], "keyPrefix": "01234567",
        "label": "ci", "scopes": ["sessions:read", "streams"], "createdAt": "2026-01-01T00:00:00Z",
        "expiresAt": null, "lastUsedAt": null, "revokedAt": null,
    })
}

async fn server() -> Fake {
    Fake::start(|request: &Request| match request.line.as_str() {
        "GET /api/v1/users/me" => Reply::ok(&user()),
        line if line.starts_with("GET /api/v1/organizations/") => {
            Reply::ok(&json!({"keys": [key()], "total": 1, "nextCursor": null}))
        }
        line if line.ends_with("/revoke") => Reply::ok(&json!({"key": key()})),
        _ => {
            let made = json!({"key": key(), "plaintext": PLAINTEXT, "secretShown": false});
            Reply::Answer("201 Created", &[], made.to_string())
        }
    })
    .await
}

#[tokio::test]
async fn a_new_key_stands_alone_on_standard_output() {
    let server = server().await;
    let words = ["keys", "create", "ci", "--scopes", "sessions:read,streams", "--expires", "90d"];
    let (out, err, code) = run(&server, &words).await;
    assert_eq!((out, code), (format!("{PLAINTEXT}\n"), 0), "{err}");
    let seen = server.seen();
    let request = seen.last().unwrap();
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!((&body["label"], &body["scopes"]), (&json!("ci"), &json!(["sessions:read", "streams"])));
    assert!(body["expiresAt"].is_string() && !request.header("idempotency-key").is_empty());
    assert!(request.line.contains(user()["orgId"].as_str().unwrap()), "{}", request.line);
    let (out, _, _) = run(&server, &["keys", "rotate", KEY, "--json"]).await;
    let rotated: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&rotated["plaintext"], &rotated["key"]["id"]), (&json!(PLAINTEXT), &json!(KEY)));
    assert_eq!(server.lines().last().unwrap(), &format!("POST /api/v1/keys/{KEY}/rotate"));
}

#[tokio::test]
async fn keys_are_listed_and_revoked() {
    let server = server().await;
    let (table, err, _) = run(&server, &["keys", "list"]).await;
    for word in ["01234567", "sessions:read streams", "active", "never", KEY] {
        assert!(table.contains(word), "{word} in {table} {err}");
    }
    let (json, _, _) = run(&server, &["keys", "ls", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["keys"][0], key());
    let (out, err, code) = run(&server, &["keys", "revoke", KEY]).await;
    assert_eq!((out, code), (format!("{KEY} ci is revoked\n"), 0), "{err}");
}

/// Runs the program without a credential of the environment, but for `key`.
async fn at_home(server: &Fake, home: &Path, key: Option<&str>, words: &[&str]) -> (String, bool) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(words).env("TIDEGATE_URL", server.url.as_str()).env("XDG_CONFIG_HOME", home);
    command.env_remove("TIDEGATE_TOKEN").env_remove("TIDEGATE_API_KEY");
    if let Some(key) = key {
        command.env("TIDEGATE_API_KEY", key);
    }
    let output = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output().await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

#[tokio::test]
async fn a_key_in_a_file_is_remembered_until_it_is_forgotten() {
    let (server, home) = (server().await, tempfile::tempdir().unwrap());
    let file = home.path().join("key");
    std::fs::write(&file, format!("{PLAINTEXT}\n")).unwrap();
    let login = ["login", "--api-key-file", file.to_str().unwrap()];
    assert!(at_home(&server, home.path(), None, &login).await.1);
    assert!(at_home(&server, home.path(), None, &["keys", "list"]).await.1);
    let bearers: Vec<String> =
        server.seen().iter().map(|request| request.header("authorization").to_owned()).collect();
    assert_eq!(bearers, vec![format!("Bearer {PLAINTEXT}"); 3]);
    let (out, forgotten) = at_home(&server, home.path(), None, &["logout"]).await;
    assert!(forgotten && out.contains("until it is revoked"), "{out}");
    assert!(!at_home(&server, home.path(), None, &["keys", "list"]).await.1);
    assert_eq!(server.seen().len(), 3, "a key has no login to end");
}

#[tokio::test]
async fn a_key_of_the_environment_is_used_without_a_login() {
    let (server, home) = (server().await, tempfile::tempdir().unwrap());
    assert!(at_home(&server, home.path(), Some(PLAINTEXT), &["keys", "list"]).await.1);
    assert_eq!(server.seen()[0].header("authorization"), format!("Bearer {PLAINTEXT}"));
}
