//! Sources, pipes, grants, cursors, accounts on NATS, and the operations that each change leaves for it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tidegate_model::{
    CredentialId, Handle, LoginSessionId, OrgRole, OrgStatus, PipeId, Retention, RetentionChoice,
    SourceGrantId, SourceId, SourceKind, SourceRight, UserId,
};
use tidegate_persistence::{
    Constraint, Error, Operator, OrgScope, Result, audit,
    nats_account::{self, AccountLimits, NatsOperator, NewAccount},
    pipe::{self, NewPipe},
    pipe_operation::{self, Asked, Operation, Outcome, Standing},
    pipe_stream::{self, InForce},
    read_cursor::{self, ReadCursor, StreamEnd},
    source::{self, LastMessage},
    source_grant::{self, NewGrant},
};
use tidegate_test_support::{TestDb, TestOrg};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn new_account(letter: char, now: DateTime<Utc>) -> NewAccount {
    let key = format!("A{}", letter.to_string().repeat(55));
    NewAccount {
        public_key: key.clone(),
        signing_key: key,
        account_jwt: format!("jwt of {letter}"),
        identity_seed: vec![1],
        signing_seed: vec![2],
        signed_by: "O".into(),
        now,
    }
}

/// A row in every table of this kind.
pub(crate) async fn fill(test: &TestDb, org: &TestOrg, reader: UserId) {
    let scope = org.admin.org().unwrap();
    let letter = if org.name == "acme" { 'A' } else { 'B' };
    let db = test.db();
    let work = db.in_org(scope, async |tx| {
        let id = SourceId::new();
        source::insert(tx, id, handle("build"), SourceKind::Pty, now()).await?;
        let (new, line) = new_pipe(id, "room", RetentionChoice::default());
        pipe::insert(tx, new, line).await?;
        pipe_stream::want(tx, id, "room", Retention::default(), now()).await?;
        pipe_operation::insert(tx, &Operation::EnsureStream(id, "room".into()), now()).await?;
        source_grant::insert(tx, grant_to(id, Some(reader), SourceRight::Read)).await?;
        read_cursor::put(tx, reader, at_place(id, "room", None, 0)).await?;
        nats_account::set(tx, new_account(letter, now())).await?;
        nats_account::note_principal(tx, scope.credential(), now(), TimeDelta::zero()).await?;
        Ok::<_, Error>(())
    });
    work.await.unwrap();
}

/// A pipe to make, and what is written down of it.
fn new_pipe(source: SourceId, name: &str, retention: RetentionChoice) -> (NewPipe, audit::Entry) {
    let (resource, detail) = ("source:build".to_owned(), json!({}));
    let line = audit::Entry { action: "pipe.create", resource, address: None, detail, at: now() };
    (NewPipe { id: PipeId::new(), source, name: name.parse().unwrap(), retention, now: now() }, line)
}

fn handle(text: &str) -> Handle {
    text.parse().unwrap()
}

fn grant_to(source_id: SourceId, user_id: Option<UserId>, right: SourceRight) -> NewGrant {
    NewGrant { id: SourceGrantId::new(), source_id, user_id, group_id: None, right, now: now() }
}

fn at_place(
    source_id: SourceId,
    pipe: &str,
    incarnation: Option<DateTime<Utc>>,
    sequence: i64,
) -> ReadCursor {
    ReadCursor { source_id, pipe: pipe.into(), incarnation, sequence, at: now() }
}

struct Stage {
    test: TestDb,
    org: TestOrg,
    other: TestOrg,
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let (org, other) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
        Self { test, org, other }
    }

    fn scope(&self) -> &OrgScope {
        self.org.admin.org().unwrap()
    }

    async fn source(&self, name: &str) -> Result<SourceId> {
        let id = SourceId::new();
        let made = async |tx: &mut _| source::insert(tx, id, handle(name), SourceKind::Message, now()).await;
        self.test.db().in_org(self.scope(), made).await.map(|()| id)
    }

    /// Kinds of what waits for NATS, in order.
    async fn pending(&self) -> Vec<Operation> {
        let work = async |tx: &mut _| pipe_operation::pending(tx, None, 100).await;
        let all = self.test.db().in_org(self.scope(), work).await;
        all.unwrap().into_iter().map(|(_, operation)| operation).collect()
    }
}

#[tokio::test]
async fn of_many_who_take_a_handle_at_once_one_gets_it() {
    let stage = Stage::new().await;
    let outcomes = futures_util::future::join_all((0..8).map(|_| stage.source("build"))).await;
    let taken = |outcome: &Result<SourceId>| matches!(outcome, Err(Error::Violation(Constraint::Handle)));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| taken(outcome)).count(), 7, "{outcomes:?}");
}

