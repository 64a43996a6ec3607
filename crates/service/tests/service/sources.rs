//! Sources and pipes: who may make, change, read, write and type, and what NATS is left to do.

use serde_json::{Value, json};
use tidegate_model::{
    AddGroupMemberRequest, CreateGroupRequest, CreatePipeRequest, CreateSourceRequest, FromFields,
    GrantSourceRequest, GroupRole, OrgRole, Pipe, Source, SourceGrant, UpdatePipeRequest,
};
use tidegate_persistence::{OrgTx, pipe_operation, source};
use tidegate_service::{
    Caller, Error, Granted, Made, MadeGroup, OpenPipe, OrgScope, Paging, PipeUse, Result, Services,
};
use tidegate_test_support::{TestDb, TestOrg};

struct Stage {
    test: TestDb,
    org: TestOrg,
    owner: Caller,
    friend: Caller,
    viewer: Caller,
}

fn scope(caller: &Caller) -> &OrgScope {
    caller.org().unwrap()
}

fn read<T: FromFields>(body: Value) -> T {
    T::from_json(body).unwrap()
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        let org = test.org_with_admin("acme").await;
        let owner = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let friend = test.caller(&test.user_in("acme", OrgRole::User).await).await;
        let viewer = test.caller(&test.user_in("acme", OrgRole::Viewer).await).await;
        Self { test, org, owner, friend, viewer }
    }

    fn services(&self) -> &Services {
        self.test.services()
    }

    async fn make(&self, caller: &Caller, handle: &str, kind: &str) -> Result<Source> {
        let request: CreateSourceRequest = read(json!({"handle": handle, "kind": kind}));
        match self.services().sources.create(scope(caller), request, None, |_| json!(null)).await? {
            Made::New(source) => Ok(source),
            Made::Replay(_) => panic!("a new source"),
        }
    }

    async fn pipe(&self, caller: &Caller, handle: &str, body: Value) -> Result<Pipe> {
        let request: CreatePipeRequest = read(body);
        match self.services().pipes.create(scope(caller), handle, request, None, |_| json!(null)).await? {
            Made::New(pipe) => Ok(pipe),
            Made::Replay(_) => panic!("a new pipe"),
        }
    }

    async fn grant(&self, caller: &Caller, handle: &str, body: Value) -> Result<SourceGrant> {
        let request: GrantSourceRequest = read(body);
        match self.services().sources.grant(scope(caller), handle, request, None, |_| json!(null)).await? {
            Granted::New(grant) | Granted::Known(grant) => Ok(*grant),
            Granted::Replay(_) => panic!("no key was given"),
        }
    }

    async fn open(&self, caller: &Caller, handle: &str, pipe: &str, to: PipeUse) -> Result<OpenPipe> {
        self.services().pipes.open(scope(caller), handle, pipe, to).await
    }

    /// Kinds of what NATS is left to do.
    async fn waiting(&self) -> String {
        let sql = "SELECT COALESCE(string_agg(kind, ' ' ORDER BY seq), '') FROM pipe_operations WHERE status = 'pending'";
        self.test.look(sql).await
    }
}

fn forbidden<T: std::fmt::Debug>(outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error:?}");
}

fn not_found<T: std::fmt::Debug>(outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
}

fn conflict<T: std::fmt::Debug>(outcome: Result<T>, wanted: &str) {
    let error = outcome.unwrap_err();
    assert!(matches!(&error, Error::Conflict { code, .. } if *code == wanted), "{error:?}");
}

