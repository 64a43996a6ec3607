//! Users over HTTP: made and changed by whoever may, and gone at once when they are deactivated.

use serde_json::{Value, json};
use tidegate_model::OrgRole;

use crate::support::World;

const USERS: &str = "/api/v1/users";
const ADMIN: &str = "/api/v1/admin/users";
const PASSWORD: &str = "tidewater gate";

fn wanted(name: &str) -> Value {
    json!({"username": name, "email": format!("{name}@example.com"), "fullName": "Some Body", "password": PASSWORD})
}

async fn login(world: &World, name: &str, password: &str) -> crate::support::Answer {
    let body = json!({"username": name, "password": password});
    world.call("POST", "/api/v1/auth/login", "", Some(body)).await
}

async fn token(world: &World, name: &str) -> String {
    login(world, name, PASSWORD).await.body["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_org_admin_makes_lists_changes_and_deactivates_a_user() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let call = async |method: &str, path: &str, body| {
        let auth =
            vec![("Authorization", format!("Bearer {}", owner.token)), ("X-Tidegate-Org", "acme".to_owned())];
        world.raw(method, path, &auth, body_of(body).as_bytes()).await
    };
    let made = call("POST", USERS, Some(wanted("alice"))).await;
    assert_eq!(
        (made.status, &made.body["mode"], &made.body["orgRole"]),
        (201, &"internal".into(), &"user".into())
    );
    assert!(!made.body.to_string().contains("argon2"), "{made:?}");
    call("POST", USERS, Some(wanted("ALICE"))).await.refused(409, "E_USERNAME_TAKEN");
    let mut taken = wanted("robert");
    taken["email"] = "ALICE@example.com".into();
    call("POST", USERS, Some(taken)).await.refused(409, "E_EMAIL_TAKEN");
    let bad = call("POST", USERS, Some(json!({"username": "a b", "role": "king"}))).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["email", "fullName", "password", "role", "username"]);
    let mut above = wanted("robert");
    above["role"] = "admin".into();
    call("POST", USERS, Some(above)).await.refused(403, "E_FORBIDDEN");
    let mut saml = wanted("robert");
    saml.as_object_mut().unwrap().remove("password");
    saml["provider"] = "saml".into();
    let saml = call("POST", USERS, Some(saml)).await;
    assert!(saml.body["notice"].as_str().unwrap().contains("SAML"), "{saml:?}");
    login(&world, "robert", PASSWORD).await.refused(401, "E_INVALID_CREDENTIALS");
    let found = call("GET", &format!("{USERS}?search=ALI"), None).await;
    assert_eq!((&found.body["total"], &found.body["users"][0]["username"]), (&1.into(), &"alice".into()));

    let path = format!("{USERS}/{}", made.body["id"].as_str().unwrap());
    let alice = token(&world, "Alice").await;
    assert_eq!(
        call("PATCH", &path, Some(json!({"email": null}))).await.refused(400, "E_INVALID").fields(),
        ["email"]
    );
    let named = call("PATCH", &path, Some(json!({"fullName": "Alice Smith"}))).await;
    assert_eq!((named.status, &named.body["fullName"]), (200, &"Alice Smith".into()));
    assert_eq!(call("GET", &format!("{path}/sessions"), None).await.body["sessions"], json!([]));
    assert_eq!(call("PATCH", &path, Some(json!({"active": false}))).await.body["active"], false);
    world.call("GET", "/api/v1/users/me", &alice, None).await.refused(401, "E_UNAUTHENTICATED");
    login(&world, "alice", PASSWORD).await.refused(401, "E_INVALID_CREDENTIALS");
    assert_eq!(call("DELETE", &path, None).await.status, 204);
    call("GET", &path, None).await.refused(404, "E_NOT_FOUND");
}

