//! `plugins`: what an operator does with them over HTTP.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, run};

const DELIVERY: &str = "01970000-0000-7000-8000-0000000000d1";

fn plugin(id: i64, enabled: bool) -> Value {
    json!({"id": id, "catalogPluginId": 3, "organizationId": null, "name": if id == 5 { "relay" } else { "twice" },
           "version": "1.2.0", "enabled": enabled, "config": {"url": "https://example.org"}, "installedBy": "ada",
           "installedAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "displayName": "Re\u{1b}lay",
           "description": "", "pluginType": "webhook", "iconUrl": "",
           "manifest": {"name": "relay", "version": "1.2.0", "displayName": "Relay", "description": "", "author": "Ada",
                        "type": "webhook"},
           "permissions": ["sessions:read"], "faults": 0, "disabledReason": if enabled { Value::Null } else { "it trapped".into() },
           "previousVersion": null})
}

fn delivery() -> Value {
    json!({"id": DELIVERY, "pluginId": 5, "organizationId": null, "payload": {}, "event": "session.running", "status": "failed", "attempts": 4, "lastStatus": 500,
           "reason": "the receiver answered 500", "createdAt": "2026-01-01T00:00:00Z", "dueAt": null,
           "finishedAt": "2026-01-02T00:00:00Z"})
}

fn answer(request: &Request) -> Reply {
    let mut words = request.line.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    Reply::ok(&match (method, path.trim_start_matches("/api/v1")) {
        ("GET", "/plugins") => {
            json!({"plugins": [plugin(5, true), plugin(6, false), plugin(7, false)], "total": 3})
        }
        ("GET", "/plugins/catalog") => json!({"plugins": [], "total": 0, "nextCursor": null}),
        ("GET", "/plugins/5/deliveries") => {
            json!({"deliveries": [delivery()], "total": 1, "nextCursor": null})
        }
        ("POST", "/plugins/5/disable") => plugin(5, false),
        ("POST", "/plugins/5/upgrade") => {
            let mut upgraded = plugin(5, true);
            upgraded["version"] = "1.3.0".into();
            upgraded["previousVersion"] = "1.2.0".into();
            upgraded
        }
        ("GET", "/plugins/catalog/3/versions") => {
            let version = |number: &str, changelog: &str| {
                json!({"id": 1, "pluginId": 3, "version": number, "changelog": changelog,
                       "manifest": plugin(5, true)["manifest"], "createdAt": "2026-01-01T00:00:00Z"})
            };
            let versions = [
                version("1.4.0", "Later"),
                version("1.3.0", "Retries \u{1b}sooner"),
                version("1.2.0", "First"),
            ];
            json!({"versions": versions, "total": 3, "nextCursor": null})
        }
        ("POST", path) if path.ends_with("/redeliver") => delivery(),
        ("DELETE", "/plugins/5") => json!({}),
        ("GET" | "PATCH", "/plugins/5")
        | ("POST", "/plugins/catalog/3/install" | "/plugins/5/enable" | "/plugins/5/rollback") => {
            plugin(5, true)
        }
        other => panic!("{other:?}"),
    })
}

fn asked(server: &Fake, line: &str) -> Value {
    let seen = server.seen();
    let found =
        seen.iter().rfind(|request| request.line == line).unwrap_or_else(|| panic!("nobody asked {line}"));
    serde_json::from_str(&found.body).unwrap_or_default()
}

#[tokio::test]
async fn plugins_are_listed_and_shown_without_what_a_terminal_would_obey() {
    let server = Fake::start(answer).await;
    let (table, err, code) = run(&server, &["plugins", "ls"]).await;
    for word in ["relay", "1.2.0", "webhook", "enabled", "disabled: it trapped"] {
        assert!(code == 0 && table.contains(word), "{word} in {table} {err}");
    }
    let (out, err, _) = run(&server, &["plugins", "show", "relay"]).await;
    assert!(out.contains("https://example.org") && out.contains("sessions:read"), "{out} {err}");
    assert!(!out.contains('\u{1b}'), "{out}");
    let (out, _, _) = run(&server, &["plugins", "show", "5", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["name"], "relay");
    let (_, err, code) = run(&server, &["plugins", "show", "twice"]).await;
    assert!(code == 1 && err.contains("say the number: 6, 7"), "{err}");
    let (_, err, code) = run(&server, &["plugins", "show", "nothing"]).await;
    assert!(code == 1 && err.contains("no plugin is called nothing"), "{err}");
}

#[tokio::test]
async fn a_plugin_is_installed_with_what_it_is_granted() {
    let server = Fake::start(answer).await;
    let values = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(values.path(), r#"{"url": "https://example.org"}"#).unwrap();
    let file = values.path().to_str().unwrap();
    let words = [
        "plugins",
        "install",
        "3",
        "--values",
        file,
        "--grant",
        "sessions:read",
        "--version",
        "1.2.0",
        "--disabled",
    ];
    let (out, err, code) = run(&server, &words).await;
    assert!(code == 0 && out.contains("relay 1.2.0 is number 5"), "{out} {err}");
    assert_eq!(
        asked(&server, "POST /api/v1/plugins/catalog/3/install"),
        json!({"version": "1.2.0", "config": {"url": "https://example.org"}, "permissions": ["sessions:read"], "enabled": false})
    );
    let (_, err, code) = run(&server, &["plugins", "install", "unknown"]).await;
    assert!(code == 1 && err.contains("no plugin of the catalog is called unknown"), "{err}");
    let (_, err, code) = run(&server, &["plugins", "configure", "5", "/nowhere.json"]).await;
    assert!(code == 1 && err.contains("cannot read /nowhere.json"), "{err}");
}

#[tokio::test]
async fn a_plugin_is_changed_told_again_and_removed() {
    let server = Fake::start(answer).await;
    for words in [
        vec!["upgrade", "relay", "--version", "1.3.0"],
        vec!["rollback", "relay"],
        vec!["enable", "5"],
        vec!["disable", "5"],
        vec!["redeliver", "5", DELIVERY],
        vec!["uninstall", "relay"],
    ] {
        let (_, err, code) = run(&server, &[vec!["plugins"], words.clone()].concat()).await;
        assert_eq!(code, 0, "{words:?} {err}");
    }
    assert_eq!(asked(&server, "POST /api/v1/plugins/5/upgrade")["version"], "1.3.0");
    let (_, err, _) = run(&server, &["plugins", "upgrade", "relay"]).await;
    assert!(
        err.contains("Retries") && !err.contains("Later") && !err.contains("First"),
        "what is new: {err}"
    );
    assert!(!err.contains('\u{1b}'), "{err}");
    assert!(server.lines().contains(&format!("POST /api/v1/plugins/5/deliveries/{DELIVERY}/redeliver")));
    assert!(server.lines().contains(&"DELETE /api/v1/plugins/5".to_owned()));
    let (out, err, code) = run(&server, &["plugins", "deliveries", "relay"]).await;
    assert!(code == 0 && out.contains("session.running") && out.contains("answered 500"), "{out} {err}");
}
