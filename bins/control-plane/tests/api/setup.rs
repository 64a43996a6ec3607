//! The first admin over HTTP: once, whoever asks at the same time.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::World;

const PATH: &str = "/api/v1/auth/setup";

fn body(username: &str) -> Value {
    json!({"username": username, "password": "tidewater gate", "passwordConfirm": "tidewater gate",
           "email": format!("{username}@example.com")})
}

#[tokio::test]
async fn of_thirty_two_who_set_up_at_once_exactly_one_wins() {
    let world = World::new().await;
    let names: Vec<String> = (0..32).map(|number| format!("admin-{number}")).collect();
    let answers = join_all(names.iter().map(|name| world.call("POST", PATH, "", Some(body(name))))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 31), "{won:?}");
    for answer in lost {
        answer.refused(409, "E_ALREADY_SET_UP");
    }
    assert_eq!(world.db.look::<i64>("SELECT count(*) FROM users").await, 1);
    assert_eq!(world.db.look::<i64>("SELECT count(*) FROM organizations").await, 1);
}

#[tokio::test]
async fn the_first_admin_logs_in_and_owns_the_organization_main() {
    let world = World::new().await;
    let status = world.call("GET", "/api/v1/auth/setup/status", "", None).await;
    assert_eq!(status.body["setupRequired"], true);
    let mut without_name = body("admin");
    without_name.as_object_mut().unwrap().remove("username");
    let made = world.call("POST", PATH, "", Some(without_name)).await;
    assert_eq!(
        (made.status, &made.body["username"], &made.body["organization"]),
        (200, &"admin".into(), &"main".into())
    );
    let login = json!({"username": "ADMIN", "password": "tidewater gate"});
    let tokens = world.call("POST", "/api/v1/auth/login", "", Some(login)).await;
    assert_eq!(tokens.body["user"]["orgId"], made.body["orgId"]);
    assert_eq!(
        (&tokens.body["user"]["role"], &tokens.body["user"]["orgRole"]),
        (&"admin".into(), &"org_admin".into())
    );
    assert_eq!(tokens.body["user"]["homeOrgId"], made.body["orgId"]);
    let status = world.call("GET", "/api/v1/auth/setup/status", "", None).await;
    assert_eq!(status.body["setupRequired"], false);
    world.call("POST", PATH, "", Some(body("other"))).await.refused(409, "E_ALREADY_SET_UP");
}

#[tokio::test]
async fn a_page_of_another_site_sets_nothing_up() {
    let world = World::new().await;
    let text = body("admin").to_string();
    for origin in ["https://evil.example", "null"] {
        let headers = [("Origin", origin.to_owned()), ("Content-Type", "text/plain".to_owned())];
        world.raw("POST", PATH, &headers, text.as_bytes()).await.refused(403, "E_ORIGIN");
    }
    assert_eq!(world.db.look::<i64>("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn a_bad_setup_names_every_bad_field() {
    let world = World::new().await;
    let bad = json!({"username": "a b", "password": "short", "passwordConfirm": "other", "email": "nowhere",
                     "organization": "-", "role": "admin"});
    let answer = world.call("POST", PATH, "", Some(bad)).await;
    answer.refused(400, "E_INVALID");
    assert_eq!(answer.fields(), ["email", "organization", "password", "passwordConfirm", "role", "username"]);
    let empty = world.call("POST", PATH, "", Some(json!({}))).await;
    assert_eq!(empty.fields(), ["email", "password", "passwordConfirm"]);
    assert_eq!(world.db.look::<i64>("SELECT count(*) FROM users").await, 0);
}
