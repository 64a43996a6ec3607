//! Logging in by browser, and the tokens that come of it.

use std::{os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, fake::login, run};

const TOKEN: &str = "ppz_oauth_0123456789abcdef";
const ID: &str = "01970000-0000-7000-8000-000000000011";

fn user() -> Value {
    let answer: Value = serde_json::from_str(&login("first")).unwrap();
    answer["user"].clone()
}

fn row() -> Value {
    json!({
        "id": ID, "userId": user()["id"], "orgId": user()["orgId"], "prefix": "01234567", "clientName": "laptop\u{1b}[2J",
        "createdAt": "2026-01-01T00:00:00Z", "expiresAt": "2999-01-01T00:00:00Z", "lastUsedAt": null, "revokedAt": null,
    })
}

/// A server whose polls are answered with these words, one after the other, and then with a token.
async fn server(words: &'static [&'static str]) -> Fake {
    let mut words = words.iter();
    Fake::start(move |request: &Request| match request.line.as_str() {
        "POST /oauth/device/code" => Reply::ok(&json!({
            "device_code": "secret", "user_code": "WDJB-MJHT", "verification_uri": "http://127.0.0.1/oauth/device/verify",
            "verification_uri_complete": "http://127.0.0.1/oauth/device/verify?user_code=WDJB-MJHT",
            "expires_in": 600, "interval": 1,
        })),
        "POST /oauth/device/token" => match words.next() {
            Some(word) => Reply::Answer("400 Bad Request", &[], json!({"error": word}).to_string()),
            None => Reply::ok(&json!({
                "access_token": TOKEN, "token_type": "Bearer", "expires_in": 60, "account_id": user()["orgId"],
            })),
        },
        "GET /api/v1/users/me" => Reply::ok(&user()),
        "POST /api/v1/auth/logout" => Reply::Answer("204 No Content", &[], String::new()),
        line if line.starts_with("DELETE") => Reply::ok(&json!({"token": row()})),
        _ => Reply::ok(&json!({"tokens": [row()], "total": 1, "nextCursor": null})),
    })
    .await
}

async fn at_home(server: &Fake, home: &Path, words: &[&str]) -> (String, String, bool) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(words).env("TIDEGATE_URL", server.url.as_str()).env("XDG_CONFIG_HOME", home);
    command.env_remove("TIDEGATE_TOKEN").env_remove("TIDEGATE_API_KEY").env_remove("DISPLAY");
    let output = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

#[tokio::test]
async fn a_login_shows_the_code_waits_and_keeps_the_token_to_itself() {
    let (server, home) = (server(&["authorization_pending"]).await, tempfile::tempdir().unwrap());
    let (out, err, done) = at_home(&server, home.path(), &["login", "--no-browser"]).await;
    assert!(done && out.contains("as alice"), "{out} {err}");
    assert!(err.contains("WDJB-MJHT") && err.contains("/oauth/device/verify"), "{err}");
    assert!(!out.contains(TOKEN) && !err.contains(TOKEN) && !err.contains("secret"));
    let file = home.path().join("tidegate/credentials.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(at_home(&server, home.path(), &["tokens", "ls"]).await.2);
    let seen = server.seen();
    assert_eq!(seen.last().unwrap().header("authorization"), format!("Bearer {TOKEN}"));
    assert!(
        seen.iter()
            .filter(|request| request.line.contains("/oauth/"))
            .all(|r| r.header("authorization").is_empty())
    );
    let (_, err, done) = at_home(&server, home.path(), &["logout"]).await;
    assert!(done, "{err}");
    assert_eq!(server.lines().last().unwrap(), "POST /api/v1/auth/logout");
    assert!(!std::fs::read_to_string(&file).unwrap().contains(TOKEN));
    assert!(!at_home(&server, home.path(), &["tokens", "ls"]).await.2, "nobody is logged in");
}

#[tokio::test]
async fn a_login_that_is_refused_or_too_late_says_so() {
    for (word, said) in
        [("access_denied", "refused"), ("expired_token", "nobody has let"), ("odd", "unexpected")]
    {
        let words: &'static [&'static str] = Box::leak(Box::new([word]));
        let (server, home) = (server(words).await, tempfile::tempdir().unwrap());
        let (_, err, done) = at_home(&server, home.path(), &["login", "--no-browser"]).await;
        assert!(!done && err.contains(said), "{word}: {err}");
        assert!(!home.path().join("tidegate/credentials.json").exists());
    }
}

#[tokio::test]
async fn tokens_are_listed_and_revoked() {
    let server = server(&[]).await;
    let (table, err, _) = run(&server, &["tokens", "list"]).await;
    for word in ["01234567", "laptop", "never", ID] {
        assert!(table.contains(word), "{word} in {table} {err}");
    }
    assert!(!table.contains('\u{1b}'));
    let (json, _, _) = run(&server, &["tokens", "ls", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["tokens"][0], row());
    let (out, err, code) = run(&server, &["tokens", "revoke", ID]).await;
    assert!(code == 0 && out.contains("is revoked"), "{out} {err}");
    assert_eq!(server.lines().last().unwrap(), &format!("DELETE /api/v1/auth/tokens/{ID}"));
}
