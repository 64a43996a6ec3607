//! Invites: one pending at a time, answered once, by whom they are for.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_model::OrgRole;

use crate::support::{Answer, Somebody, World};

const ALL: &str = "/api/v1/organizations/acme/invites";

async fn invite(world: &World, owner: &Somebody, body: Value) -> Answer {
    world.call("POST", ALL, &owner.token, Some(body)).await
}

fn id(answer: &Answer) -> String {
    answer.body["id"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

fn winners(answers: &[Answer], won: u16, code: &str) -> usize {
    answers.iter().filter(|answer| answer.status != won).for_each(|answer| {
        answer.refused(409, code);
    });
    answers.iter().filter(|answer| answer.status == won).count()
}

#[tokio::test]
async fn an_invite_is_seen_and_accepted_by_whom_it_is_for_in_whatever_case() {
    let world = World::new().await;
    let (owner, friend) = (world.owner("acme").await, world.somebody("lobby", OrgRole::User).await);
    let made =
        invite(&world, &owner, json!({"username": friend.name.to_uppercase(), "role": "viewer"})).await;
    assert_eq!(
        (made.status, &made.body["status"], &made.body["orgName"]),
        (201, &"pending".into(), &"acme".into())
    );
    let mine = world.call("GET", "/api/v1/invites", &friend.token, None).await.body;
    assert_eq!(
        (&mine["total"], &mine["invites"][0]["inviterUsername"]),
        (&1.into(), &owner.name.as_str().into())
    );
    assert_eq!(world.call("GET", "/api/v1/invites", &owner.token, None).await.body["total"], 0);
    let answers = join_all((0..32).map(|_| {
        let path = format!("/api/v1/invites/{}/accept", made.body["id"].as_str().unwrap());
        let (world, token) = (&world, &friend.token);
        async move { world.call("POST", &path, token, None).await }
    }))
    .await;
    assert_eq!(winners(&answers, 200, "E_INVITE_NOT_PENDING"), 1);
    let me = world.call("GET", "/api/v1/organizations", &friend.token, None).await.body;
    assert_eq!(
        (&me["organizations"][0]["name"], &me["organizations"][0]["orgRole"]),
        (&"acme".into(), &"viewer".into())
    );
    let listed = world.call("GET", ALL, &owner.token, None).await.body;
    assert_eq!((&listed["invites"][0]["status"], &listed["total"]), (&"accepted".into(), &1.into()));
    invite(&world, &owner, json!({"username": friend.name})).await.refused(409, "E_ALREADY_MEMBER");
}

#[tokio::test]
async fn of_thirty_two_invites_at_once_one_is_made() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let names = ["friend", "FRIEND", "Friend"];
    let answers =
        join_all((0..32).map(|number| invite(&world, &owner, json!({"username": names[number % 3]})))).await;
    assert_eq!(winners(&answers, 201, "E_INVITE_PENDING"), 1);
}

#[tokio::test]
async fn whose_it_is_comes_before_how_it_stands() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    let friend = world.somebody("lobby", OrgRole::User).await;
    let other = world.somebody("lobby", OrgRole::Admin).await;
    let made = id(&invite(&world, &owner, json!({"username": friend.name})).await);
    let answer = async |verb: &str, token: &str| {
        world.call("POST", &format!("/api/v1/invites/{made}/{verb}"), token, None).await
    };
    for verb in ["accept", "decline"] {
        answer(verb, &other.token).await.refused(403, "E_FORBIDDEN");
        answer(verb, &owner.token).await.refused(403, "E_FORBIDDEN");
    }
    assert_eq!(answer("decline", &friend.token).await.status, 204);
    for verb in ["accept", "decline"] {
        answer(verb, &other.token).await.refused(403, "E_FORBIDDEN");
        answer(verb, &friend.token).await.refused(409, "E_INVITE_NOT_PENDING");
    }
    let again = id(&invite(&world, &owner, json!({"username": friend.name})).await);
    let revoke = format!("{ALL}/{again}/revoke");
    assert_eq!(world.call("POST", &revoke, &owner.token, None).await.body["status"], "revoked");
    world.call("POST", &revoke, &owner.token, None).await.refused(409, "E_INVITE_NOT_PENDING");
    let accept = format!("/api/v1/invites/{again}/accept");
    world.call("POST", &accept, &friend.token, None).await.refused(409, "E_INVITE_NOT_PENDING");
    let nothing = format!("{ALL}/01970000-0000-7000-8000-000000000001/revoke");
    world.call("POST", &nothing, &owner.token, None).await.refused(404, "E_NOT_FOUND");
}

#[tokio::test]
async fn an_invite_past_its_time_opens_nothing_and_makes_room_for_a_new_one() {
    let world = World::new().await;
    let (owner, friend) = (world.owner("acme").await, world.somebody("lobby", OrgRole::User).await);
    let old = id(&invite(&world, &owner, json!({"username": friend.name, "expiresIn": "1m"})).await);
    world.db.execute("UPDATE invites SET expires_at = now() - interval '1 s'").await;
    let accept = format!("/api/v1/invites/{old}/accept");
    world.call("POST", &accept, &friend.token, None).await.refused(409, "E_INVITE_NOT_PENDING");
    assert_eq!(world.call("GET", "/api/v1/invites", &friend.token, None).await.body["total"], 0);
    let new = id(&invite(&world, &owner, json!({"username": friend.name})).await);
    let accept = format!("/api/v1/invites/{new}/accept");
    let accepted = world.call("POST", &accept, &friend.token, None).await;
    assert_eq!((accepted.status, &accepted.body["role"]), (200, &"user".into()));
}

#[tokio::test]
async fn only_org_admins_invite_and_a_repeat_with_the_same_key_invites_once() {
    let world = World::new().await;
    let owner = world.owner("acme").await;
    for role in [OrgRole::Maintainer, OrgRole::User, OrgRole::Viewer] {
        let member = world.somebody("acme", role).await;
        invite(&world, &member, json!({"username": "friend"})).await.refused(403, "E_FORBIDDEN");
        world.call("GET", ALL, &member.token, None).await.refused(403, "E_FORBIDDEN");
    }
    let headers =
        [("Authorization", format!("Bearer {}", owner.token)), ("Idempotency-Key", "one".to_owned())];
    let first = world.raw("POST", ALL, &headers, br#"{"username":"friend"}"#).await;
    let again = world.raw("POST", ALL, &headers, br#"{"username":"friend"}"#).await;
    assert_eq!((first.status, again.status, id(&first)), (201, 201, id(&again)));
    let other = world.raw("POST", ALL, &headers, br#"{"username":"others"}"#).await;
    other.refused(409, "E_IDEMPOTENCY_MISMATCH");
    let bad = invite(&world, &owner, json!({"username": "a b", "expiresIn": "0", "role": "owner"})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["expiresIn", "role", "username"]);
}