#[tokio::test]
async fn a_handle_of_another_organization_is_free_and_not_found() {
    let stage = Stage::new().await;
    stage.source("build").await.unwrap();
    let other = stage.other.admin.org().unwrap();
    let look = async |tx: &mut _| source::find_by_handle(tx, "build").await;
    let found = stage.test.db().in_org(other, look).await;
    assert!(matches!(found, Err(Error::NotFound)), "{found:?}");
    let take =
        async |tx: &mut _| source::insert(tx, SourceId::new(), handle("build"), SourceKind::Pty, now()).await;
    stage.test.db().in_org(other, take).await.unwrap();
    let gone = stage.test.db().in_org(stage.scope(), async |tx| source::delete(tx, "nobody").await).await;
    assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
}

#[tokio::test]
async fn sources_are_listed_by_handle_with_their_creators_and_in_pages() {
    let stage = Stage::new().await;
    for name in ["c", "a", "b"] {
        stage.source(name).await.unwrap();
    }
    let list = async |tx: &mut _| source::list(tx, "a", 10).await;
    let (page, total) = stage.test.db().in_org(stage.scope(), list).await.unwrap();
    let handles: Vec<&str> = page.iter().map(|stored| stored.source.handle.as_str()).collect();
    assert_eq!((handles, total), (vec!["b", "c"], 3));
    let creator = page[0].source.created_by_username.as_deref();
    assert_eq!(creator, Some(stage.scope().username()));
}

#[tokio::test]
async fn an_older_message_changes_nothing_and_the_same_one_is_the_same() {
    let stage = Stage::new().await;
    stage.source("build").await.unwrap();
    let note = async |seconds: i64, text: &str| {
        let at = now() + TimeDelta::seconds(seconds);
        let message = LastMessage { at, pipe: "inbox".into(), text: text.to_owned() };
        let told = async |tx: &mut _| source::update_last_broadcast(tx, "build", message).await;
        stage.test.db().in_org(stage.scope(), told).await.unwrap()
    };
    assert!(note(10, "first").await);
    assert!(!note(10, "first").await, "the same again");
    assert!(!note(9, "older").await);
    assert!(note(11, &"ä".repeat(600)).await);
    let look = async |tx: &mut _| source::find_by_handle(tx, "build").await;
    let found = stage.test.db().in_org(stage.scope(), look).await.unwrap();
    assert_eq!(found.source.last_message_at, Some(now() + TimeDelta::seconds(11)));
    assert_eq!(found.source.last_message.unwrap(), "ä".repeat(500));
    assert_eq!(found.last_pipe.as_deref(), Some("inbox"));
}

#[tokio::test]
async fn a_pipe_is_made_once_found_by_name_and_deleted_with_its_stream() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let choice = RetentionChoice { ttl_seconds: Some(60), max_msgs: None, max_bytes: Some(2_048) };
    let make = async || {
        let (new, line) = new_pipe(id, "room", choice);
        let made = async |tx: &mut _| pipe::insert(tx, new, line).await;
        stage.test.db().in_org(stage.scope(), made).await
    };
    make().await.unwrap();
    let again = make().await;
    assert!(matches!(again, Err(Error::Violation(Constraint::PipeName))), "{again:?}");
    let db = stage.test.db();
    let work = db.in_org(stage.scope(), async |tx| {
        let found = pipe::find_by_name(tx, id, "room").await?;
        assert_eq!(found.choice(), choice);
        assert_eq!(found.retention().max_msgs, 5_000);
        assert!(pipe_stream::want(tx, id, "room", found.retention(), now()).await?);
        assert!(!pipe_stream::want(tx, id, "room", found.retention(), now()).await?, "known already");
        pipe::delete(tx, id, "room").await?;
        let gone = pipe::delete(tx, id, "room").await;
        assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
        let gone = pipe::find_by_name(tx, id, "room").await;
        assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
        Ok::<_, Error>(())
    });
    work.await.unwrap();
    assert_eq!(stage.pending().await, [Operation::DeleteStream(id, "room".into())]);
}

#[tokio::test]
async fn a_source_that_goes_leaves_its_streams_to_be_deleted_and_comes_again_with_another_id() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let reader = stage.test.user_in("acme", OrgRole::User).await.id;
    let db = stage.test.db();
    let work = db.in_org(stage.scope(), async |tx| {
        pipe_stream::want(tx, id, "inbox", Retention::default(), now()).await?;
        let found = InForce { retention: Retention::default(), incarnation: now() };
        assert!(pipe_stream::note(tx, id, "inbox", found, now()).await?);
        assert_eq!(pipe_stream::find(tx, id, "inbox").await?.in_force, Some(found));
        source_grant::insert(tx, grant_to(id, None, SourceRight::Read)).await?;
        read_cursor::put(tx, reader, at_place(id, "inbox", None, 0)).await?;
        source::delete(tx, "build").await?;
        assert!(!pipe_stream::note(tx, id, "inbox", found, now()).await?, "nobody wants it any more");
        Ok::<_, Error>(())
    });
    work.await.unwrap();
    let pending = stage.pending().await;
    assert!(pending.contains(&Operation::DeleteStream(id, "inbox".into())), "{pending:?}");
    assert!(pending.contains(&Operation::DeleteConsumer(id, "inbox".into(), reader)), "{pending:?}");
    assert_ne!(stage.source("build").await.unwrap(), id);
}

