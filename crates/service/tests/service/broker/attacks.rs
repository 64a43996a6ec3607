//! Those who want more than they may have, and what happens to come in between.

use super::*;

/// Runs `work` beside a transaction that has done `sql`, and that ends once `work` waits for it or is done.
async fn beside<T>(test: &TestDb, sql: &str, work: impl Future<Output = T>) -> T {
    let holder = test.superuser().await;
    holder.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
    let mut work = std::pin::pin!(work);
    let waits = eventually("it waits", async || {
        test.look::<bool>(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
             AND usename = 'tidegate_app' AND wait_event_type = 'Lock')",
        )
        .await
    });
    let done = tokio::select! {
        done = &mut work => Some(done),
        () = waits => None,
    };
    holder.batch_execute("COMMIT").await.unwrap();
    match done {
        Some(done) => done,
        None => work.await,
    }
}

impl Stage {
    async fn make_pipe(&self, handle: &str, body: Value) {
        let request: CreatePipeRequest = read(body);
        let made =
            self.services.pipes.create(scope(&self.owner), handle, request, None, |_| json!(null)).await;
        assert!(made.is_ok(), "{made:?}");
    }

    async fn waiting(&self) -> i64 {
        self.test.look("SELECT count(*) FROM pipe_operations WHERE status = 'pending'").await
    }
}

#[tokio::test]
async fn a_key_that_somebody_else_guessed_swallows_no_message() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    let inbox = stage.services.messages.write_route(scope(&stage.friend), "build", "inbox").await.unwrap();
    let client = client!(stage.services.exchange.exchange_for(&stage.friend).await.unwrap()).unwrap();
    let admin = scope(&stage.org.admin);
    let mut headers = tidegate_test_support::nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", format!("{}:release-7", admin.user_id().as_uuid().simple()));
    let forged = json!({"id": tidegate_model::MessageId::new(), "payload": "go", "created_at": "2026-11-28T08:00:00Z"});
    client.request_with_headers(inbox.subject, headers, forged.to_string().into()).await.unwrap();
    let key = Idempotency::new(stage.org.admin.credential(), "messages", "release-7", b"").unwrap();
    let sent = async |say: &str| {
        stage.services.messages.publish(admin, "build", "inbox", text(say), Some(&key)).await.unwrap()
    };
    let first = sent("go").await;
    assert_eq!((first.sequence, first.repeated, first.envelope.sender), (2, false, admin.user_id()));
    let again = sent("go").await;
    assert_eq!((again.sequence, again.repeated, again.envelope), (2, true, first.envelope));
}

#[tokio::test]
async fn a_change_that_the_broker_refused_is_refused_again() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.make_pipe("build", json!({"name": "room"})).await;
    stage.send(&stage.friend, "build", "inbox", "hi").await.unwrap();
    stage.send(&stage.owner, "build", "room", "hi").await.unwrap();
    stage.test.execute("UPDATE nats_accounts SET max_disk_bytes = 40000000").await;
    let push = "INSERT INTO pipe_operations (id, org_id, kind, topic, next_at, created_at)
                SELECT gen_random_uuid(), org_id, 'push_account', 'account', 'epoch', 'epoch' FROM nats_accounts";
    stage.test.execute(push).await;
    stage.apply().await;
    let me = scope(&stage.owner);
    let change = async |bytes: u64| {
        let body: tidegate_model::UpdatePipeRequest = read(json!({"maxBytes": bytes}));
        let (_, operations) =
            stage.services.pipes.update(me, "build", "room", &body.retention).await.unwrap();
        stage.services.messages.settled(me, &operations).await
    };
    for _ in 0..2 {
        let full = change(30_000_000).await.unwrap_err();
        assert!(matches!(full, Error::StorageFull { .. }), "{full:?}");
    }
    change(20_000_000).await.unwrap();
    let listed = stage.services.pipes.list(me, "build").await.unwrap();
    let room = listed.iter().find(|pipe| pipe.name == "room").unwrap();
    assert_eq!(room.in_force.map(|kept| kept.max_bytes), Some(20_000_000));
}

