//! Quotas and groups over HTTP: who may see and set what, what a refusal says, and two servers on one database.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_model::OrgRole;

use crate::support::{Answer, Somebody, World};

async fn start(world: &World, who: &Somebody) -> Answer {
    world.call("POST", "/api/v1/sessions", &who.token, Some(json!({"template": "shell"}))).await
}

async fn team(world: &World, by: &Somebody, name: &str, parent: Option<&str>) -> String {
    let body = json!({"name": name, "displayName": name, "type": "team", "parentId": parent});
    let made = world.call("POST", "/api/v1/groups", &by.token, Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_refusal_names_bound_owner_limit_usage_and_what_was_asked_for() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let owner = world.owner("acme").await;
    let user = world.somebody("acme", OrgRole::User).await;
    let group = team(&world, &owner, "crew", None).await;
    let members = format!("/api/v1/groups/{group}/members");
    let added = world.call("POST", &members, &owner.token, Some(json!({"userId": user.id}))).await;
    assert_eq!((added.status, &added.body["role"]), (201, &"member".into()));
    let quota = format!("/api/v1/groups/{group}/quota");
    for _ in 0..2 {
        let set =
            world.call("PUT", &quota, &owner.token, Some(json!({"maxSessions": 1, "maxCpu": "2"}))).await;
        let got = (set.status, &set.body["maxSessions"], &set.body["maxCpu"], &set.body["maxMemory"]);
        assert_eq!(got, (200, &1.into(), &"2000m".into(), &Value::Null));
    }
    assert_eq!(start(&world, &user).await.status, 202);
    let refused = start(&world, &user).await;
    refused.refused(403, "E_QUOTA_EXCEEDED");
    let fields =
        json!({"bound": "group crew", "limit": "1", "requested": "1", "resource": "sessions", "used": "1"});
    assert_eq!(refused.body["error"]["fields"], fields);
    let check = world.call("POST", "/api/v1/quotas/check", &user.token, Some(json!({}))).await.body;
    assert_eq!((&check["allowed"], &check["bound"]["name"]), (&false.into(), &"crew".into()));
    let usage = world.call("GET", "/api/v1/organizations/acme/usage", &user.token, None).await.body;
    assert_eq!(
        (&usage["members"], &usage["groups"], &usage["usedSessions"]),
        (&2.into(), &1.into(), &1.into())
    );
    let shown = world.call("GET", &format!("/api/v1/groups/{group}"), &user.token, None).await.body;
    assert_eq!((&shown["memberCount"], &shown["quota"]["usedSessions"]), (&1.into(), &1.into()));
    assert_eq!(world.call("DELETE", &quota, &owner.token, None).await.status, 204);
    assert_eq!(start(&world, &user).await.status, 202);
}

#[tokio::test]
async fn a_bad_quota_names_every_bad_field_and_sets_nothing() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let own = format!("/api/v1/users/{}/quota", owner.id);
    let to = [("Authorization", format!("Bearer {}", owner.token)), ("X-Tidegate-Org", "acme".to_owned())];
    let bad = json!({"maxSessions": -1, "maxCpu": "0.0001", "maxMemory": "x", "maxStorage": 5, "username": "other"});
    let refused = world.raw("PUT", &own, &to, bad.to_string().as_bytes()).await;
    assert_eq!(
        refused.refused(400, "E_INVALID").fields(),
        ["maxCpu", "maxMemory", "maxSessions", "maxStorage"]
    );
    let named = world.raw("PUT", &own, &to, br#"{"username": "other"}"#).await;
    assert_eq!(named.refused(400, "E_INVALID").fields(), ["username"]);
    let set = world.raw("PUT", &own, &to, br#"{"maxStorage": null, "maxSessions": 0}"#).await.body;
    assert_eq!((&set["maxSessions"], &set["maxStorage"]), (&0.into(), &Value::Null));
    assert!(set["createdAt"].is_string(), "{set}");
    assert_eq!(world.raw("DELETE", &own, &to, b"").await.status, 204);
    assert_eq!(world.raw("GET", &own, &to, b"").await.body["createdAt"], Value::Null);
}

#[tokio::test]
async fn operators_set_quotas_by_name_and_ceilings_that_no_organization_lifts() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let user = world.somebody("acme", OrgRole::User).await;
    let operator = world.operator().await;
    let path = format!("/api/v1/admin/quotas/{}", user.name.to_uppercase());
    world.call("GET", &path, &owner.token, None).await.refused(403, "E_FORBIDDEN");
    let set = world.call("PUT", &path, &operator, Some(json!({"maxSessions": 2}))).await;
    assert_eq!((set.status, &set.body["username"]), (200, &user.name.as_str().into()));
    let body = Some(json!({"username": user.name, "maxCpu": "3"}));
    assert_eq!(world.call("POST", "/api/v1/admin/quotas", &operator, body).await.body["maxSessions"], 2);
    let nameless = world.call("POST", "/api/v1/admin/quotas", &operator, Some(json!({"maxCpu": "3"}))).await;
    assert_eq!(nameless.refused(400, "E_INVALID").fields(), ["username"]);
    let listed = world.call("GET", "/api/v1/admin/quotas", &operator, None).await.body;
    assert_eq!((&listed["total"], &listed["quotas"][0]["organization"]), (&1.into(), &"acme".into()));
    let elsewhere = format!("{path}?organization=lobby");
    world.call("GET", &elsewhere, &operator, None).await.refused(404, "E_NOT_FOUND");
    assert_eq!(world.call("DELETE", &path, &operator, None).await.status, 204);
    assert_eq!(world.call("GET", "/api/v1/admin/quotas", &operator, None).await.body["total"], 0);

    let acme: String = world.db.look("SELECT id::text FROM organizations WHERE name = 'acme'").await;
    let ceiling = format!("/api/v1/admin/organizations/{acme}/quota");
    let own = "/api/v1/organizations/acme/quota";
    let set = world.call("PUT", &ceiling, &operator, Some(json!({"maxSessions": 4}))).await;
    assert_eq!((set.status, &set.body["ceiling"]["maxSessions"]), (200, &4.into()));
    let above = world.call("PUT", own, &owner.token, Some(json!({"maxSessions": 5}))).await;
    assert_eq!(above.refused(400, "E_INVALID").fields(), ["maxSessions"]);
    world.call("PUT", own, &user.token, Some(json!({"maxSessions": 1}))).await.refused(403, "E_FORBIDDEN");
    for (wanted, holds) in [(json!(3), 3), (Value::Null, 4)] {
        let set = world.call("PUT", own, &owner.token, Some(json!({"maxSessions": wanted}))).await;
        assert_eq!((set.status, &set.body["maxSessions"]), (200, &holds.into()));
    }
}

#[tokio::test]
async fn groups_are_read_by_members_written_by_their_admins_and_unknown_to_others() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let (lead, user) =
        (world.somebody("acme", OrgRole::User).await, world.somebody("acme", OrgRole::Viewer).await);
    let top = team(&world, &owner, "top", None).await;
    let low = team(&world, &owner, "low", Some(&top)).await;
    let members = format!("/api/v1/groups/{top}/members");
    let admin = Some(json!({"userId": lead.id, "role": "admin"}));
    assert_eq!(world.call("POST", &members, &owner.token, admin).await.status, 201);
    let add = |role: &str| Some(json!({"userId": user.id, "role": role}));
    world.call("POST", &members, &lead.token, add("owner")).await.refused(403, "E_FORBIDDEN");
    assert_eq!(world.call("POST", &members, &lead.token, add("member")).await.status, 201);
    assert_eq!(world.call("POST", &members, &lead.token, add("admin")).await.status, 200);
    let one = format!("{members}/{}", user.id);
    let down = Some(json!({"role": "member"}));
    assert_eq!(world.call("PATCH", &one, &lead.token, down.clone()).await.body["role"], "member");
    world.call("PATCH", &one, &user.token, Some(json!({"role": "admin"}))).await.refused(403, "E_FORBIDDEN");
    let refused = world.call("DELETE", &format!("/api/v1/groups/{top}"), &owner.token, None).await;
    refused.refused(409, "E_GROUP_HAS_CHILDREN");
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("low"), "{refused:?}");
    let cycle = Some(json!({"parentId": low}));
    world
        .call("PATCH", &format!("/api/v1/groups/{top}"), &owner.token, cycle)
        .await
        .refused(409, "E_GROUP_CYCLE");
    let listed = world.call("GET", "/api/v1/groups?limit=1", &user.token, None).await.body;
    assert_eq!((&listed["groups"][0]["name"], &listed["total"]), (&"low".into(), &2.into()));
    let rest = format!("/api/v1/groups?cursor={}", listed["nextCursor"].as_str().unwrap());
    assert_eq!(world.call("GET", &rest, &user.token, None).await.body["groups"][0]["memberCount"], 2);
    let theirs = format!("/api/v1/users/{}/groups", user.id);
    assert_eq!(world.call("GET", &theirs, &user.token, None).await.body["groups"][0]["groupName"], "top");
    world.call("GET", &theirs, &lead.token, None).await.refused(403, "E_FORBIDDEN");
    let stranger = world.somebody("rival", OrgRole::Admin).await;
    assert_eq!(world.call("GET", "/api/v1/groups", &stranger.token, None).await.body["groups"], json!([]));
    world
        .call("GET", &format!("/api/v1/groups/{top}"), &stranger.token, None)
        .await
        .refused(404, "E_NOT_FOUND");
    assert_eq!(world.call("DELETE", &one, &lead.token, None).await.status, 204);
    let lift = format!("/api/v1/groups/{top}?children=lift");
    assert_eq!(world.call("DELETE", &lift, &owner.token, None).await.status, 204);
    let low = world.call("GET", &format!("/api/v1/groups/{low}"), &owner.token, None).await.body;
    assert_eq!(low["parentId"], Value::Null);
}

#[tokio::test]
async fn a_repeat_with_the_same_idempotency_key_makes_one_group() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let headers = [
        ("Authorization", format!("Bearer {}", owner.token)),
        ("X-Tidegate-Org", "acme".to_owned()),
        ("Idempotency-Key", "one".to_owned()),
    ];
    let body = json!({"name": "crew", "displayName": "Crew", "type": "project"}).to_string();
    let answers = [
        world.raw("POST", "/api/v1/groups", &headers, body.as_bytes()).await,
        world.raw("POST", "/api/v1/groups", &headers, body.as_bytes()).await,
    ];
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    assert_eq!(answers[0].body["id"], answers[1].body["id"]);
    let all = join_all((0..4).map(|_| {
        world.call("POST", "/api/v1/groups", &owner.token, Some(serde_json::from_str(&body).unwrap()))
    }))
    .await;
    assert!(all.iter().all(|answer| answer.body["error"]["code"] == "E_GROUP_TAKEN"), "{all:?}");
}