#[tokio::test]
async fn a_place_moves_on_alone_unless_its_stream_is_older_and_makes_none_where_there_is_none() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let me = stage.scope().user_id();
    let (then, later) = (now(), now() + TimeDelta::seconds(1));
    let db = stage.test.db();
    let work = db.in_org(stage.scope(), async |tx| {
        let at = |incarnation, sequence| at_place(id, "room", Some(incarnation), sequence);
        assert!(!read_cursor::advance(tx, me, at(then, 3)).await?, "the right went, and the place with it");
        assert_eq!(read_cursor::find(tx, me, id, "room").await?, None);
        read_cursor::put(tx, me, at_place(id, "room", None, 0)).await?;
        for (incarnation, sequence, moves) in
            [(then, 3, true), (then, 3, false), (then, 2, false), (later, 1, true), (then, 9, false)]
        {
            let moved = read_cursor::advance(tx, me, at(incarnation, sequence)).await?;
            assert_eq!(moved, moves, "{incarnation} {sequence}");
        }
        let end =
            |incarnation, last| vec![StreamEnd { source_id: id, pipe: "room".into(), incarnation, last }];
        assert_eq!(read_cursor::beyond(tx, end(later, 1)).await?, []);
        assert_eq!(read_cursor::beyond(tx, end(then, 0)).await?, [], "another stream's");
        let found = read_cursor::beyond(tx, end(later, 0)).await?;
        assert_eq!(found, [(me, at(later, 1))]);
        assert!(!read_cursor::set_back(tx, me, &at(later, 2), 0).await?, "it has moved since");
        assert!(read_cursor::set_back(tx, me, &found[0].1, 0).await?);
        assert_eq!(read_cursor::beyond(tx, end(later, 0)).await?, []);
        Ok::<_, Error>(())
    });
    work.await.unwrap();
    let theirs = db.in_org(stage.other.admin.org().unwrap(), async |tx| {
        let end = StreamEnd { source_id: id, pipe: "room".into(), incarnation: later, last: -1 };
        read_cursor::beyond(tx, vec![end]).await
    });
    assert_eq!(theirs.await.unwrap(), [], "another organization's places are not there");
}

#[tokio::test]
async fn rights_come_from_grants_to_oneself_to_everyone_and_to_groups_above() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let member = stage.test.user_in("acme", OrgRole::User).await.id;
    let db = stage.test.db();
    let work = db.in_org(stage.scope(), async |tx| {
        assert_eq!(source_grant::rights(tx, member, vec![id]).await?, []);
        assert!(source_grant::insert(tx, grant_to(id, Some(member), SourceRight::Type)).await?);
        assert!(
            !source_grant::insert(tx, grant_to(id, Some(member), SourceRight::Type)).await?,
            "given before"
        );
        let all = grant_to(id, None, SourceRight::Read);
        assert!(source_grant::insert(tx, all).await?);
        let both = [(id, SourceRight::Read), (id, SourceRight::Type)];
        assert_eq!(source_grant::rights(tx, member, vec![id]).await?, both);
        source_grant::delete(tx, id, all.id).await?;
        assert_eq!(source_grant::rights(tx, member, vec![id]).await?, both[1..]);
        assert_eq!(source_grant::list(tx, id, 10).await?.len(), 1);
        Ok::<_, Error>(())
    });
    work.await.unwrap();
    stage
        .test
        .execute(&format!(
            "INSERT INTO groups (id, org_id, name, display_name, type, created_at, updated_at)
                VALUES ('01890000-0000-7000-8000-000000000001', '{org}', 'top', 'Top', 'team', now(), now());
             INSERT INTO groups (id, org_id, name, display_name, type, parent_id, created_at, updated_at)
                VALUES ('01890000-0000-7000-8000-000000000002', '{org}', 'low', 'Low', 'team', '01890000-0000-7000-8000-000000000001', now(), now());
             INSERT INTO group_memberships (id, org_id, group_id, user_id, role, created_at)
                VALUES (gen_random_uuid(), '{org}', '01890000-0000-7000-8000-000000000002', '{member}', 'member', now())",
            org = stage.org.id
        ))
        .await;
    let group = "01890000-0000-7000-8000-000000000001".parse().unwrap();
    let work = db.in_org(stage.scope(), async |tx| {
        let to_group = NewGrant { group_id: Some(group), ..grant_to(id, None, SourceRight::Write) };
        source_grant::insert(tx, to_group).await?;
        let rights = source_grant::rights(tx, member, vec![id]).await?;
        assert_eq!(rights, [(id, SourceRight::Type), (id, SourceRight::Write)]);
        let to_read = NewGrant { group_id: Some(group), ..grant_to(id, None, SourceRight::Read) };
        source_grant::insert(tx, to_read).await?;
        read_cursor::put(tx, member, at_place(id, "room", None, 0)).await?;
        assert_eq!(read_cursor::readers(tx, vec![id]).await?, [(id, "room".to_owned(), member)]);
        assert_eq!(read_cursor::end_unreadable(tx, Some(id)).await?, 0);
        Ok::<_, Error>(())
    });
    work.await.unwrap();
    assert_eq!(stage.pending().await, []);
    // Whoever leaves the group below loses what the group above was given.
    stage.test.execute(&format!("DELETE FROM group_memberships WHERE user_id = '{member}'")).await;
    assert_eq!(stage.pending().await, [Operation::ReviewReaders]);
    let elsewhere = Some(tidegate_model::SourceId::new());
    let work = db.in_org(stage.scope(), async |tx| {
        assert_eq!(read_cursor::end_unreadable(tx, elsewhere).await?, 0);
        assert_eq!(read_cursor::end_unreadable(tx, None).await?, 1);
        Ok::<_, Error>(())
    });
    work.await.unwrap();
}