#[tokio::test]
async fn a_source_is_gone_from_nats_when_its_end_is_answered() {
    let stage = Stage::new().await;
    stage.make("shell", "pty").await;
    for pipe in ["inbox", "stdin", "stdout"] {
        stage.send(&stage.owner, "shell", pipe, "hi").await.unwrap();
    }
    stage.services.messages.read_route(scope(&stage.owner), "shell", "inbox").await.unwrap();
    let me = scope(&stage.owner);
    let operations = stage.services.sources.delete(me, "shell").await.unwrap();
    assert_eq!(operations.len(), 3);
    stage.services.messages.settled(me, &operations).await.unwrap();
    let left: i64 = stage
        .test
        .look("SELECT count(*) FROM pipe_operations WHERE kind = 'delete_stream' AND status <> 'done'")
        .await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_deleted_organization_leaves_no_streams_and_nobody_in() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "hi").await.unwrap();
    let exchanged = stage.services.exchange.exchange_for(&stage.friend).await.unwrap();
    let client = client!(exchanged).unwrap();
    stage.services.all_organizations.delete(&Caller::console(), stage.org.id).await.unwrap();
    stage.services.broker.revoke_lapsed().await.unwrap();
    eventually("everything is done", async || {
        stage.apply().await;
        stage.waiting().await == 0
    })
    .await;
    let deleted: i64 = stage
        .test
        .look("SELECT count(*) FROM pipe_operations WHERE kind = 'delete_stream' AND status = 'done'")
        .await;
    assert_eq!(deleted, 1);
    eventually("it is cut off", async || client.connection_state().to_string() != "connected").await;
    assert!(client!(exchanged).is_err());
    let drift = stage.services.broker.reconcile().await.unwrap();
    assert_eq!((drift.failed, drift.is_some()), (0, false), "{drift:?}");
}

#[tokio::test]
async fn a_grant_that_is_being_taken_away_is_in_no_token() {
    let stage = Stage::new().await;
    stage.make("shell", "pty").await;
    stage.grant("shell", json!({"everyone": true, "right": "type"})).await;
    stage.services.exchange.exchange_for(&stage.owner).await.unwrap();
    let sql = format!(
        "SELECT 1 FROM organizations WHERE id = '{}' FOR NO KEY UPDATE; DELETE FROM source_grants",
        stage.org.id
    );
    beside(&stage.test, &sql, Box::pin(stage.services.exchange.exchange_for(&stage.friend))).await.unwrap();
    // With it, the token would have to be taken back.
    let good: bool = stage.test.look("SELECT bool_and(grants = 0 OR narrowed) FROM nats_principals").await;
    assert!(good, "the token allows for five minutes what was taken away");
}

#[tokio::test]
async fn whoever_loses_a_right_while_their_reader_is_made_gets_none() {
    let stage = Stage::new().await;
    stage.make("shell", "pty").await;
    stage.send(&stage.owner, "shell", "stdout", "secret").await.unwrap();
    stage.grant("shell", json!({"everyone": true, "right": "read"})).await;
    let sql = format!(
        "SELECT 1 FROM organizations WHERE id = '{}' FOR NO KEY UPDATE; DELETE FROM source_grants",
        stage.org.id
    );
    let friend = scope(&stage.friend);
    forbidden(
        beside(&stage.test, &sql, Box::pin(stage.services.messages.read_route(friend, "shell", "stdout")))
            .await,
    );
    stage.apply().await;
    let readers: i64 = stage.test.look("SELECT count(*) FROM read_cursors").await;
    assert_eq!(readers, 0, "a reader stays for good");
}

#[tokio::test]
async fn a_pipe_that_is_being_deleted_gets_no_stream() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.make_pipe("build", json!({"name": "room"})).await;
    let sql = "SELECT 1 FROM sources FOR UPDATE; DELETE FROM pipes";
    let sent = beside(&stage.test, sql, Box::pin(stage.send(&stage.owner, "build", "room", "hi"))).await;
    assert!(matches!(sent, Err(Error::NotFound(_))), "{sent:?}");
    let streams: i64 = stage.test.look("SELECT count(*) FROM pipe_streams").await;
    assert_eq!(streams, 0, "a stream of no pipe");
}