fn body_of(body: Option<Value>) -> String {
    body.map(|body| body.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn a_repeat_with_an_idempotency_key_makes_nobody_else() {
    let world = World::new().await;
    let admin = world.member("acme", OrgRole::Admin).await;
    let headers = [("Authorization", format!("Bearer {admin}")), ("Idempotency-Key", "one".to_owned())];
    let ask = async |body: Value| world.raw("POST", USERS, &headers, body.to_string().as_bytes()).await;
    let (one, two) = (ask(wanted("alice")).await, ask(wanted("alice")).await);
    assert_eq!((one.status, two.status, &one.body), (201, 201, &two.body));
    ask(wanted("robert")).await.refused(409, "E_IDEMPOTENCY_MISMATCH");
}

#[tokio::test]
async fn nobody_raises_themself_and_lower_roles_reset_no_higher_ones() {
    let world = World::new().await;
    let (admin, operator) = (world.admin().await, world.operator().await);
    let me = world.call("GET", "/api/v1/users/me", &operator, None).await.body["id"].clone();
    let raise = Some(json!({"role": "admin"}));
    world.call("PATCH", "/api/v1/users/me", &operator, raise.clone()).await.refused(403, "E_FORBIDDEN");
    for path in [USERS, ADMIN] {
        let own = format!("{path}/{}", me.as_str().unwrap());
        world.call("PATCH", &own, &operator, raise.clone()).await.refused(403, "E_FORBIDDEN");
    }
    let boss = world.call("GET", "/api/v1/users/me", &admin, None).await.body["id"].clone();
    let boss = format!("{ADMIN}/{}", boss.as_str().unwrap());
    let reset = || Some(json!({"password": "another long password"}));
    world.call("POST", &format!("{boss}/password"), &operator, reset()).await.refused(403, "E_FORBIDDEN");
    world.call("PATCH", &boss, &operator, Some(json!({"active": false}))).await.refused(403, "E_FORBIDDEN");
    world.call("DELETE", &boss, &operator, None).await.refused(403, "E_FORBIDDEN");
    for change in [json!({"active": false}), json!({"role": "user"})] {
        world.call("PATCH", &boss, &admin, Some(change)).await.refused(409, "E_LAST_ADMIN");
    }
    world.call("DELETE", &boss, &admin, None).await.refused(409, "E_LAST_ADMIN");
    let own = format!("{ADMIN}/{}", me.as_str().unwrap());
    assert_eq!(world.call("POST", &format!("{own}/password"), &admin, reset()).await.status, 204);
    world.call("GET", "/api/v1/users/me", &operator, None).await.refused(401, "E_UNAUTHENTICATED");
    let mut new = wanted("carol");
    new["organization"] = "ops".into();
    let made = world.call("POST", ADMIN, &admin, Some(new)).await;
    assert_eq!((made.status, &made.body["organizations"]), (201, &json!(["ops"])));
    let member = world.member("acme", OrgRole::Admin).await;
    world.call("GET", ADMIN, &member, None).await.refused(403, "E_FORBIDDEN");
}

#[tokio::test]
async fn one_changes_ones_password_and_ends_ones_logins() {
    let world = World::new().await;
    let admin = world.member("acme", OrgRole::Admin).await;
    assert_eq!(world.call("POST", USERS, &admin, Some(wanted("alice"))).await.status, 201);
    let (here, there, third) =
        (token(&world, "alice").await, token(&world, "alice").await, token(&world, "alice").await);
    let logins = world.call("GET", "/api/v1/auth/logins", &here, None).await.body;
    assert_eq!((&logins["total"], &logins["logins"][2]["current"]), (&3.into(), &true.into()));
    let newest = format!("/api/v1/auth/logins/{}", logins["logins"][0]["id"].as_str().unwrap());
    world.call("DELETE", &newest, &admin, None).await.refused(404, "E_NOT_FOUND");
    assert_eq!(world.call("DELETE", &newest, &here, None).await.status, 204);
    world.call("GET", "/api/v1/users/me", &third, None).await.refused(401, "E_UNAUTHENTICATED");
    let change = |current: &str, new: &str| Some(json!({"currentPassword": current, "newPassword": new}));
    let path = "/api/v1/auth/password";
    let short = world.call("POST", path, &here, change(PASSWORD, "short")).await;
    assert_eq!(short.refused(400, "E_INVALID").fields(), ["newPassword"]);
    world
        .call("POST", path, &here, change("wrong", "a new password"))
        .await
        .refused(401, "E_INVALID_CREDENTIALS");
    assert_eq!(world.call("POST", path, &here, change(PASSWORD, "a new password")).await.status, 204);
    assert_eq!(world.call("GET", "/api/v1/users/me", &here, None).await.status, 200);
    world.call("GET", "/api/v1/users/me", &there, None).await.refused(401, "E_UNAUTHENTICATED");
    login(&world, "alice", PASSWORD).await.refused(401, "E_INVALID_CREDENTIALS");
    assert_eq!(login(&world, "alice", "a new password").await.status, 200);
}

#[tokio::test]
async fn another_address_of_ones_own_takes_the_password_in_force() {
    let world = World::new().await;
    let admin = world.member("acme", OrgRole::Admin).await;
    let made = world.call("POST", USERS, &admin, Some(wanted("alice"))).await;
    let (me, path) = (token(&world, "alice").await, format!("{USERS}/{}", made.body["id"].as_str().unwrap()));
    for path in ["/api/v1/users/me", &path] {
        let change = async |body: Value| world.call("PATCH", path, &me, Some(body)).await;
        let bare = change(json!({"email": "thief@example.com"})).await;
        assert_eq!(bare.refused(400, "E_INVALID").fields(), ["currentPassword"], "{path}");
        let wrong = json!({"email": "thief@example.com", "currentPassword": "a wrong password"});
        change(wrong).await.refused(401, "E_INVALID_CREDENTIALS");
        assert_eq!(
            change(json!({"email": "alice@example.com", "fullName": "Alice"})).await.status,
            200,
            "{path}"
        );
        assert_eq!(change(json!({"email": "a@example.com", "currentPassword": PASSWORD})).await.status, 200);
        assert_eq!(
            change(json!({"email": "alice@example.com", "currentPassword": PASSWORD})).await.status,
            200
        );
    }
    let log: i64 =
        world.db.look(&format!("SELECT count(*) FROM audit_log a WHERE a::text LIKE '%{PASSWORD}%'")).await;
    assert_eq!(log, 0);
}

#[tokio::test]
async fn one_user_is_shown_with_their_quota_and_their_groups() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let member = world.somebody("acme", OrgRole::User).await;
    let (me, one) = ("/api/v1/users/me", format!("{USERS}/{}", member.id));
    let bare = world.call("GET", me, &member.token, None).await.body;
    assert_eq!((&bare["quota"], &bare["groups"]), (&Value::Null, &json!([])));
    let group = json!({"name": "team", "displayName": "The team", "type": "team"});
    let group = world.call("POST", "/api/v1/groups", &owner.token, Some(group)).await.body["id"].clone();
    let path = format!("/api/v1/groups/{}/members", group.as_str().unwrap());
    let put = world.call("POST", &path, &owner.token, Some(json!({"userId": member.id}))).await;
    let id = put.body["id"].clone();
    assert!(id.is_string(), "{put:?}");
    let again =
        world.call("POST", &path, &owner.token, Some(json!({"userId": member.id, "role": "admin"}))).await;
    assert_eq!((&again.body["id"], &again.body["role"]), (&id, &json!("admin")));
    let listed = world.call("GET", &path, &owner.token, None).await.body;
    assert_eq!(listed["members"][0]["id"], id);
    let quota =
        world.call("PUT", &format!("{one}/quota"), &owner.token, Some(json!({"maxSessions": 3}))).await;
    assert_eq!(quota.status, 200, "{quota:?}");
    for (path, token) in [(me, &member.token), (one.as_str(), &owner.token)] {
        let shown = world.call("GET", path, token, None).await.body;
        assert_eq!(
            (&shown["quota"]["maxSessions"], &shown["groups"]),
            (&3.into(), &json!([group])),
            "{path}"
        );
    }
    let all = world.call("GET", USERS, &owner.token, None).await.body;
    assert!(all["users"].as_array().unwrap().iter().all(|user| user.get("groups").is_none()), "{all}");
}