#[tokio::test]
async fn whoever_loses_a_right_to_write_gets_another_token_and_nobody_else() {
    let stage = Stage::new().await;
    let (test, org) = (&stage.test, stage.org.id);
    let id = stage.source("build").await.unwrap();
    let (top, low) = ("01890000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000002");
    let mut people = Vec::new();
    // The first has rights of their own, the second is below `top`, the third is in no group.
    for _ in 0..3 {
        people.push(test.user_in("acme", OrgRole::User).await);
    }
    let (ann, ben) = (people[0].id, people[1].id);
    let join = format!(
        "INSERT INTO group_memberships (org_id, group_id, user_id, role, created_at) VALUES ('{org}', '{low}', '{ben}', 'member', now())"
    );
    let groups = format!(
        "INSERT INTO groups (id, org_id, name, display_name, type, created_at, updated_at)
            VALUES ('{top}', '{org}', 'top', 'Top', 'team', now(), now());
         INSERT INTO groups (id, org_id, name, display_name, type, parent_id, created_at, updated_at)
            VALUES ('{low}', '{org}', 'low', 'Low', 'team', '{top}', now(), now());
         {join};
         INSERT INTO nats_principals (org_id, credential, user_id, renewed_at, valid_until, grants)
            SELECT org_id, 'login:' || user_id, user_id, 'epoch', 'epoch', 1 FROM memberships"
    );
    test.execute(&groups).await;
    let narrowed = async |what: &str| {
        test.execute("UPDATE nats_principals SET narrowed = false").await;
        test.execute(what).await;
        let sql = "SELECT COALESCE(array_agg(u.username ORDER BY u.username), '{}')::text
                   FROM nats_principals p JOIN users u ON u.id = p.user_id WHERE p.narrowed";
        test.look::<String>(sql).await
    };
    let given = |user: &str, group: &str, right: &str| {
        format!(
            "INSERT INTO source_grants (id, org_id, source_id, user_id, group_id, allows, granted_by, created_at)
             SELECT gen_random_uuid(), '{org}', '{id}', {user}, {group}, '{right}', created_by, 'epoch' FROM sources;
             DELETE FROM source_grants"
        )
    };
    let of = |names: &[usize]| {
        let mut names: Vec<&str> = names.iter().map(|number| people[*number].username.as_str()).collect();
        names.sort_unstable();
        format!("{{{}}}", names.join(","))
    };
    for (user, group) in [(format!("'{ann}'"), "NULL"), ("NULL".into(), "NULL")] {
        assert_eq!(narrowed(&given(&user, group, "read")).await, "{}");
    }
    assert_eq!(narrowed(&given(&format!("'{ann}'"), "NULL", "write")).await, of(&[0]));
    assert_eq!(narrowed(&given("NULL", &format!("'{top}'"), "type")).await, of(&[1]));
    assert_eq!(narrowed("UPDATE groups SET parent_id = NULL WHERE name = 'low'").await, of(&[1]));
    assert_eq!(narrowed("DELETE FROM group_memberships").await, of(&[1]));
    test.execute(&join).await;
    assert_eq!(narrowed("DELETE FROM groups WHERE name = 'low'").await, of(&[1]));
    // Of those who have no grants on their tokens nobody is concerned.
    test.execute(&format!(
        "UPDATE nats_principals SET grants = 0 WHERE org_id = '{org}' AND user_id NOT IN ('{ann}', '{ben}')"
    ))
    .await;
    assert_eq!(narrowed(&given("NULL", "NULL", "write")).await, of(&[0, 1]));
}

