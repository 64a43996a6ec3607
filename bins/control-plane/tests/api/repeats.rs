//! Repeats with an `Idempotency-Key`, wherever something is made.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_model::OrgRole;

use crate::support::{Answer, World};

async fn keyed(world: &World, token: &str, path: &str, key: &str, body: &Value) -> Answer {
    let headers = [("Authorization", format!("Bearer {token}")), ("Idempotency-Key", key.to_owned())];
    world.raw("POST", path, &headers, body.to_string().as_bytes()).await
}

#[tokio::test]
async fn what_is_made_is_made_once_for_a_key_and_another_body_is_refused() {
    let world = World::new().await;
    let (root, owner) = (world.admin().await, world.owner("acme").await);
    let (friend, other) =
        (world.somebody("lobby", OrgRole::User).await, world.somebody("lobby", OrgRole::User).await);
    let group = json!({"name": "team", "displayName": "The team", "type": "team"});
    let group = world.call("POST", "/api/v1/groups", &owner.token, Some(group)).await.body;
    let group = format!("/api/v1/groups/{}/members", group["id"].as_str().unwrap());
    let user = |name: &str| {
        let (email, password) = (format!("{name}@example.com"), "tidewater gate");
        json!({"username": name, "email": email, "fullName": "Some Body", "password": password})
    };
    let org = |name: &str, owner: Option<&str>| {
        let mut body = json!({"name": name, "displayName": "Some Name"});
        if let Some(owner) = owner {
            body["owner"] = owner.into();
        }
        body
    };
    for (token, path, body, another) in [
        (&owner.token, "/api/v1/organizations", org("one", None), org("two", None)),
        (
            &owner.token,
            "/api/v1/organizations/acme/members",
            json!({"userId": friend.id}),
            json!({"userId": other.id}),
        ),
        (&owner.token, group.as_str(), json!({"userId": friend.id}), json!({"userId": owner.id})),
        (&root, "/api/v1/admin/users", user("alice"), user("robert")),
        (
            &root,
            "/api/v1/admin/organizations",
            org("three", Some(&friend.name)),
            org("four", Some(&friend.name)),
        ),
        (
            &root,
            "/api/v1/admin/quotas",
            json!({"username": owner.name, "maxSessions": 3}),
            json!({"username": owner.name, "maxSessions": 4}),
        ),
    ] {
        let first = keyed(&world, token, path, "once", &body).await;
        assert!([200, 201].contains(&first.status), "{path}: {first:?}");
        let lines: i64 = world.db.look("SELECT count(*) FROM audit_log").await;
        let again = keyed(&world, token, path, "once", &body).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body), "{path}");
        assert_eq!(world.db.look::<i64>("SELECT count(*) FROM audit_log").await, lines, "{path}");
        keyed(&world, token, path, "once", &another).await.refused(409, "E_IDEMPOTENCY_MISMATCH");
    }
    // A key is somebody's own.
    let theirs = keyed(&world, &other.token, "/api/v1/organizations", "once", &org("two", None)).await;
    assert_eq!(theirs.status, 201, "{theirs:?}");
}

#[tokio::test]
async fn of_thirty_two_repeats_at_once_one_makes_it_and_all_hear_of_it() {
    let world = World::new().await;
    let me = world.somebody("lobby", OrgRole::User).await;
    let body = json!({"name": "acme", "displayName": "Some Name"});
    let asked = (0..32).map(|_| keyed(&world, &me.token, "/api/v1/organizations", "one", &body));
    let answers = join_all(asked).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (201, &answers[0].body), "{answer:?}");
    }
    assert_eq!(world.db.look::<i64>("SELECT count(*) FROM organizations WHERE name = 'acme'").await, 1);
}

#[tokio::test]
async fn a_key_is_good_again_after_its_day() {
    let world = World::new().await;
    let admin = world.member("acme", OrgRole::Admin).await;
    let group = |name: &str| json!({"name": name, "displayName": "Some Name", "type": "team"});
    assert_eq!(keyed(&world, &admin, "/api/v1/groups", "one", &group("first")).await.status, 201);
    let organization = json!({"name": "mine", "displayName": "Some Name"});
    assert_eq!(keyed(&world, &admin, "/api/v1/organizations", "one", &organization).await.status, 201);
    world
        .db
        .execute(
            "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours';
             UPDATE user_idempotency_keys SET created_at = created_at - interval '25 hours'",
        )
        .await;
    for (path, body) in [
        ("/api/v1/groups", group("second")),
        ("/api/v1/organizations", json!({"name": "ours", "displayName": "Some Name"})),
    ] {
        let headers = [
            ("Authorization", format!("Bearer {admin}")),
            ("X-Tidegate-Org", "acme".to_owned()),
            ("Idempotency-Key", "one".to_owned()),
        ];
        let made = world.raw("POST", path, &headers, body.to_string().as_bytes()).await;
        assert_eq!(made.status, 201, "{path}: {made:?}");
        let again = world.raw("POST", path, &headers, body.to_string().as_bytes()).await;
        assert_eq!((again.status, &again.body), (201, &made.body), "{path}");
    }
}