#[tokio::test]
async fn what_somebody_wants_at_this_moment_is_not_too_much() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "hi").await.unwrap();
    // The stream is left over from before.
    stage.test.execute("CREATE TABLE kept AS SELECT * FROM pipe_streams; DELETE FROM pipe_streams").await;
    stage.test.execute("DELETE FROM pipe_operations WHERE status = 'pending'").await;
    let sql = "INSERT INTO pipe_streams SELECT * FROM kept;
               INSERT INTO pipe_operations (id, org_id, kind, topic, source_id, pipe, next_at, created_at)
               SELECT gen_random_uuid(), org_id, 'ensure_stream', replace(source_id::text, '-', '') || '_inbox', source_id, pipe,
                      'epoch', 'epoch' FROM kept";
    let drift = beside(&stage.test, sql, Box::pin(stage.services.broker.reconcile())).await.unwrap();
    assert_eq!((drift.extra, drift.failed), (0, 0), "{drift:?}");
    stage.apply().await;
    let page = stage.read(&stage.owner, "build", "inbox", MessagesRead::After(0)).await.unwrap();
    assert_eq!(said(&page), ["hi"]);
}

#[tokio::test]
async fn nothing_is_tried_for_an_organization_that_nobody_can_connect_to() {
    let stage = Stage::new().await;
    stage.make("build", "message").await;
    stage.send(&stage.friend, "build", "inbox", "hi").await.unwrap();
    let set = async |status: &str| {
        let id = stage.org.id;
        stage.test.execute(&format!("UPDATE organizations SET status = '{status}' WHERE id = '{id}'")).await;
        stage.apply().await;
    };
    set("suspended").await;
    stage.test.execute("DELETE FROM pipe_streams").await;
    stage.apply().await;
    let tries: i32 =
        stage.test.look("SELECT attempts FROM pipe_operations WHERE kind = 'delete_stream'").await;
    assert_eq!((tries, stage.waiting().await), (0, 1));
    set("active").await;
    eventually("it is done once somebody can", async || {
        stage.apply().await;
        stage.waiting().await == 0
    })
    .await;
}

#[tokio::test]
async fn more_revocations_than_a_token_holds_take_effect_all_the_same() {
    let stage = Stage::new().await;
    let exchanged = stage.services.exchange.exchange_for(&stage.friend).await.unwrap();
    let client = client!(exchanged).unwrap();
    let sql = format!(
        "INSERT INTO nats_principals (org_id, credential, user_id, renewed_at, valid_until, revoked_at)
         SELECT '{}', 'key:' || gen_random_uuid(), '{}', now(), now() + interval '5 minutes', now() FROM generate_series(1, 12000)",
        stage.org.id,
        scope(&stage.owner).user_id()
    );
    stage.test.execute(&sql).await;
    stage.services.logins.logout(&stage.friend).await.unwrap();
    stage.services.broker.revoke_lapsed().await.unwrap();
    eventually("it is cut off", async || client.connection_state().to_string() != "connected").await;
    eventually("the token is refused", async || client!(exchanged).is_err()).await;
    let long: i32 = stage.test.look("SELECT octet_length(account_jwt) FROM nats_accounts").await;
    assert!(long < 1_000_000, "{long}");
}

#[tokio::test]
async fn a_reader_that_nobody_may_have_is_found_and_taken_away() {
    let stage = Stage::new().await;
    stage.make("shell", "pty").await;
    stage.send(&stage.owner, "shell", "stdout", "secret").await.unwrap();
    stage.grant("shell", json!({"everyone": true, "right": "read"})).await;
    let route = stage.services.messages.read_route(scope(&stage.friend), "shell", "stdout").await.unwrap();
    stage.services.messages.read_route(scope(&stage.owner), "shell", "stdout").await.unwrap();
    assert!(!stage.services.broker.reconcile().await.unwrap().is_some());
    // A process that ended in between left it.
    stage.test.execute("DELETE FROM source_grants; DELETE FROM read_cursors WHERE user_id <> (SELECT created_by FROM sources)").await;
    stage.test.execute("DELETE FROM pipe_operations WHERE status = 'pending'").await;
    let drift = stage.services.broker.reconcile().await.unwrap();
    assert_eq!((drift.readers, drift.failed), (1, 0), "{drift:?}");
    stage.apply().await;
    let drift = stage.services.broker.reconcile().await.unwrap();
    assert!(!drift.is_some(), "{drift:?}");
    let client = client!(stage.services.exchange.exchange_for(&stage.friend).await.unwrap()).unwrap();
    let pull = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", route.stream, route.reader.unwrap());
    let pulled = tokio::time::timeout(Duration::from_millis(500), client.request(pull, "1".into())).await;
    assert!(pulled.map_or(true, |answer| answer.is_err()), "it reads on");
}