#[tokio::test]
async fn a_reader_without_the_right_loses_the_place_and_a_member_who_leaves_all_of_them() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let reader = stage.test.user_in("acme", OrgRole::User).await.id;
    let creator = stage.scope().user_id();
    let given = grant_to(id, Some(reader), SourceRight::Read);
    let db = stage.test.db();
    let work = db.in_org(stage.scope(), async |tx| {
        source_grant::insert(tx, given).await?;
        read_cursor::put(tx, reader, at_place(id, "room", None, 0)).await?;
        read_cursor::put(tx, creator, at_place(id, "inbox", None, 0)).await?;
        assert_eq!(read_cursor::end_unreadable(tx, None).await?, 0);
        source_grant::delete(tx, id, given.id).await?;
        assert_eq!(read_cursor::end_unreadable(tx, None).await?, 1);
        assert!(read_cursor::find(tx, creator, id, "inbox").await?.is_some(), "the creator reads on");
        Ok::<_, Error>(())
    });
    work.await.unwrap();
    let wanted = [Operation::ReviewReaders, Operation::DeleteConsumer(id, "room".into(), reader)];
    assert_eq!(stage.pending().await, wanted);
    let again = async |tx: &mut _| read_cursor::put(tx, reader, at_place(id, "room", None, 0)).await;
    stage.test.db().in_org(stage.scope(), again).await.unwrap();
    stage.test.execute(&format!("DELETE FROM memberships WHERE user_id = '{reader}'")).await;
    let pending = stage.pending().await;
    assert_eq!(pending.last(), Some(&Operation::DeleteConsumer(id, "room".into(), reader)), "{pending:?}");
}

#[tokio::test]
async fn a_cursor_goes_forward_only_and_begins_anew_with_another_stream() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let me = stage.scope().user_id();
    let (first, second) = (now(), now() + TimeDelta::seconds(1));
    let db = stage.test.db();
    let work = db.in_org(stage.scope(), async |tx| {
        let mut moved = Vec::new();
        for (incarnation, sequence) in [
            (None, 0),
            (Some(first), 5),
            (Some(first), 5),
            (Some(first), 4),
            (Some(second), 1),
            (Some(first), 9),
        ] {
            moved.push(read_cursor::put(tx, me, at_place(id, "inbox", incarnation, sequence)).await?);
        }
        assert_eq!(moved, [true, true, false, false, true, false]);
        let place = read_cursor::find(tx, me, id, "inbox").await?.unwrap();
        assert_eq!((place.incarnation, place.sequence), (Some(second), 1));
        Ok::<_, Error>(())
    });
    work.await.unwrap();
}

#[tokio::test]
async fn of_many_who_set_an_account_at_once_the_first_wins_and_all_get_it() {
    let stage = Stage::new().await;
    let set = async |letter: char| {
        let kept = async |tx: &mut _| nats_account::set(tx, new_account(letter, now())).await;
        stage.test.db().in_org(stage.scope(), kept).await.unwrap()
    };
    let outcomes = futures_util::future::join_all("ABCDEFGH".chars().map(set)).await;
    assert_eq!(outcomes.iter().filter(|(_, mine)| *mine).count(), 1);
    let kept: Vec<&str> = outcomes.iter().map(|(account, _)| account.public_key.as_str()).collect();
    assert!(kept.iter().all(|key| *key == kept[0]), "{kept:?}");
    assert_eq!(outcomes[0].0.limits.disk_bytes, 64 * 1_024 * 1_024 * 1_024);
    let hidden = async |tx: &mut _| nats_account::find(tx).await;
    let hidden = stage.test.db().in_org(stage.other.admin.org().unwrap(), hidden).await;
    assert!(matches!(hidden, Err(Error::NotFound)), "{hidden:?}");
}

#[tokio::test]
async fn the_operator_is_made_once() {
    let stage = Stage::new().await;
    let set = async |name: &str| {
        let new = NatsOperator {
            identity_key: name.to_owned(),
            signing_key: name.to_owned(),
            system_key: name.to_owned(),
            identity_seed: vec![1],
            signing_seed: vec![2],
            system_seed: vec![3],
            retired_keys: Vec::new(),
            next: None,
            closed_at: None,
            changed_at: now(),
        };
        let work = async |tx: &mut _| nats_account::set_operator(tx, new).await;
        stage.test.db().in_platform(&Operator::system(), work).await.unwrap()
    };
    let outcomes = futures_util::future::join_all(["a", "b", "c", "d"].map(set)).await;
    assert!(outcomes.iter().all(|one| *one == outcomes[0]), "{outcomes:?}");
}

