//! Organizations: made, changed, given away, suspended and ended, by those who may.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_model::OrgRole;
use tidegate_test_support::eventually;

use crate::support::World;

const ALL: &str = "/api/v1/organizations";

fn new(name: &str) -> Value {
    json!({"name": name, "displayName": "Some Name"})
}

#[tokio::test]
async fn an_organization_is_made_owned_and_listed_by_name() {
    let world = World::new().await;
    let me = world.somebody("lobby", OrgRole::User).await;
    for name in ["zebra", "acme"] {
        assert_eq!(world.call("POST", ALL, &me.token, Some(new(name))).await.status, 201);
    }
    let acme = world.call("GET", "/api/v1/organizations/acme", &me.token, None).await.body;
    assert_eq!(
        (&acme["ownerUserId"], &acme["k8sNamespace"]),
        (&me.id.as_str().into(), &"tidegate-acme".into())
    );
    let first = world.call("GET", &format!("{ALL}?limit=2"), &me.token, None).await.body;
    let names = |page: &Value| -> Vec<(String, String)> {
        let one =
            |org: &Value| (org["name"].as_str().unwrap().into(), org["orgRole"].as_str().unwrap().into());
        page["organizations"].as_array().unwrap().iter().map(one).collect()
    };
    let pair = |name: &str, role: &str| (name.to_owned(), role.to_owned());
    assert_eq!(names(&first), [pair("acme", "org_admin"), pair("lobby", "user")]);
    assert_eq!(first["total"], 3);
    let rest = format!("{ALL}?limit=2&cursor={}", first["nextCursor"].as_str().unwrap());
    let rest = world.call("GET", &rest, &me.token, None).await.body;
    assert_eq!((names(&rest), &rest["nextCursor"]), (vec![pair("zebra", "org_admin")], &Value::Null));
    world.call("POST", ALL, &me.token, Some(new("acme"))).await.refused(409, "E_ORGANIZATION_TAKEN");
    let bad = world.call("POST", ALL, &me.token, Some(json!({"name": "A", "k8sNamespace": "-"}))).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["displayName", "k8sNamespace", "name"]);
}

#[tokio::test]
async fn of_thirty_two_who_take_a_name_at_once_exactly_one_has_it() {
    let world = World::new().await;
    let me = world.somebody("lobby", OrgRole::User).await;
    let answers = join_all((0..32).map(|_| world.call("POST", ALL, &me.token, Some(new("acme"))))).await;
    let won = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(won, 1);
    answers.iter().filter(|answer| answer.status != 201).for_each(|answer| {
        answer.refused(409, "E_ORGANIZATION_TAKEN");
    });
}

#[tokio::test]
async fn only_org_admins_change_it_and_only_the_platform_suspends_it() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let path = "/api/v1/organizations/acme";
    let change = Some(json!({"displayName": "New Name", "description": "what for"}));
    let changed = world.call("PATCH", path, &owner.token, change.clone()).await;
    assert_eq!((changed.status, &changed.body["displayName"]), (200, &"New Name".into()));
    let cleared = world.call("PATCH", path, &owner.token, Some(json!({"description": null}))).await.body;
    assert_eq!((&cleared["description"], &cleared["displayName"]), (&"".into(), &"New Name".into()));
    for role in [OrgRole::Maintainer, OrgRole::User, OrgRole::Viewer] {
        let member = world.member("acme", role).await;
        world.call("PATCH", path, &member, change.clone()).await.refused(403, "E_FORBIDDEN");
        assert_eq!(world.call("GET", path, &member, None).await.status, 200);
    }
    for status in ["suspended", "deleted"] {
        let body = Some(json!({"status": status}));
        world.call("PATCH", path, &owner.token, body).await.refused(403, "E_FORBIDDEN");
    }
    let id = changed.body["id"].as_str().unwrap();
    let admin = format!("/api/v1/admin/organizations/{id}");
    let suspend = Some(json!({"status": "suspended"}));
    world.call("PATCH", &admin, &world.operator().await, suspend.clone()).await.refused(403, "E_FORBIDDEN");
    let root = world.admin().await;
    assert_eq!(world.call("PATCH", &admin, &root, suspend).await.body["status"], "suspended");
    world.call("GET", path, &owner.token, None).await.refused(404, "E_NOT_FOUND");
    assert_eq!(
        world.call("PATCH", &admin, &root, Some(json!({"status": "active"}))).await.body["status"],
        "active"
    );
    assert_eq!(world.call("GET", path, &owner.token, None).await.status, 200);
    let lines: i64 = world
        .db
        .look(&format!(
            "SELECT count(*) FROM audit_log WHERE org_id = '{id}' AND action = 'organization.status'"
        ))
        .await;
    assert_eq!(lines, 2, "it stands in the organization's own log");
    let end = json!({"status": "deleted", "displayName": "Gone", "k8sNamespace": "gone"});
    let refused = world.call("PATCH", &admin, &root, Some(end)).await;
    assert_eq!(refused.refused(400, "E_INVALID").fields(), ["displayName", "k8sNamespace"]);
    let both = json!({"status": "suspended", "displayName": "Both at once"});
    let both = world.call("PATCH", &admin, &root, Some(both)).await.body;
    assert_eq!((&both["status"], &both["displayName"]), (&"suspended".into(), &"Both at once".into()));
    let ended = world.call("PATCH", &admin, &root, Some(json!({"status": "deleted"}))).await.body;
    assert_eq!((&ended["status"], &ended["displayName"]), (&"deleted".into(), &"Both at once".into()));
}

