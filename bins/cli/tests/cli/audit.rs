//! The audit log: listed and exported.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, run};

fn line() -> Value {
    json!({
        "id": "01970000-0000-7000-8000-00000000000a", "at": "2026-01-01T00:00:00Z", "orgId": null, "actor": "console",
        "actorUserId": null, "actorName": null, "credential": null, "action": "member\u{1b}[2J.add", "resource": "user:1",
        "address": "203.0.113.9", "requestId": "r-1", "before": null, "after": {"role": "viewer"}, "detail": {},
    })
}

async fn server() -> Fake {
    Fake::start(|request: &Request| {
        if request.line.contains("/export") {
            return Reply::Answer("200 OK", &["Tidegate-Total: 2"], format!("{0}\n{0}\n", line()));
        }
        Reply::ok(&json!({"entries": [line()], "total": 7, "nextCursor": "next"}))
    })
    .await
}

#[tokio::test]
async fn lines_are_listed_as_they_are_asked_for() {
    let server = server().await;
    let words = ["audit", "ls", "--actor", "alice", "--action", "member.add", "--limit", "1"];
    let (out, err, code) = run(&server, &words).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("console") && out.contains("203.0.113.9") && !out.contains('\u{1b}'), "{out}");
    assert!(err.contains("1 of 7"), "{err}");
    let asked = server.lines().last().unwrap().clone();
    assert_eq!(asked, "GET /api/v1/audit?actor=alice&action=member.add&limit=1");
    let (out, _, _) = run(&server, &["audit", "ls", "--of", "acme", "--json"]).await;
    let page: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(page["entries"][0]["after"]["role"], "viewer");
    assert_eq!(server.lines().last().unwrap(), "GET /api/v1/admin/audit?org=acme&limit=50");
}

#[tokio::test]
async fn an_export_is_written_to_standard_output_or_whole_to_a_file_that_others_cannot_read() {
    use std::os::unix::fs::PermissionsExt;
    let (server, folder) = (server().await, tempfile::tempdir().unwrap());
    let (out, err, code) = run(&server, &["audit", "export"]).await;
    assert_eq!((out.lines().count(), code), (2, 0), "{err}");
    let file = folder.path().join("log.csv");
    let words = ["audit", "export", "--everywhere", "--format", "csv", "--output", file.to_str().unwrap()];
    let (out, err, code) = run(&server, &words).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("2 lines are in"), "{out}");
    assert_eq!(server.lines().last().unwrap(), "GET /api/v1/admin/audit/export?format=csv");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-written stays");
}
