//! Groups and quotas from the command line.

use serde_json::{Value, json};

use crate::{Fake, Reply, Request, run};

const ORG: &str = "01970000-0000-7000-8000-0000000000aa";
const USER: &str = "01970000-0000-7000-8000-000000000003";
const GROUP: &str = "01970000-0000-7000-8000-0000000000cc";

fn group() -> Value {
    json!({"id": GROUP, "orgId": ORG, "name": "crew", "displayName": "The\u{1b} crew", "description": "", "type": "team",
           "parentId": null, "memberCount": 1, "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"})
}

fn quota(whose: &str, id: &str) -> Value {
    json!({whose: id, "orgId": ORG, "username": "alice", "maxSessions": 5, "maxCpu": null, "maxMemory": "8Gi",
           "maxStorage": "50Gi", "usedSessions": 2, "usedCpu": "1000m", "usedMemory": "1Gi", "usedStorage": "0",
           "createdAt": null, "updatedAt": null})
}

async fn server() -> Fake {
    Fake::start(|request: &Request| {
        let line = request.line.as_str();
        let path = line.split(' ').nth(1).unwrap_or_default();
        match line {
            "GET /api/v1/me/permissions" => Reply::ok(&json!({"orgId": ORG, "organization": "acme", "orgRole": "org_admin",
                "owner": true, "role": "user", "permissions": []})),
            "POST /api/v1/quotas/check" => Reply::ok(&json!({"allowed": false, "bound": {"resource": "sessions",
                "owner": "group", "name": "crew", "limit": "1", "used": "1", "requested": "1"}})),
            _ if path.contains("/members?") && path.contains("/organizations/") => {
                Reply::ok(&json!({"members": [{"userId": USER, "username": "Alice", "fullName": "Alice", "role": "user",
                    "owner": false, "active": true, "joinedAt": "2026-01-01T00:00:00Z"}], "total": 1, "nextCursor": null}))
            }
            _ if path.ends_with("/members") => Reply::ok(&json!({"id": USER, "groupId": GROUP, "groupName": "crew", "userId": USER,
                "username": "Alice", "role": "admin", "createdAt": "2026-01-01T00:00:00Z"})),
            _ if path.starts_with("/api/v1/groups?") => {
                Reply::ok(&json!({"groups": [group()], "total": 1, "nextCursor": null}))
            }
            _ if path.ends_with("/quota") && path.contains("/groups/") => Reply::ok(&quota("groupId", GROUP)),
            _ if path.ends_with("/quota") => Reply::ok(&quota("userId", USER)),
            _ => Reply::ok(&group()),
        }
    })
    .await
}

#[tokio::test]
async fn groups_are_shown_and_named_by_name() {
    let server = server().await;
    let (out, err, code) = run(&server, &["groups", "list"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("NAME") && out.contains("crew") && !out.contains('\u{1b}'), "{out}");
    let (out, err, _) = run(&server, &["groups", "add", "crew", "alice", "--role", "admin"]).await;
    assert!(out.contains("Alice has the role admin in crew"), "{out}{err}");
    assert!(server.lines().contains(&format!("POST /api/v1/groups/{GROUP}/members")), "{:?}", server.lines());
    let (_, err, code) = run(&server, &["groups", "show", "nobody"]).await;
    assert!(code == 1 && err.contains("no group is called `nobody`"), "{err}");
}

#[tokio::test]
async fn a_quota_is_shown_set_and_asked_for() {
    let server = server().await;
    let (out, err, code) = run(&server, &["quota", "show", "--user", "ALICE"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("unlimited") && out.contains("8Gi") && out.contains("1000m"), "{out}");
    let set = ["quota", "set", "--group", "crew", "--sessions", "5", "--cpu", "unlimited"];
    let (_, err, code) = run(&server, &set).await;
    assert_eq!(code, 0, "{err}");
    assert!(server.lines().contains(&format!("PUT /api/v1/groups/{GROUP}/quota")), "{:?}", server.lines());
    let (out, _, code) = run(&server, &["quota", "check", "--cpu", "500m"]).await;
    assert!(code == 1 && out.contains("the quota of group crew allows 1 of active sessions"), "{out}");
    let (_, err, code) = run(&server, &["quota", "set", "--group", "crew"]).await;
    assert!(code == 2 && err.contains("--sessions"), "{err}");
    let (_, err, code) = run(&server, &["quota", "set", "--memory", "lots"]).await;
    assert!(code == 2 && err.contains("quantity"), "{err}");
}