#[tokio::test]
async fn operations_of_one_topic_are_claimed_in_order_and_no_organization_holds_up_another() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let (db, other) = (stage.test.db(), stage.other.admin.org().unwrap());
    let ask = async |tx: &mut tidegate_persistence::OrgTx, pipe: &str| {
        pipe_operation::insert(tx, &Operation::EnsureStream(id, pipe.into()), now()).await
    };
    let work = db.in_org(stage.scope(), async |tx| {
        let first = ask(tx, "room").await?;
        pipe_operation::insert(tx, &Operation::DeleteStream(id, "room".into()), now()).await?;
        for pipe in ["a", "b", "c"] {
            ask(tx, pipe).await?;
        }
        Ok::<_, Error>(first)
    });
    let first = work.await.unwrap();
    db.in_org(other, async |tx| ask(tx, "z").await).await.unwrap();
    let lease = now() + TimeDelta::seconds(30);
    let claim = async |at: DateTime<Utc>| {
        let claimed = async |tx: &mut _| pipe_operation::claim(tx, (2, 10), at, lease).await;
        db.in_platform(&Operator::system(), claimed).await.unwrap()
    };
    let claimed = claim(now()).await;
    let named: Vec<String> = claimed.iter().map(|one| one.operation.topic()[33..].to_owned()).collect();
    assert_eq!(named, ["room", "a", "z"], "two of the one and one of the other");
    let rest: Vec<String> =
        claim(now()).await.iter().map(|one| one.operation.topic()[33..].to_owned()).collect();
    assert_eq!(rest, ["b", "c"], "the deletion waits for what was asked before it");
    assert_eq!(claim(now()).await, []);
    let end = async |attempt: i32, outcome: Outcome| {
        let work = async |tx: &mut _| pipe_operation::finish(tx, (first, attempt), outcome, now()).await;
        db.in_platform(&Operator::system(), work).await.unwrap()
    };
    assert!(!end(7, Outcome::Done).await, "not this try's");
    assert!(end(1, Outcome::Again(now(), "away".into())).await);
    let standing = async || {
        let work = async |tx: &mut _| pipe_operation::standing(tx, first).await;
        db.in_org(stage.scope(), work).await.unwrap()
    };
    assert_eq!(standing().await, Standing::Pending(Some("away".into())));
    let one = async |tx: &mut _| pipe_operation::claim_one(tx, first, now(), lease).await;
    assert_eq!(db.in_platform(&Operator::system(), one).await.unwrap().unwrap().attempt, 2);
    assert!(end(2, Outcome::Done).await);
    assert_eq!(standing().await, Standing::Done);
    let next = claim(now()).await;
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].operation, Operation::DeleteStream(id, "room".into()));
}

#[tokio::test]
async fn many_who_claim_at_once_get_each_operation_once() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let db = stage.test.db();
    let work = db.in_org(stage.scope(), async |tx| {
        for number in 0..40 {
            let operation = Operation::EnsureStream(id, format!("p{number}"));
            pipe_operation::insert(tx, &operation, now()).await?;
        }
        Ok::<_, Error>(())
    });
    work.await.unwrap();
    let claim = async |_| {
        let lease = now() + TimeDelta::seconds(30);
        let claimed = async |tx: &mut _| pipe_operation::claim(tx, (10, 10), now(), lease).await;
        stage.test.db().in_platform(&Operator::system(), claimed).await.unwrap()
    };
    let all = futures_util::future::join_all((0..8).map(claim)).await.concat();
    let mut ids: Vec<_> = all.iter().map(|one| one.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "none was claimed twice");
    assert!(all.iter().all(|one| one.attempt == 1));
}

#[tokio::test]
async fn a_suspended_organization_and_a_lapsed_credential_are_told_to_nats() {
    let stage = Stage::new().await;
    let (db, credential) = (stage.test.db(), stage.scope().credential());
    let valid = tidegate_model::Clock::now(stage.test.manual_clock().as_ref());
    let work = db.in_org(stage.scope(), async |tx| {
        nats_account::set(tx, new_account('A', now())).await?;
        nats_account::note_principal(tx, credential, valid, TimeDelta::minutes(5)).await?;
        let unknown = CredentialId::Login(LoginSessionId::new());
        nats_account::note_principal(tx, unknown, valid, TimeDelta::minutes(5)).await?;
        Ok::<_, Error>(unknown)
    });
    let unknown = work.await.unwrap();
    let (lapsed, place) = db.lapsed_principals(valid, None, (10, 10)).await.unwrap();
    assert_eq!((lapsed, place), (vec![(stage.org.id, unknown)], None), "nobody's login");
    let revoke = async |tx: &mut _| {
        let mine = nats_account::revoke_principal(tx, stage.org.id, unknown, valid).await?;
        let again = nats_account::revoke_principal(tx, stage.org.id, unknown, valid).await?;
        let revoked = nats_account::revoked(tx, stage.org.id, valid - TimeDelta::minutes(6)).await?;
        Ok::<_, Error>((mine, again, revoked))
    };
    let (mine, again, revoked) = db.in_platform(&Operator::system(), revoke).await.unwrap();
    assert_eq!((mine, again, revoked), (true, false, vec![(unknown, valid)]));
    stage
        .test
        .execute(&format!("UPDATE organizations SET status = 'suspended' WHERE id = '{}'", stage.org.id))
        .await;
    let (lapsed, _) = db.lapsed_principals(valid, None, (10, 10)).await.unwrap();
    assert!(lapsed.contains(&(stage.org.id, credential)), "{lapsed:?}");
    let work = async |tx: &mut _| {
        let limits = AccountLimits { disk_bytes: 1, streams: 1, consumers: 1, connections: 1 };
        nats_account::set_limits(tx, stage.org.id, limits, now()).await?;
        nats_account::set_token(tx, stage.org.id, "anew".into(), "P".into(), now()).await?;
        assert!(!nats_account::pushed(tx, stage.org.id, "jwt of A".into(), now()).await?);
        assert!(nats_account::pushed(tx, stage.org.id, "anew".into(), now()).await?);
        nats_account::lock(tx, stage.org.id).await
    };
    let (account, status) = db.in_platform(&Operator::system(), work).await.unwrap();
    assert_eq!((account.limits.disk_bytes, account.signed_by.as_str()), (1, "P"));
    assert_eq!((account.pushed_at, status), (Some(now()), OrgStatus::Suspended));
    let claimed = async |tx: &mut _| pipe_operation::claim(tx, (9, 9), now(), now()).await;
    let claimed = db.in_platform(&Operator::system(), claimed).await.unwrap();
    assert_eq!(claimed.iter().map(|one| &one.operation).collect::<Vec<_>>(), [&Operation::PushAccount]);
    assert_eq!(db.nats_organizations(None, 10).await.unwrap().len(), 1);
}

