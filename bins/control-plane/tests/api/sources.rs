//! Sources, pipes and grants over HTTP: whose they are, what is refused and in which words.

use serde_json::{Value, json};
use tidegate_model::OrgRole;

use crate::support::{Answer, Somebody, World};

struct Stand {
    world: World,
    owner: Somebody,
    friend: Somebody,
}

impl Stand {
    /// An organization with two members, one of whom has a terminal called `build`.
    async fn new() -> Self {
        let world = World::new().await;
        let owner = world.somebody("acme", OrgRole::User).await;
        let friend = world.somebody("acme", OrgRole::User).await;
        let stand = Self { world, owner, friend };
        let made = stand.ask("POST", "/sources", json!({"handle": "build", "kind": "pty"})).await;
        assert_eq!(made.status, 201, "{made:?}");
        stand
    }

    async fn ask_as(&self, who: &Somebody, method: &str, path: &str, body: Value) -> Answer {
        let body = (!body.is_null()).then_some(body);
        self.world.call(method, &format!("/api/v1{path}"), &who.token, body).await
    }

    /// As the owner.
    async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask_as(&self.owner, method, path, body).await
    }
}

#[tokio::test]
async fn a_source_is_made_found_and_ended_and_another_one_may_have_its_handle() {
    let stand = Stand::new().await;
    let seen = stand.ask_as(&stand.friend, "GET", "/sources/build", Value::Null).await;
    assert_eq!((seen.status, &seen.body["kind"]), (200, &json!("pty")), "{seen:?}");
    assert_eq!(seen.body["createdBy"], stand.owner.id.as_str());
    assert_eq!(seen.body["createdByUsername"], stand.owner.name.as_str());
    assert_eq!((&seen.body["lastMessageAt"], &seen.body["lastMessage"]), (&Value::Null, &Value::Null));
    let taken = stand.ask_as(&stand.friend, "POST", "/sources", json!({"handle": "build"})).await;
    taken.refused(409, "E_SOURCE_TAKEN");
    for handle in ["alpha", "zebra"] {
        let made = stand.ask_as(&stand.friend, "POST", "/sources", json!({"handle": handle})).await;
        assert_eq!((made.status, &made.body["kind"]), (201, &json!("message")), "{made:?}");
    }
    let first = stand.ask("GET", "/sources?limit=2", Value::Null).await.body;
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = stand.ask("GET", &format!("/sources?limit=2&cursor={cursor}"), Value::Null).await.body;
    let both = [&first, &second].map(|page| page["sources"].as_array().unwrap().clone()).concat();
    let handles: Vec<&str> = both.iter().map(|source| source["handle"].as_str().unwrap()).collect();
    assert_eq!((handles, &first["total"]), (vec!["alpha", "build", "zebra"], &json!(3)));
    assert_eq!(second["nextCursor"], Value::Null);

    stand.ask_as(&stand.friend, "DELETE", "/sources/build", Value::Null).await.refused(403, "E_FORBIDDEN");
    assert_eq!(stand.ask("DELETE", "/sources/build", Value::Null).await.status, 204);
    stand.ask("GET", "/sources/build", Value::Null).await.refused(404, "E_NOT_FOUND");
    let again = stand.ask_as(&stand.friend, "POST", "/sources", json!({"handle": "build"})).await;
    assert_eq!(again.status, 201, "{again:?}");
    assert_ne!(again.body["id"], seen.body["id"]);
}

#[tokio::test]
async fn what_is_called_wrongly_is_refused_in_a_word_of_its_own_with_every_bad_field() {
    let stand = Stand::new().await;
    for (body, code, fields) in [
        (json!({"handle": "No"}), "E_INVALID_HANDLE", vec!["handle"]),
        (json!({"handle": "inbox", "kind": "db"}), "E_INVALID_HANDLE", vec!["handle", "kind"]),
        (json!({}), "E_INVALID_HANDLE", vec!["handle"]),
        (json!({"handle": "fine", "kind": "db"}), "E_INVALID_KIND", vec!["kind"]),
        (json!({"handle": "fine", "odd": 1}), "E_INVALID", vec!["odd"]),
    ] {
        let answer = stand.ask("POST", "/sources", body).await;
        assert_eq!(answer.refused(400, code).fields(), fields);
    }
    for (body, code, fields) in [
        (json!({"name": "stdout"}), "E_INVALID_PIPE", vec!["name"]),
        (json!({"name": "system", "ttlSeconds": 0}), "E_INVALID_PIPE", vec!["name", "ttlSeconds"]),
        (json!({"name": "room", "maxMsgs": 0, "maxBytes": 1}), "E_INVALID", vec!["maxBytes", "maxMsgs"]),
        (json!({"name": "room", "maxBytes": 1_i64 << 50}), "E_INVALID", vec!["maxBytes"]),
    ] {
        let answer = stand.ask("POST", "/sources/build/pipes", body.clone()).await;
        assert_eq!(answer.refused(400, code).fields(), fields, "{body}");
    }
    let auto = "/sources/build/pipes/stdout";
    stand.ask("PATCH", auto, json!({"ttlSeconds": 60})).await.refused(400, "E_INVALID_PIPE");
    stand.ask("DELETE", auto, Value::Null).await.refused(400, "E_INVALID_PIPE");
    let targets = json!({"everyone": true, "username": "ada", "right": "own"});
    let answer = stand.ask("POST", "/sources/build/grants", targets).await;
    assert_eq!(answer.refused(400, "E_INVALID").fields(), ["right", "username"]);
}

