//! Members: added, given roles and removed, and never so that nobody is left who may.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_model::OrgRole;
use tidegate_test_support::eventually;

use crate::support::World;

const ALL: &str = "/api/v1/organizations/acme/members";

#[tokio::test]
async fn a_member_is_added_by_name_or_id_and_a_repeat_gives_the_role() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let (one, two) =
        (world.somebody("lobby", OrgRole::User).await, world.somebody("lobby", OrgRole::User).await);
    let add = async |body: Value| world.call("POST", ALL, &owner.token, Some(body)).await;
    let added = add(json!({"username": one.name.to_uppercase(), "role": "viewer"})).await;
    assert_eq!(
        (added.status, &added.body["role"], &added.body["userId"]),
        (201, &"viewer".into(), &one.id.as_str().into())
    );
    assert_eq!(add(json!({"userId": two.id})).await.body["role"], "user");
    let again = add(json!({"userId": one.id, "role": "maintainer"})).await;
    assert_eq!((again.status, &again.body["role"]), (200, &"maintainer".into()));
    add(json!({"username": "nobody-at-all"})).await.refused(404, "E_NOT_FOUND");
    add(json!({"username": "a b"})).await.refused(404, "E_NOT_FOUND");
    let bad = add(json!({"role": "owner"})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["role", "userId"]);
    let listed = world.call("GET", &format!("{ALL}?limit=2"), &one.token, None).await.body;
    let names: Vec<&str> = listed["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["username"].as_str().unwrap())
        .collect();
    assert_eq!(names, [owner.name.as_str(), &one.name]);
    assert_eq!((&listed["members"][0]["owner"], &listed["total"]), (&true.into(), &3.into()));
    let rest = format!("{ALL}?cursor={}", listed["nextCursor"].as_str().unwrap());
    let rest = world.call("GET", &rest, &one.token, None).await.body;
    assert_eq!(rest["members"][0]["username"], two.name.as_str());
}

#[tokio::test]
async fn only_org_admins_manage_members() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    for role in [OrgRole::Maintainer, OrgRole::User, OrgRole::Viewer] {
        let member = world.somebody("acme", role).await;
        let own = format!("{ALL}/{}", member.id);
        let promote = Some(json!({"role": "org_admin"}));
        world.call("PATCH", &own, &member.token, promote.clone()).await.refused(403, "E_FORBIDDEN");
        let add = Some(json!({"userId": member.id, "role": "org_admin"}));
        world.call("POST", ALL, &member.token, add).await.refused(403, "E_FORBIDDEN");
        let theirs = format!("{ALL}/{}", owner.id);
        world.call("DELETE", &theirs, &member.token, None).await.refused(403, "E_FORBIDDEN");
        let promoted = world.call("PATCH", &own, &owner.token, promote).await;
        assert_eq!((promoted.status, &promoted.body["role"]), (200, &"org_admin".into()));
        assert_eq!(world.call("DELETE", &own, &member.token, None).await.status, 204, "anybody may leave");
    }
}

#[tokio::test]
async fn the_owner_and_the_last_org_admin_stay() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let admin = world.somebody("acme", OrgRole::Admin).await;
    let of_owner = format!("{ALL}/{}", owner.id);
    world.call("DELETE", &of_owner, &admin.token, None).await.refused(409, "E_OWNER");
    world.call("DELETE", &of_owner, &owner.token, None).await.refused(409, "E_OWNER");
    world.call("PATCH", &of_owner, &admin.token, Some(json!({"role": "user"}))).await.refused(409, "E_OWNER");
    // An organization of nobody has no owner to fall back on.
    let admins =
        [world.somebody("orphan", OrgRole::Admin).await, world.somebody("orphan", OrgRole::Admin).await];
    let path = |id: &str| format!("/api/v1/organizations/orphan/members/{id}");
    let down = || Some(json!({"role": "viewer"}));
    let both =
        join_all(admins.iter().map(async |me| world.call("PATCH", &path(&me.id), &me.token, down()).await))
            .await;
    let mut statuses: Vec<u16> = both.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{both:?}");
    let last = admins.iter().zip(&both).find(|(_, answer)| answer.status == 409).unwrap();
    last.1.refused(409, "E_LAST_ADMIN");
    world.call("DELETE", &path(&last.0.id), &last.0.token, None).await.refused(409, "E_LAST_ADMIN");
}

#[tokio::test]
async fn a_member_who_is_removed_is_out_at_once_and_their_sessions_end() {
    let world = World::new().await;
    let _agent = world.agent("vm-1").await;
    let owner = world.owner("acme").await;
    let member = world.somebody("acme", OrgRole::Admin).await;
    let other = world.somebody("acme", OrgRole::User).await;
    let ask = async |token: &str| {
        let made = world.call("POST", "/api/v1/sessions", token, Some(json!({"template": "shell"}))).await;
        made.body["session"]["id"].as_str().unwrap().to_owned()
    };
    let (theirs, others) = (ask(&member.token).await, ask(&other.token).await);
    let invite = Some(json!({"username": "friend"}));
    assert_eq!(
        world.call("POST", "/api/v1/organizations/acme/invites", &member.token, invite).await.status,
        201
    );
    let path = format!("{ALL}/{}", member.id);
    assert_eq!(world.call("DELETE", &path, &owner.token, None).await.status, 204);
    world
        .call("GET", &format!("/api/v1/sessions/{theirs}"), &member.token, None)
        .await
        .refused(404, "E_NOT_FOUND");
    world.call("GET", ALL, &member.token, None).await.refused(404, "E_NOT_FOUND");
    world.call("DELETE", &path, &owner.token, None).await.refused(404, "E_NOT_FOUND");
    let state = async |id: &str| {
        world.db.look::<String>(&format!("SELECT state FROM sessions WHERE id = '{id}'")).await
    };
    eventually("the session has ended", async || state(&theirs).await == "terminated").await;
    assert!(["pending", "running"].contains(&state(&others).await.as_str()));
    let sent: String = world.db.look("SELECT status FROM invites").await;
    assert_eq!(sent, "revoked", "what they sent opens nothing any more");
    let actions: i64 = world.db.look("SELECT count(*) FROM audit_log WHERE action = 'member.remove'").await;
    assert_eq!(actions, 1);
}