fn in_force(incarnation: DateTime<Utc>) -> InForce {
    InForce { retention: Retention::default(), incarnation }
}

#[tokio::test]
async fn a_try_whose_lease_has_passed_writes_nothing_over_the_one_that_came_after_it() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let (db, system) = (stage.test.db(), Operator::system());
    let lease = now() + TimeDelta::seconds(60);
    let ask = async |tx: &mut _| {
        pipe_operation::insert_wanted(tx, (id, "inbox"), Retention::default(), now(), Some(lease)).await
    };
    let asked = db.in_org(stage.scope(), ask).await.unwrap();
    let Some(Asked::Claimed(first)) = asked else { panic!("{asked:?}") };
    assert_eq!((first.attempt, &first.operation), (1, &Operation::EnsureStream(id, "inbox".into())));
    assert_eq!(db.in_org(stage.scope(), ask).await.unwrap(), None, "it is wanted already");
    let claim = async |at: DateTime<Utc>| {
        let one =
            async |tx: &mut _| pipe_operation::claim_one(tx, first.id, at, at + TimeDelta::seconds(60)).await;
        db.in_platform(&system, one).await.unwrap()
    };
    assert_eq!(claim(now()).await, None, "the lease is somebody's");
    let second = claim(lease).await.expect("the lease has passed");
    assert_eq!(second.attempt, 2);
    let end = async |attempt: i32, incarnation: DateTime<Utc>| {
        let key = (first.id, attempt);
        let made =
            async |tx: &mut _| pipe_operation::finish_made(tx, key, in_force(incarnation), lease).await;
        db.in_platform(&system, made).await.unwrap()
    };
    let row = async || {
        let stream = async |tx: &mut _| pipe_stream::find(tx, id, "inbox").await;
        db.in_org(stage.scope(), stream).await.unwrap().in_force
    };
    assert!(!end(1, now()).await);
    assert_eq!(row().await, None, "neither the operation nor the stream");
    assert!(end(2, lease).await);
    assert!(!end(1, now()).await && !end(2, now()).await, "it is over");
    assert_eq!(row().await, Some(in_force(lease)));
    let standing = async |tx: &mut _| pipe_operation::standing(tx, first.id).await;
    assert_eq!(db.in_org(stage.scope(), standing).await.unwrap(), Standing::Done);
}

#[tokio::test]
async fn those_who_open_or_make_pipes_of_one_source_wait_for_whoever_changes_it_alone() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let db = stage.test.db();
    let (new, line) = new_pipe(id, "room", RetentionChoice::default());
    db.in_org(stage.scope(), async |tx: &mut _| pipe::insert(tx, new, line).await).await.unwrap();
    // How many sources somebody could change at this moment, open pipes of, or note the last message of.
    let free = async || {
        let mut free = [0; 3];
        for (free, mode) in free.iter_mut().zip(["UPDATE", "KEY SHARE", "NO KEY UPDATE"]) {
            let sql = format!("SELECT count(*) FROM (SELECT FROM sources FOR {mode} SKIP LOCKED) s");
            *free = stage.test.look::<i64>(&sql).await;
        }
        free
    };
    let opening = async |held: bool| {
        let work = async |tx: &mut _| {
            let usable = pipe::usable(tx, ("build", "room"), held).await?;
            assert_eq!((usable.source.id, usable.stream), (id, None));
            assert_eq!(usable.made.map(|pipe| pipe.name.to_string()).as_deref(), Some("room"));
            Ok::<_, Error>(free().await)
        };
        db.in_org_hot(stage.scope(), work).await.unwrap()
    };
    assert_eq!(opening(false).await, [1, 1, 1]);
    assert_eq!(opening(true).await, [0, 1, 1]);
    let placing = async |tx: &mut _| {
        let (stored, room) = pipe::place(tx, "build", 100).await?;
        assert_eq!((stored.source.id, room.made, room.has_writers), (id, 1, false));
        Ok::<_, Error>(free().await)
    };
    assert_eq!(db.in_org(stage.scope(), placing).await.unwrap(), [0, 1, 1]);
    let changing = async |tx: &mut _| {
        source::lock_by_handle(tx, "build").await?;
        Ok::<_, Error>(free().await)
    };
    assert_eq!(db.in_org(stage.scope(), changing).await.unwrap(), [0, 0, 0]);
    assert_eq!(free().await, [1, 1, 1], "nothing is held afterwards");
}