#[tokio::test]
async fn an_organization_is_given_away_once() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let heirs = [world.somebody("acme", OrgRole::User).await, world.somebody("acme", OrgRole::Viewer).await];
    let path = "/api/v1/organizations/acme/transfer";
    let stranger = world.somebody("lobby", OrgRole::User).await;
    let to = |id: &str| Some(json!({"userId": id}));
    world.call("POST", path, &heirs[0].token, to(&heirs[0].id)).await.refused(403, "E_FORBIDDEN");
    world.call("POST", path, &owner.token, to(&stranger.id)).await.refused(404, "E_NOT_FOUND");
    let given =
        join_all((0..32).map(|number| world.call("POST", path, &owner.token, to(&heirs[number % 2].id))))
            .await;
    assert_eq!(given.iter().filter(|answer| answer.status == 200).count(), 1);
    given.iter().filter(|answer| answer.status != 200).for_each(|answer| {
        answer.refused(403, "E_FORBIDDEN");
    });
    let mine = [("X-Tidegate-Org", "acme".to_owned()), ("Authorization", format!("Bearer {}", owner.token))];
    let mine = world.raw("GET", "/api/v1/me/permissions", &mine, b"").await.body;
    assert_eq!((&mine["owner"], &mine["orgRole"]), (&false.into(), &"org_admin".into()));
}

#[tokio::test]
async fn an_organization_that_ends_stops_its_sessions_and_is_gone_for_everybody() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let owner = world.owner("acme").await;
    let member = world.somebody("acme", OrgRole::Admin).await;
    let made =
        world.call("POST", "/api/v1/sessions", &member.token, Some(json!({"template": "shell"}))).await;
    let session = made.body["session"]["id"].as_str().unwrap().to_owned();
    let org = made.body["session"]["orgId"].as_str().unwrap().to_owned();
    let switch = Some(json!({"organization": "acme"}));
    assert_eq!(world.call("POST", "/api/v1/auth/switch", &owner.token, switch).await.status, 200);
    let invite = Some(json!({"username": "somebody"}));
    assert_eq!(world.call("POST", &format!("{ALL}/acme/invites"), &owner.token, invite).await.status, 201);
    world.call("DELETE", &format!("{ALL}/acme"), &member.token, None).await.refused(403, "E_FORBIDDEN");
    assert_eq!(world.call("DELETE", &format!("{ALL}/acme"), &owner.token, None).await.status, 204);
    let state = format!("SELECT state FROM sessions WHERE id = '{session}'");
    eventually("the session has ended", async || world.db.look::<String>(&state).await == "terminated").await;
    world.call("GET", &format!("{ALL}/{org}"), &owner.token, None).await.refused(404, "E_NOT_FOUND");
    world.call("GET", "/api/v1/sessions", &member.token, None).await.refused(404, "E_NOT_FOUND");
    // The login that had chosen it is back where it was before.
    let me = world.call("GET", "/api/v1/me/permissions", &owner.token, None).await.body;
    assert_eq!(me["organization"], "lobby");
    let pending = "SELECT count(*) FROM invites WHERE status = 'pending'";
    assert_eq!(world.db.look::<i64>(pending).await, 0);
    let root = world.admin().await;
    let admin = format!("/api/v1/admin/organizations/{org}");
    world.call("PATCH", &admin, &root, Some(json!({"status": "active"}))).await.refused(404, "E_NOT_FOUND");
    world.call("DELETE", &admin, &root, None).await.refused(404, "E_NOT_FOUND");
}