#[tokio::test]
async fn a_pipe_keeps_what_it_is_told_and_the_default_for_the_rest() {
    let stand = Stand::new().await;
    let pipes = "/sources/build/pipes";
    let made = stand.ask("POST", pipes, json!({"name": "room", "ttlSeconds": 60, "maxMsgs": 7})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let kept = json!({"ttlSeconds": 60, "maxMsgs": 7, "maxBytes": 16 << 20});
    assert_eq!((&made.body["retention"], &made.body["maxBytes"]), (&kept, &Value::Null), "{made:?}");
    assert_eq!(made.body["inForce"], Value::Null, "nothing is reserved before somebody uses it");
    stand.ask("POST", pipes, json!({"name": "room"})).await.refused(409, "E_PIPE_TAKEN");
    let change = json!({"ttlSeconds": null, "maxBytes": 2_048});
    let changed = stand.ask("PATCH", &format!("{pipes}/room"), change).await;
    let kept = json!({"ttlSeconds": 86_400, "maxMsgs": 7, "maxBytes": 2_048});
    assert_eq!((changed.status, &changed.body["retention"]), (200, &kept), "{changed:?}");
    let bad = stand.ask("PATCH", &format!("{pipes}/room"), json!({"maxMsgs": -1, "name": "x"})).await;
    assert_eq!(bad.refused(400, "E_INVALID").fields(), ["maxMsgs", "name"]);

    let listed = stand.ask_as(&stand.friend, "GET", pipes, Value::Null).await.body;
    let names: Vec<&str> =
        listed["pipes"].as_array().unwrap().iter().map(|pipe| pipe["name"].as_str().unwrap()).collect();
    assert_eq!((names, &listed["total"]), (vec!["stdin", "stdout", "stdctrl", "inbox", "room"], &json!(5)));
    assert_eq!(
        (&listed["pipes"][4]["retention"], &listed["pipes"][4]["auto"]),
        (&kept, &json!(false)),
        "{listed}"
    );
    stand.ask_as(&stand.friend, "POST", pipes, json!({"name": "hall"})).await.refused(403, "E_FORBIDDEN");
    assert_eq!(stand.ask("DELETE", &format!("{pipes}/room"), Value::Null).await.status, 204);
    for (method, body) in [("DELETE", Value::Null), ("PATCH", json!({})), ("PATCH", json!({"odd": 1}))] {
        stand.ask(method, &format!("{pipes}/room"), body).await.refused(404, "E_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_right_is_given_once_shown_to_the_owner_and_taken_away() {
    let stand = Stand::new().await;
    let grants = "/sources/build/grants";
    let right = json!({"username": stand.friend.name.to_uppercase(), "right": "type"});
    let given = stand.ask("POST", grants, right.clone()).await;
    assert_eq!((given.status, &given.body["userId"]), (201, &json!(stand.friend.id)), "{given:?}");
    let again = stand.ask("POST", grants, right).await;
    assert_eq!((again.status, &again.body), (200, &given.body), "{again:?}");
    let all = stand.ask("POST", grants, json!({"everyone": true, "right": "read"})).await;
    assert_eq!((all.status, &all.body["everyone"]), (201, &json!(true)), "{all:?}");
    let listed = stand.ask("GET", grants, Value::Null).await.body;
    assert_eq!((&listed["total"], &listed["grants"][0]), (&json!(2), &given.body));
    stand.ask_as(&stand.friend, "GET", grants, Value::Null).await.refused(403, "E_FORBIDDEN");
    let mine = stand.ask("POST", grants, json!({"userId": stand.owner.id, "right": "read"})).await;
    assert_eq!(mine.refused(400, "E_INVALID").fields(), ["userId"]);
    let nobody = stand.ask("POST", grants, json!({"group": "nobody", "right": "read"})).await;
    nobody.refused(404, "E_NOT_FOUND");

    let path = format!("{grants}/{}", given.body["id"].as_str().unwrap());
    stand.ask_as(&stand.friend, "DELETE", &path, Value::Null).await.refused(403, "E_FORBIDDEN");
    let manager = stand.world.somebody("acme", OrgRole::Maintainer).await;
    assert_eq!(stand.ask_as(&manager, "DELETE", &path, Value::Null).await.status, 204);
    stand.ask("DELETE", &path, Value::Null).await.refused(404, "E_NOT_FOUND");
    let by = "SELECT actor || ' ' || (before ->> 'createdBy') FROM audit_log WHERE action = 'source.revoke'";
    let line: String = stand.world.db.look(by).await;
    assert_eq!(line, format!("user:{} {}", manager.id, stand.owner.id), "whose source it was is told");
}

#[tokio::test]
async fn a_repeat_with_a_key_makes_nothing_twice_and_the_source_is_part_of_it() {
    let stand = Stand::new().await;
    let keyed = async |path: &str, key: &str, body: Value| {
        let credential = format!("Bearer {}", stand.owner.token);
        let headers = [("Authorization", credential), ("Idempotency-Key", key.to_owned())];
        stand.world.raw("POST", &format!("/api/v1{path}"), &headers, body.to_string().as_bytes()).await
    };
    for (path, body) in [
        ("/sources", json!({"handle": "other"})),
        ("/sources/build/pipes", json!({"name": "room", "ttlSeconds": 60})),
        ("/sources/build/grants", json!({"everyone": true, "right": "write"})),
    ] {
        let first = keyed(path, "one", body.clone()).await;
        assert_eq!(first.status, 201, "{first:?}");
        let again = keyed(path, "one", body.clone()).await;
        assert_eq!((again.status, &again.body), (201, &first.body), "{path}");
        if path != "/sources" {
            let elsewhere = keyed(&path.replace("build", "other"), "one", body).await;
            elsewhere.refused(409, "E_IDEMPOTENCY_MISMATCH");
        }
    }
}

#[tokio::test]
async fn another_organization_finds_none_of_it() {
    let stand = Stand::new().await;
    stand.ask("POST", "/sources/build/pipes", json!({"name": "room"})).await;
    let grant = stand.ask("POST", "/sources/build/grants", json!({"everyone": true, "right": "read"})).await;
    let grant = format!("/sources/build/grants/{}", grant.body["id"].as_str().unwrap());
    let rival = stand.world.somebody("rival", OrgRole::Admin).await;
    for (method, path, body) in [
        ("GET", "/sources/build", Value::Null),
        ("DELETE", "/sources/build", Value::Null),
        ("GET", "/sources/build/pipes", Value::Null),
        ("POST", "/sources/build/pipes", json!({"name": "hall"})),
        ("PATCH", "/sources/build/pipes/room", json!({"ttlSeconds": 60})),
        ("DELETE", "/sources/build/pipes/room", Value::Null),
        ("GET", "/sources/build/grants", Value::Null),
        ("POST", "/sources/build/grants", json!({"everyone": true, "right": "read"})),
        ("DELETE", grant.as_str(), Value::Null),
    ] {
        stand.ask_as(&rival, method, path, body).await.refused(404, "E_NOT_FOUND");
    }
    assert_eq!(stand.ask_as(&rival, "GET", "/sources", Value::Null).await.body["total"], 0);
    let theirs = stand.ask_as(&rival, "POST", "/sources", json!({"handle": "build"})).await;
    assert_eq!(theirs.status, 201, "a handle is an organization's own: {theirs:?}");
}

#[tokio::test]
async fn a_key_reads_and_makes_sources_as_its_scopes_say() {
    let stand = Stand::new().await;
    let admin = stand.world.somebody("acme", OrgRole::Admin).await;
    let key = async |scopes: Value| {
        let body = json!({"label": "ci", "scopes": scopes});
        let made = stand.ask_as(&admin, "POST", "/organizations/acme/keys", body).await;
        Somebody {
            token: made.body["plaintext"].as_str().unwrap().to_owned(),
            id: String::new(),
            name: String::new(),
        }
    };
    let (reader, writer) = (key(json!(["pipes:read"])).await, key(json!(["pipes:write"])).await);
    let stranger = key(json!(["sessions:write"])).await;
    for (who, reads, writes) in [(&reader, 200, 403), (&writer, 200, 201), (&stranger, 403, 403)] {
        assert_eq!(stand.ask_as(who, "GET", "/sources/build", Value::Null).await.status, reads);
        let made = stand.ask_as(who, "POST", "/sources", json!({"handle": "fresh"})).await;
        assert_eq!(made.status, writes, "{made:?}");
    }
}