#[tokio::test]
async fn nobody_claims_a_stream_whose_predecessor_is_being_deleted() {
    let stage = Stage::new().await;
    let id = stage.source("build").await.unwrap();
    let db = stage.test.db();
    let work = db.in_org(stage.scope(), async |tx| {
        pipe_operation::insert(tx, &Operation::DeleteStream(id, "room".into()), now()).await?;
        let lease = Some(now() + TimeDelta::seconds(60));
        let kept = Retention::default();
        let behind = pipe_operation::insert_wanted(tx, (id, "room"), kept, now(), lease).await?;
        let unclaimed = pipe_operation::insert_wanted(tx, (id, "hall"), kept, now(), None).await?;
        Ok::<_, Error>((behind, unclaimed))
    });
    assert_eq!(work.await.unwrap(), (Some(Asked::Waiting), Some(Asked::Waiting)));
    let attempts: i64 = stage.test.look("SELECT sum(attempts) FROM pipe_operations").await;
    assert_eq!(attempts, 0);
}

#[tokio::test]
async fn whoever_ends_a_credential_marks_it_and_the_others_are_looked_at_some_at_a_time() {
    let stage = Stage::new().await;
    let (db, org, mine) = (stage.test.db(), stage.org.id, stage.scope().credential());
    let valid = tidegate_model::Clock::now(stage.test.manual_clock().as_ref());
    let mut unknown: Vec<CredentialId> = (0..5).map(|_| CredentialId::Login(LoginSessionId::new())).collect();
    unknown.sort_unstable_by_key(ToString::to_string);
    let work = db.in_org(stage.scope(), async |tx| {
        for credential in unknown.iter().copied().chain([mine]) {
            nats_account::note_principal(tx, credential, valid, TimeDelta::minutes(5)).await?;
        }
        Ok::<_, Error>(())
    });
    work.await.unwrap();
    let (mut place, mut found, mut looks) = (None, Vec::new(), 0);
    loop {
        let (lapsed, next) = db.lapsed_principals(valid, place, (10, 2)).await.unwrap();
        assert!(lapsed.len() <= 2, "no more than were to be looked at: {lapsed:?}");
        found.extend(lapsed);
        (place, looks) = (next, looks + 1);
        if place.is_none() {
            break;
        }
    }
    found.sort_unstable_by_key(|(_, credential)| credential.to_string());
    let expected: Vec<_> = unknown.iter().map(|credential| (org, *credential)).collect();
    assert_eq!((found, looks), (expected, 4), "nobody's logins, two at a time, and nothing behind the last");
    // One that is beyond what is looked at now is found at once by its mark.
    let (_, behind) = db.lapsed_principals(valid, None, (10, 2)).await.unwrap();
    stage.test.execute("UPDATE login_sessions SET revoked_at = now()").await;
    let (lapsed, _) = db.lapsed_principals(valid, behind.clone(), (10, 1)).await.unwrap();
    assert!(lapsed.contains(&(org, mine)), "{lapsed:?}");
    let revoke = async |tx: &mut _| nats_account::revoke_principal(tx, org, mine, valid).await;
    assert!(db.in_platform(&Operator::system(), revoke).await.unwrap());
    let (lapsed, _) = db.lapsed_principals(valid, behind, (10, 1)).await.unwrap();
    assert!(!lapsed.contains(&(org, mine)), "it is over");
}

#[tokio::test]
async fn whoever_leaves_is_deactivated_or_shut_out_with_their_organization_is_marked() {
    let ends = [
        "DELETE FROM memberships WHERE user_id = $1",
        "UPDATE users SET active = false WHERE id = $1",
        "UPDATE organizations SET status = 'suspended'",
    ];
    for end in ends {
        let stage = Stage::new().await;
        let (credential, user) = (stage.scope().credential(), stage.scope().user_id());
        let work = async |tx: &mut _| {
            nats_account::note_principal(tx, credential, now(), TimeDelta::minutes(5)).await
        };
        stage.test.db().in_org(stage.scope(), work).await.unwrap();
        let marked = "SELECT narrowed FROM nats_principals";
        assert!(!stage.test.look::<bool>(marked).await);
        stage.test.execute("UPDATE users SET full_name = 'another'").await;
        assert!(!stage.test.look::<bool>(marked).await, "who is called otherwise is still in");
        stage.test.execute(&end.replace("$1", &format!("'{user}'"))).await;
        assert!(stage.test.look::<bool>(marked).await, "{end}");
    }
}
