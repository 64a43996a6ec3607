//! `homes`: listed for people and programs, and deleted one by one.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, run};

const ID: &str = "01890000-0000-7000-8000-00000000000a";

fn row() -> Value {
    json!({"id": ID, "userId": "01890000-0000-7000-8000-00000000000b", "username": "Alice", "agentId": "vm-1", "storage": "10Gi",
           "createdAt": "2026-01-01T00:00:00Z", "deletingAt": null, "deleteError": "the agent was away\u{1b}[2J"})
}

#[tokio::test]
async fn homes_are_listed_and_deleted() {
    let server = Fake::start(|request: &Request| {
        if request.line.starts_with("DELETE") {
            return Reply::ok(&json!({"home": row(), "commandId": "cmd-1"}));
        }
        Reply::ok(&json!({"homes": [row()], "total": 1, "nextCursor": null}))
    })
    .await;
    let (table, err, _) = run(&server, &["homes", "ls"]).await;
    for word in [ID, "Alice", "vm-1", "10Gi", "not deleted: the agent was away"] {
        assert!(table.contains(word), "{word} in {table} {err}");
    }
    assert!(!table.contains('\u{1b}'), "what an agent said is plain");
    let (json, _, _) = run(&server, &["homes", "list", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["homes"][0], row());
    let (out, err, code) = run(&server, &["homes", "rm", ID]).await;
    assert!(code == 0 && out.contains("is being deleted"), "{out} {err}");
    assert_eq!(server.lines().last().unwrap(), &format!("DELETE /api/v1/homes/{ID}"));
}