#[tokio::test]
async fn of_many_who_make_a_source_at_once_one_does() {
    let stage = Stage::new().await;
    let outcomes =
        futures_util::future::join_all((0..6).map(|_| stage.make(&stage.owner, "build", "message"))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    for outcome in outcomes.into_iter().filter(Result::is_err) {
        conflict(outcome, "E_SOURCE_TAKEN");
    }
    forbidden(stage.make(&stage.viewer, "mine", "message").await);
    let made = stage.services().sources.get(scope(&stage.viewer), "build").await.unwrap();
    assert_eq!(made.created_by_username.as_deref(), Some(scope(&stage.owner).username()));
}

#[tokio::test]
async fn another_organizations_source_is_not_found_in_any_way() {
    let stage = Stage::new().await;
    let rival = stage.test.org_with_admin("rival").await;
    stage.make(&stage.owner, "build", "pty").await.unwrap();
    let (sources, pipes, theirs) = (&stage.services().sources, &stage.services().pipes, scope(&rival.admin));
    not_found(sources.get(theirs, "build").await);
    not_found(sources.delete(theirs, "build").await);
    not_found(sources.grants(theirs, "build").await);
    not_found(stage.grant(&rival.admin, "build", json!({"everyone": true, "right": "read"})).await);
    not_found(stage.pipe(&rival.admin, "build", json!({"name": "room"})).await);
    not_found(pipes.list(theirs, "build").await);
    not_found(pipes.delete(theirs, "build", "room").await);
    not_found(stage.open(&rival.admin, "build", "inbox", PipeUse::Write).await);
    let page = sources.list(theirs, &Paging { limit: 10, cursor: None }).await.unwrap();
    assert_eq!((page.total, page.items), (0, vec![]));
    let foreign = json!({"userId": scope(&rival.admin).user_id(), "right": "read"});
    not_found(stage.grant(&stage.owner, "build", foreign).await);
}

#[tokio::test]
async fn the_creator_and_managers_change_a_source_and_nobody_else() {
    let stage = Stage::new().await;
    let made = stage.make(&stage.owner, "build", "message").await.unwrap();
    let sources = &stage.services().sources;
    for other in [&stage.friend, &stage.viewer] {
        forbidden(sources.delete(scope(other), "build").await);
        forbidden(sources.grants(scope(other), "build").await);
        forbidden(stage.pipe(other, "build", json!({"name": "room"})).await);
        forbidden(stage.grant(other, "build", json!({"everyone": true, "right": "read"})).await);
    }
    not_found(sources.delete(scope(&stage.owner), "nothing").await);
    not_found(sources.delete(scope(&stage.owner), "No.Handle").await);
    sources.delete(scope(&stage.org.admin), "build").await.unwrap();
    let sql = "SELECT actor || ' ' || (before ->> 'createdBy') FROM audit_log WHERE action = 'source.delete'";
    let line: String = stage.test.look(sql).await;
    let (admin, owner) = (scope(&stage.org.admin).user_id(), scope(&stage.owner).user_id());
    assert_eq!(line, format!("user:{admin} {owner}"), "whose it was stands in the log");
    let again = stage.make(&stage.friend, "build", "message").await.unwrap();
    assert_ne!(again.id, made.id);
}

#[tokio::test]
async fn an_inbox_is_written_by_all_and_a_terminal_is_read_and_typed_into_by_grant_alone() {
    let stage = Stage::new().await;
    stage.make(&stage.owner, "term", "pty").await.unwrap();
    let (read, write) = (PipeUse::Read, PipeUse::Write);
    for (pipe, to) in
        [("inbox", read), ("stdout", read), ("stdin", read), ("stdin", write), ("stdout", write)]
    {
        stage.open(&stage.owner, "term", pipe, to).await.unwrap();
    }
    for other in [&stage.friend, &stage.viewer, &stage.org.admin] {
        stage.open(other, "term", "inbox", write).await.unwrap();
        for (pipe, to) in [
            ("inbox", read),
            ("stdout", read),
            ("stdin", read),
            ("stdin", write),
            ("stdctrl", write),
            ("stdout", write),
        ] {
            forbidden(stage.open(other, "term", pipe, to).await);
        }
    }
    let friend = scope(&stage.friend).user_id();
    let watch = stage.grant(&stage.owner, "term", json!({"userId": friend, "right": "read"})).await.unwrap();
    stage.open(&stage.friend, "term", "stdout", read).await.unwrap();
    forbidden(stage.open(&stage.friend, "term", "stdin", write).await);
    forbidden(stage.open(&stage.friend, "term", "inbox", read).await);
    stage.grant(&stage.owner, "term", json!({"userId": friend, "right": "type"})).await.unwrap();
    stage.open(&stage.friend, "term", "stdin", write).await.unwrap();
    stage.open(&stage.friend, "term", "stdctrl", write).await.unwrap();
    stage.services().sources.revoke_grant(scope(&stage.owner), "term", watch.id).await.unwrap();
    forbidden(stage.open(&stage.friend, "term", "stdout", read).await);
    not_found(stage.services().sources.revoke_grant(scope(&stage.owner), "term", watch.id).await);
    not_found(stage.open(&stage.owner, "term", "room", read).await);
    not_found(stage.open(&stage.owner, "term", "a.*", read).await);
}

#[tokio::test]
async fn a_group_and_everyone_are_given_rights_once_each() {
    let stage = Stage::new().await;
    stage.make(&stage.owner, "term", "pty").await.unwrap();
    let admin = scope(&stage.org.admin);
    let body = json!({"name": "crew", "displayName": "The crew", "type": "team"});
    let groups = &stage.services().groups;
    let made = groups.create(admin, read::<CreateGroupRequest>(body), None, |_| json!(null)).await.unwrap();
    let MadeGroup::New(group) = made else { panic!("a new group") };
    stage.grant(&stage.owner, "term", json!({"group": "crew", "right": "read"})).await.unwrap();
    not_found(stage.grant(&stage.owner, "term", json!({"group": "nobody", "right": "read"})).await);
    forbidden(stage.open(&stage.friend, "term", "stdout", PipeUse::Read).await);
    let user_id = scope(&stage.friend).user_id();
    groups.add(admin, group.id, AddGroupMemberRequest { user_id, role: GroupRole::Member }).await.unwrap();
    stage.open(&stage.friend, "term", "stdout", PipeUse::Read).await.unwrap();
    forbidden(stage.open(&stage.viewer, "term", "stdout", PipeUse::Read).await);
    let all = json!({"everyone": true, "right": "read"});
    let first = stage.grant(&stage.owner, "term", all.clone()).await.unwrap();
    assert_eq!(stage.grant(&stage.owner, "term", all).await.unwrap().id, first.id, "given before");
    stage.open(&stage.viewer, "term", "stdout", PipeUse::Read).await.unwrap();
    let listed = stage.services().sources.grants(scope(&stage.owner), "term").await.unwrap();
    assert_eq!(listed.iter().map(|grant| grant.everyone).collect::<Vec<_>>(), [false, true]);
    let own = json!({"userId": scope(&stage.owner).user_id(), "right": "read"});
    let own = stage.grant(&stage.owner, "term", own).await;
    assert!(matches!(own, Err(Error::Invalid(_))), "{own:?}");
}

#[tokio::test]
async fn a_pipe_costs_nothing_on_nats_before_it_is_used() {
    let stage = Stage::new().await;
    stage.make(&stage.owner, "build", "message").await.unwrap();
    stage.pipe(&stage.owner, "build", json!({"name": "room", "maxMsgs": 7})).await.unwrap();
    conflict(stage.pipe(&stage.owner, "build", json!({"name": "room"})).await, "E_PIPE_TAKEN");
    assert_eq!(stage.waiting().await, "");
    let listed = stage.services().pipes.list(scope(&stage.viewer), "build").await.unwrap();
    let shown: Vec<_> =
        listed.iter().map(|pipe| (pipe.name.as_str(), pipe.auto, pipe.retention.max_msgs)).collect();
    assert_eq!(shown, [("inbox", true, 5_000), ("room", false, 7)]);
    assert!(listed.iter().all(|pipe| pipe.in_force.is_none()));
    let opened = stage.open(&stage.owner, "build", "room", PipeUse::Write).await.unwrap();
    assert_eq!((opened.stream.wanted.max_msgs, opened.pending.len()), (7, 1));
    let again = stage.open(&stage.owner, "build", "room", PipeUse::Read).await.unwrap();
    assert_eq!(again.pending, opened.pending, "nothing is asked for twice");
    assert_eq!(stage.waiting().await, "ensure_stream");
}

#[tokio::test]
async fn what_a_pipe_keeps_is_changed_within_bounds_and_told_where_its_stream_is() {
    let stage = Stage::new().await;
    stage.make(&stage.owner, "build", "message").await.unwrap();
    stage.pipe(&stage.owner, "build", json!({"name": "room", "maxMsgs": 7, "ttlSeconds": 60})).await.unwrap();
    let pipes = &stage.services().pipes;
    let change = async |caller: &Caller, name: &str, body: Value| {
        let request: UpdatePipeRequest = read(body);
        pipes.update(scope(caller), "build", name, &request.retention).await
    };
    let (after, pending) = change(&stage.owner, "room", json!({"maxMsgs": null})).await.unwrap();
    assert_eq!((after.max_msgs, after.ttl_seconds, pending.len()), (None, Some(60), 0));
    stage.open(&stage.owner, "build", "room", PipeUse::Write).await.unwrap();
    let (_, pending) = change(&stage.owner, "room", json!({"maxMsgs": 9})).await.unwrap();
    assert_eq!(pending.len(), 2, "the stream is to be made, and to be changed");
    let (_, pending) = change(&stage.owner, "room", json!({"maxMsgs": 9})).await.unwrap();
    assert_eq!(pending.len(), 2, "the same again asks for nothing");
    forbidden(change(&stage.friend, "room", json!({"maxMsgs": 1})).await);
    not_found(change(&stage.owner, "hall", json!({"maxMsgs": 1})).await);
    for (name, body) in [("room", json!({"maxBytes": 1_i64 << 40})), ("inbox", json!({"maxMsgs": 1}))] {
        let refused = change(&stage.owner, name, body).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{name}: {refused:?}");
    }
    let pending = pipes.delete(scope(&stage.owner), "build", "room").await.unwrap();
    assert_eq!(pending.len(), 3);
    assert_eq!(stage.waiting().await, "ensure_stream ensure_stream delete_stream");
    let inbox = pipes.delete(scope(&stage.owner), "build", "inbox").await;
    assert!(matches!(inbox, Err(Error::Invalid(_))), "{inbox:?}");
}

#[tokio::test]
async fn the_last_message_is_shown_to_those_who_may_read_it() {
    let stage = Stage::new().await;
    stage.make(&stage.owner, "term", "pty").await.unwrap();
    let note = async |seconds: i64, pipe: &str, text: &str| {
        let message = source::LastMessage {
            at: chrono::DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap(),
            pipe: pipe.to_owned(),
            text: text.to_owned(),
        };
        let work = async |tx: &mut OrgTx| source::update_last_broadcast(tx, "term", message).await;
        stage.test.db().in_org(scope(&stage.owner), work).await.unwrap()
    };
    let last = async |caller: &Caller| {
        let page =
            stage.services().sources.list(scope(caller), &Paging { limit: 10, cursor: None }).await.unwrap();
        (page.items[0].last_message.clone(), page.items[0].last_message_at.is_some())
    };
    assert!(note(0, "inbox", "for you").await);
    assert_eq!(last(&stage.owner).await, (Some("for you".into()), true));
    assert_eq!(last(&stage.friend).await, (None, true));
    assert_eq!(last(&stage.org.admin).await, (None, true), "managing opens nothing");
    stage.grant(&stage.owner, "term", json!({"everyone": true, "right": "read"})).await.unwrap();
    assert_eq!(last(&stage.friend).await, (None, true), "an inbox stays its owner's");
    assert!(note(1, "stdout", "$ make").await);
    assert_eq!(last(&stage.friend).await, (Some("$ make".into()), true));
}

#[tokio::test]
async fn a_source_that_goes_takes_its_stream_along() {
    let stage = Stage::new().await;
    stage.make(&stage.owner, "build", "message").await.unwrap();
    stage.open(&stage.friend, "build", "inbox", PipeUse::Write).await.unwrap();
    stage.services().sources.delete(scope(&stage.owner), "build").await.unwrap();
    assert_eq!(stage.waiting().await, "ensure_stream delete_stream");
    let work = async |tx: &mut OrgTx| pipe_operation::pending(tx, None, 10).await;
    let all = stage.test.db().in_org(scope(&stage.owner), work).await.unwrap();
    assert_eq!(all[0].1.topic(), all[1].1.topic(), "in this order");
}
