//! The audit log over HTTP: who may read it, what stands in it, and how it is exported.

use serde_json::{Value, json};
use tidegate_client::{AuditOf, AuditQuery, Client};
use tidegate_model::{OrgRole, Secret};

use crate::support::{Answer, World};

const LOG: &str = "/api/v1/audit";

fn actions(answer: &Answer) -> Vec<&str> {
    let entries = answer.body["entries"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect()
}

fn client(world: &World, token: &str) -> Client {
    let url = world.handle.url().parse().unwrap();
    Client::builder(url).token(Secret::new(token.to_owned())).build().unwrap()
}

async fn exported(world: &World, token: &str, of: &AuditOf, format: &str) -> (Option<u64>, String) {
    let query = AuditQuery::default();
    let mut export = client(world, token).export_audit(of, &query, format).await.unwrap();
    let (total, mut text) = (export.total(), Vec::new());
    while let Some(bytes) = export.next().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    (total, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_line_says_who_with_what_from_where_and_in_which_request() {
    let world = World::with("trusted_proxies = '127.0.0.1'").await;
    let owner = world.owner("acme").await;
    let friend = world.somebody("lobby", OrgRole::User).await;
    let headers = [
        ("Authorization", format!("Bearer {}", owner.token)),
        ("X-Forwarded-For", "203.0.113.9".to_owned()),
        ("X-Request-Id", "request-of-the-test".to_owned()),
    ];
    let body = json!({"username": friend.name, "role": "viewer"}).to_string();
    let path = "/api/v1/organizations/acme/members";
    assert_eq!(world.raw("POST", path, &headers, body.as_bytes()).await.status, 201);
    let log = world.call("GET", &format!("{LOG}?action=member.add"), &owner.token, None).await;
    assert_eq!((&log.body["total"], &log.body["nextCursor"]), (&1.into(), &Value::Null));
    let line = &log.body["entries"][0];
    for (field, value) in [
        ("actor", format!("user:{}", owner.id)),
        ("actorUserId", owner.id.clone()),
        ("actorName", owner.name.clone()),
        ("resource", format!("user:{}", friend.id)),
        ("address", "203.0.113.9".to_owned()),
        ("requestId", "request-of-the-test".to_owned()),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert!(line["credential"].as_str().unwrap().starts_with("login:"), "{line}");
    assert_eq!((&line["before"], &line["after"]["role"]), (&Value::Null, &json!("viewer")));
}

#[tokio::test]
async fn org_admins_read_their_organizations_log_and_operators_every_one() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let rival = world.owner("rival").await;
    for role in [OrgRole::Maintainer, OrgRole::User, OrgRole::Viewer] {
        let member = world.somebody("acme", role).await;
        world.call("GET", LOG, &member.token, None).await.refused(403, "E_FORBIDDEN");
        world.call("GET", &format!("{LOG}/export"), &member.token, None).await.refused(403, "E_FORBIDDEN");
    }
    let log = world.call("GET", LOG, &owner.token, None).await;
    // The members were made by the console, whose clock stands still.
    assert_eq!(actions(&log), ["organization.create", "user.create", "user.create", "user.create"]);
    let org = world.call("GET", LOG, &rival.token, None).await.body["entries"][0]["orgId"].clone();
    for path in ["/api/v1/admin/audit", "/api/v1/admin/audit/export"] {
        world.call("GET", path, &owner.token, None).await.refused(403, "E_FORBIDDEN");
    }
    let operator = world.operator().await;
    let all = world.call("GET", "/api/v1/admin/audit?limit=100", &operator, None).await;
    assert!(actions(&all).contains(&"user.create"), "{all:?}");
    for name in [json!("rival"), org.clone()] {
        let path = format!("/api/v1/admin/audit?org={}", name.as_str().unwrap());
        let one = world.call("GET", &path, &operator, None).await;
        assert_eq!((actions(&one), &one.body["entries"][0]["orgId"]), (vec!["organization.create"], &org));
    }
    world.call("GET", "/api/v1/admin/audit?org=nobody", &operator, None).await.refused(404, "E_NOT_FOUND");
    let bad =
        world.call("GET", &format!("{LOG}?since=x&limit=101&actor=&org=rival"), &owner.token, None).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["actor", "limit", "since"]);
    let other = world.call("GET", &format!("{LOG}?org=rival"), &owner.token, None).await;
    assert_eq!(other.refused(400, "E_INVALID").fields(), ["org"]);
}

#[tokio::test]
async fn pages_follow_each_other_and_filters_are_met() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    for number in 0..5 {
        let body = json!({"username": format!("friend{number}")});
        world.call("POST", "/api/v1/organizations/acme/invites", &owner.token, Some(body)).await;
    }
    let mut seen = Vec::new();
    let mut next = format!("{LOG}?limit=2&actor={}&action=invite.create", owner.name.to_uppercase());
    loop {
        let page = world.call("GET", &next, &owner.token, None).await;
        assert_eq!(page.body["total"], 5);
        let entries = page.body["entries"].as_array().unwrap().clone();
        seen.extend(entries.iter().map(|entry| entry["after"]["username"].as_str().unwrap().to_owned()));
        let Some(cursor) = page.body["nextCursor"].as_str() else { break };
        next = format!("{LOG}?limit=2&actor={}&action=invite.create&cursor={cursor}", owner.name);
    }
    assert_eq!(seen, ["friend4", "friend3", "friend2", "friend1", "friend0"]);
    for nothing in ["actor=nobody", "action=invite.revoke", "resource=user:1", "until=2020-01-01T00:00:00Z"] {
        let none = world.call("GET", &format!("{LOG}?{nothing}"), &owner.token, None).await;
        assert_eq!((&none.body["entries"], &none.body["total"]), (&json!([]), &0.into()), "{nothing}");
    }
}

#[tokio::test]
async fn an_export_is_the_whole_log_and_a_line_of_it() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    world
        .db
        .execute(
            "INSERT INTO audit_log (id, org_id, actor, actor_name, actor_key, action, resource, at)
             SELECT gen_random_uuid(), o.id, 'user:x', '=cmd()', '=cmd()', 'test', 'test:' || n, now() - interval '1 h'
             FROM generate_series(1, 1200) n CROSS JOIN organizations o WHERE o.name = 'acme'",
        )
        .await;
    let (total, text) = exported(&world, &owner.token, &AuditOf::Chosen, "jsonl").await;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((total, lines.len()), (Some(1_201), 1_201));
    assert!(lines.iter().all(|line| line["orgId"] == lines[0]["orgId"]));
    let (_, csv) = exported(&world, &owner.token, &AuditOf::Chosen, "csv").await;
    assert!(csv.starts_with("at,id,orgId,actor,"), "{}", &csv[..80]);
    // The log, the line of the export before, and the line of names.
    assert_eq!(csv.lines().count(), 1_203);
    assert!(csv.contains(",'=cmd(),") && !csv.contains(",=cmd("), "no cell is a formula");
    let log = world.call("GET", &format!("{LOG}?action=audit.export"), &owner.token, None).await;
    let formats: Vec<&Value> =
        log.body["entries"].as_array().unwrap().iter().map(|entry| &entry["detail"]["format"]).collect();
    assert_eq!(formats, ["csv", "jsonl"]);
    let operator = world.operator().await;
    let acme = AuditOf::Organization("acme".to_owned());
    assert_eq!(exported(&world, &operator, &acme, "jsonl").await.1.lines().count(), 1_203);
    let log = world.call("GET", &format!("{LOG}?action=audit.export"), &owner.token, None).await;
    assert_eq!(log.body["total"], 3, "what an operator read stands in the organization's own log");
    let (_, everything) = exported(&world, &operator, &AuditOf::Everybody, "jsonl").await;
    assert!(everything.contains("\"orgId\":null"), "the platform's own lines too");
    world
        .call("GET", &format!("{LOG}/export?format=xml"), &owner.token, None)
        .await
        .refused(400, "E_INVALID");
}