#[tokio::test]
async fn admins_of_the_platform_make_give_and_end_organizations_of_others() {
    let world = World::new().await;
    let (root, owner) = (world.admin().await, world.somebody("lobby", OrgRole::User).await);
    let all = "/api/v1/admin/organizations";
    let body = json!({"name": "acme", "displayName": "For somebody", "owner": owner.name.to_uppercase()});
    let made = world.call("POST", all, &root, Some(body.clone())).await;
    assert_eq!((made.status, &made.body["ownerUserId"]), (201, &owner.id.as_str().into()));
    world.call("POST", all, &world.operator().await, Some(body)).await.refused(403, "E_FORBIDDEN");
    let path = format!("{all}/{}", made.body["id"].as_str().unwrap());
    let heir = world.somebody("acme", OrgRole::User).await;
    let given =
        world.call("POST", &format!("{path}/transfer"), &root, Some(json!({"userId": heir.id}))).await;
    assert_eq!((given.status, &given.body["ownerUserId"]), (200, &heir.id.as_str().into()));
    let listed = world.call("GET", all, &world.operator().await, None).await.body;
    assert_eq!((&listed["total"], &listed["organizations"][0]["name"]), (&3.into(), &"acme".into()));
    assert_eq!(world.call("DELETE", &path, &root, None).await.status, 204);
    world.call("GET", &path, &root, None).await.refused(404, "E_NOT_FOUND");
    let plain = world.member("lobby", OrgRole::Admin).await;
    for (method, path) in [("GET", all), ("GET", path.as_str()), ("PATCH", &path), ("DELETE", &path)] {
        world.call(method, path, &plain, Some(json!({}))).await.refused(403, "E_FORBIDDEN");
    }
}

#[tokio::test]
async fn who_loses_the_organization_they_chose_is_back_in_their_default() {
    let world = World::new().await;
    let (owner, other) = (world.owner("acme").await, world.owner("bolt").await);
    let me = world.somebody("lobby", OrgRole::User).await;
    for (org, by) in [("acme", &owner), ("bolt", &other)] {
        let path = format!("{ALL}/{org}/members");
        assert_eq!(world.call("POST", &path, &by.token, Some(json!({"userId": me.id}))).await.status, 201);
    }
    let choose = async |name: &str| {
        let body = Some(json!({"organization": name}));
        assert_eq!(world.call("POST", "/api/v1/auth/switch", &me.token, body).await.status, 200);
    };
    let here = async || {
        let answer = world.call("GET", "/api/v1/me/permissions", &me.token, None).await;
        answer.body["organization"].as_str().unwrap_or_default().to_owned()
    };
    let of_owner = async || {
        let answer = world.call("GET", "/api/v1/me/permissions", &owner.token, None).await;
        answer.body["organization"].as_str().unwrap_or_default().to_owned()
    };
    let body = Some(json!({"organization": "acme"}));
    assert_eq!(world.call("POST", "/api/v1/auth/switch", &owner.token, body).await.status, 200);
    choose("acme").await;
    assert_eq!(here().await, "acme");
    let member = format!("{ALL}/acme/members/{}", me.id);
    assert_eq!(world.call("DELETE", &member, &owner.token, None).await.status, 204);
    assert_eq!((here().await.as_str(), of_owner().await.as_str()), ("lobby", "acme"));
    let chosen = "SELECT count(*) FROM login_sessions WHERE org_id IS NOT NULL";
    assert_eq!(world.db.look::<i64>(chosen).await, 1, "the owner's alone");
    // Back in it, they have not chosen it.
    let path = format!("{ALL}/acme/members");
    assert_eq!(world.call("POST", &path, &owner.token, Some(json!({"userId": me.id}))).await.status, 201);
    assert_eq!(here().await, "lobby");
    choose("bolt").await;
    world.db.execute("UPDATE organizations SET status = 'suspended' WHERE name = 'bolt'").await;
    assert_eq!(here().await, "lobby", "a suspended one is no place to be");
    world.db.execute("UPDATE organizations SET status = 'active' WHERE name = 'bolt'").await;
    assert_eq!(here().await, "bolt");
}

#[tokio::test]
async fn the_default_organization_is_ones_own_until_another_one_is_chosen() {
    let world = World::new().await;
    let me = world.somebody("lobby", OrgRole::User).await;
    let here = async || {
        let me = world.call("GET", "/api/v1/me/permissions", &me.token, None).await.body;
        (me["organization"].as_str().unwrap().to_owned(), me["permissions"].as_array().unwrap().len())
    };
    let (name, few) = here().await;
    assert_eq!(name, "lobby");
    assert_eq!(world.call("POST", ALL, &me.token, Some(new("mine"))).await.status, 201);
    let (name, many) = here().await;
    assert!(name == "mine" && many > few, "{name} {many} {few}");
    let switched =
        world.call("POST", "/api/v1/auth/switch", &me.token, Some(json!({"organization": "lobby"}))).await;
    assert_eq!((switched.status, &switched.body["orgRole"]), (200, &"user".into()));
    assert_eq!(here().await.0, "lobby");
    drop(world.member("rival", OrgRole::User).await);
    for (other, status, code) in
        [("rival", 404, "E_NOT_FOUND"), ("nowhere", 404, "E_NOT_FOUND"), ("\u{0}", 400, "E_INVALID")]
    {
        let body = Some(json!({"organization": other}));
        world.call("POST", "/api/v1/auth/switch", &me.token, body).await.refused(status, code);
    }
    assert_eq!(here().await.0, "lobby");
}
