//! Many rights to write to sources of others: what stands on a token for NATS, what is refused, and that nobody takes it from
//! another.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;

/// The pipes of others that a token names.
fn named(exchanged: &Exchanged) -> Vec<String> {
    let claims = exchanged.nats_user_jwt.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let subjects = claims["nats"]["pub"]["allow"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
    let pipe = |subject: &str| {
        let tokens: Vec<&str> = subject.split('.').collect();
        match tokens[..] {
            ["_R_", "*", handle, pipe, _] if handle != "*" => Some(format!("{handle}/{pipe}")),
            _ => None,
        }
    };
    subjects.filter_map(pipe).collect()
}

/// How many of a token's pipes are at sources whose handles begin so.
fn at(exchanged: &Exchanged, prefix: &str) -> usize {
    named(exchanged).iter().filter(|pipe| pipe.starts_with(prefix)).count()
}

#[track_caller]
fn too_many<T: std::fmt::Debug>(outcome: Result<T>) {
    match outcome {
        Err(Error::Conflict { code: "E_TOO_MANY_GRANTS", message }) => {
            assert!(message.contains("256"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

impl Stage {
    /// Somebody's sources with a right for everyone to type, as if they had been made and given one after the other.
    async fn given(&self, by: &Caller, handle: &str, numbers: std::ops::RangeInclusive<u32>) {
        let (org, maker) = (self.org.id, scope(by).user_id());
        let (from, to) = (numbers.start(), numbers.end());
        let sql = format!(
            "WITH made AS (INSERT INTO sources (id, org_id, created_by, handle, kind, created_at)
                SELECT gen_random_uuid(), '{org}', '{maker}', '{handle}' || g, 'pty', now() + g * interval '1 microsecond'
                FROM generate_series({from}, {to}) g RETURNING id, org_id, created_by)
             INSERT INTO source_grants (id, org_id, source_id, allows, granted_by, created_at)
             SELECT gen_random_uuid(), org_id, id, 'type', created_by, now() FROM made"
        );
        self.test.execute(&sql).await;
    }

    async fn make_by(&self, by: &Caller, handle: &str, kind: &str) {
        let request: CreateSourceRequest = read(json!({"handle": handle, "kind": kind}));
        let made = self.services.sources.create(scope(by), request, None, |_| json!(null)).await;
        assert!(matches!(made, Ok(Made::New(_))), "{made:?}");
    }

    async fn give_by(&self, by: &Caller, handle: &str, body: Value) -> Result<Granted> {
        let request: GrantSourceRequest = read(body);
        self.services.sources.grant(scope(by), handle, request, None, |_| json!(null)).await
    }

    async fn pipe_by(&self, by: &Caller, handle: &str, name: &str) -> Result<Made<tidegate_model::Pipe>> {
        let request: CreatePipeRequest = read(json!({"name": name}));
        self.services.pipes.create(scope(by), handle, request, None, |_| json!(null)).await
    }

    async fn exchange(&self, caller: &Caller) -> Exchanged {
        self.services.exchange.exchange_for(caller).await.unwrap()
    }

    async fn user(&self) -> Caller {
        self.test.caller(&self.test.user_in("acme", OrgRole::User).await).await
    }
}

#[tokio::test]
async fn a_token_names_256_pipes_of_others_and_says_how_many_it_leaves_out() {
    let stage = Stage::new().await;
    stage.given(&stage.owner, "shell-", 1..=128).await;
    let full = stage.exchange(&stage.friend).await;
    eprintln!("a token with 256 grants has {} bytes", full.nats_user_jwt.len());
    assert!(full.nats_user_jwt.len() <= 24 * 1024);
    assert_eq!((named(&full).len(), full.write_grants_left_out), (256, 0));
    client!(full).expect("NATS reads it");
    stage.given(&stage.owner, "shell-", 129..=129).await;
    let more = stage.exchange(&stage.friend).await;
    assert_eq!((named(&more), more.write_grants_left_out), (named(&full), 2), "the newest are left out");
    // Long names fill a token sooner.
    stage.test.execute("DELETE FROM sources").await;
    stage.given(&stage.owner, "shell-with-the-longest-name-", 101..=228).await;
    let long = stage.exchange(&stage.friend).await;
    let left_out = usize::try_from(long.write_grants_left_out).unwrap();
    eprintln!("a token with {} long grants has {} bytes", named(&long).len(), long.nats_user_jwt.len());
    assert!(left_out > 0 && named(&long).len() + left_out == 256, "{left_out}");
    assert!((23 * 1024..=24 * 1024).contains(&long.nats_user_jwt.len()));
    client!(long).expect("NATS reads it");
    // Whoever made them needs no grants.
    let own = stage.exchange(&stage.owner).await;
    assert!(own.nats_user_jwt.len() < 2_000 && own.write_grants_left_out == 0);
}

#[tokio::test]
async fn nobody_takes_the_way_to_nats_or_a_right_from_another_by_giving_rights_away() {
    let stage = Stage::new().await;
    stage.run();
    let attacker = stage.user().await;
    let name = format!("SELECT username FROM users WHERE id = '{}'", scope(&stage.friend).user_id());
    let target: String = stage.test.look(&name).await;
    stage.make("build", "message").await;
    stage.pipe_by(&stage.owner, "build", "results").await.unwrap();
    stage.grant("build", json!({"username": target, "right": "write"})).await;

    // 300 shells, for everyone to type into: as many as a token has room for, and not one more.
    let mut given = 0;
    for number in 1..=150 {
        let handle = format!("crowd-{number}");
        stage.make_by(&attacker, &handle, "pty").await;
        match stage.give_by(&attacker, &handle, json!({"everyone": true, "right": "type"})).await {
            Ok(Granted::New(_)) => given += 1,
            refused => {
                too_many(refused);
                too_many(
                    stage.give_by(&attacker, &handle, json!({"username": target, "right": "type"})).await,
                );
            }
        }
    }
    assert_eq!(given, 128);
    let again = stage.give_by(&attacker, "crowd-1", json!({"everyone": true, "right": "type"})).await;
    assert!(matches!(again, Ok(Granted::Known(_))), "what is given already is no more: {again:?}");
    // Nor by pipes that are made where a right was given before.
    stage.make_by(&attacker, "wall", "message").await;
    let wall = stage.give_by(&attacker, "wall", json!({"everyone": true, "right": "write"})).await;
    assert!(matches!(wall, Ok(Granted::New(_))), "there is no pipe yet: {wall:?}");
    too_many(stage.pipe_by(&attacker, "wall", "one").await);
    let kept = "SELECT count(*) FROM source_grants WHERE allows = 'type'";
    assert_eq!(stage.test.look::<i64>(kept).await, 128);
    assert_eq!(stage.test.look::<i64>("SELECT count(*) FROM pipes WHERE name = 'one'").await, 0);

    // The other one gets a token, with what was given before, and writes with it.
    let exchanged = stage.exchange(&stage.friend).await;
    assert_eq!((named(&exchanged).len(), exchanged.write_grants_left_out), (256, 1));
    assert!(named(&exchanged).contains(&"build/results".to_owned()));
    let route = stage.services.messages.write_route(scope(&stage.friend), "build", "results").await.unwrap();
    let client = client!(exchanged).unwrap();
    let said = json!({"id": tidegate_model::MessageId::new(), "payload": "42", "created_at": "2026-11-28T08:00:00Z"});
    let stored = client.request(route.subject, said.to_string().into()).await.unwrap();
    let stored: Value = serde_json::from_slice(&stored.payload).unwrap();
    assert_eq!(stored["seq"], 1, "{stored}");

    // And whatever is given later, by anybody, has its place, too.
    stage.pipe_by(&stage.owner, "build", "more").await.unwrap();
    let exchanged = stage.exchange(&stage.friend).await;
    assert!(named(&exchanged).contains(&"build/more".to_owned()));
    assert_eq!((at(&exchanged, "build/"), at(&exchanged, "crowd-")), (2, 254));
    // What is left out is said where it is opened, and goes over HTTP.
    too_many(stage.services.messages.write_route(scope(&stage.friend), "crowd-128", "stdin").await);
    stage.send(&stage.friend, "crowd-128", "stdin", "over HTTP").await.unwrap();
    stage.services.messages.write_route(scope(&stage.friend), "crowd-1", "stdin").await.unwrap();
}

#[tokio::test]
async fn of_two_rights_given_at_once_one_is_too_many() {
    let stage = Stage::new().await;
    stage.given(&stage.owner, "shell-", 1..=127).await;
    for handle in ["one", "two"] {
        stage.make(handle, "pty").await;
    }
    let give = async |handle: &str| {
        stage.give_by(&stage.owner, handle, json!({"everyone": true, "right": "type"})).await
    };
    let (one, two) = tokio::join!(give("one"), give("two"));
    let (given, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(matches!(given, Ok(Granted::New(_))), "{given:?}");
    too_many(refused);
    let exchanged = stage.exchange(&stage.friend).await;
    assert_eq!((named(&exchanged).len(), exchanged.write_grants_left_out), (256, 0));
}

#[tokio::test]
async fn whoever_comes_into_a_group_with_many_rights_has_a_part_of_each_givers() {
    let stage = Stage::new().await;
    let other = stage.user().await;
    stage.given(&stage.owner, "ours-", 101..=228).await;
    stage.given(&other, "theirs-", 101..=130).await;
    let (org, me) = (stage.org.id, scope(&stage.friend).user_id());
    let sql = format!(
        "INSERT INTO groups (id, org_id, name, display_name, type, created_at, updated_at)
            VALUES ('01890000-0000-7000-8000-000000000001', '{org}', 'crew', 'Crew', 'team', now(), now());
         UPDATE source_grants SET group_id = '01890000-0000-7000-8000-000000000001'"
    );
    stage.test.execute(&sql).await;
    assert_eq!(named(&stage.exchange(&stage.friend).await).len(), 0);
    let joined = format!(
        "INSERT INTO group_memberships (id, org_id, group_id, user_id, role, created_at)
            VALUES (gen_random_uuid(), '{org}', '01890000-0000-7000-8000-000000000001', '{me}', 'member', now())"
    );
    stage.test.execute(&joined).await;
    let exchanged = stage.exchange(&stage.friend).await;
    assert_eq!((at(&exchanged, "theirs-"), at(&exchanged, "ours-")), (60, 196), "all of whoever gave few");
    assert_eq!(exchanged.write_grants_left_out, 60);
    // A right for the group counts what its members have as members of it, and as anybody.
    stage.make("shell", "pty").await;
    too_many(stage.give_by(&stage.owner, "shell", json!({"group": "crew", "right": "type"})).await);
    too_many(stage.give_by(&stage.owner, "shell", json!({"userId": me, "right": "type"})).await);
    let all = stage.give_by(&stage.owner, "shell", json!({"everyone": true, "right": "type"})).await;
    assert!(matches!(all, Ok(Granted::New(_))), "{all:?}");
}
