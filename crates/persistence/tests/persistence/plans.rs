//! Which index a look may use, however wrong the statistics are, and what a command's way costs.

use chrono::DateTime;
use tidegate_model::{Retention, SourceRight};
use tidegate_persistence::{
    Operator, OrgScope, auth, pipe,
    pipe_operation::{self, Operation},
    pipe_stream::InForce,
};
use tidegate_test_support::{
    TestDb,
    catalog::{plugin, template},
};
use tokio_postgres::Client;

/// How PostgreSQL would answer without the index that is meant for it.
async fn without(client: &Client, index: &str, sql: &str) -> String {
    // Statistics of a moment without a session that is there: every partial index looks empty.
    client
        .batch_execute(&format!("BEGIN; SET LOCAL enable_seqscan = off; DROP INDEX {index}"))
        .await
        .unwrap();
    let rows = client.query(&format!("EXPLAIN {sql}"), &[]).await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn no_index_of_all_that_is_there_is_read_for_what_one_owner_has() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let mut agent = test.online_agent("vm-1", 10).await;
    test.running_session(&org.admin, &mut agent).await;
    test.execute("ANALYZE sessions, commands").await;
    let client = test.superuser().await;
    let there = "state IN ('pending', 'running', 'waking', 'hibernating', 'terminating')";
    let id = "'01890000-0000-7000-8000-000000000000'";
    for (index, sql) in [
        ("sessions_agent_active", format!("SELECT FROM sessions WHERE agent_id = {id} AND {there}")),
        ("sessions_org_active", format!("SELECT FROM sessions WHERE org_id = {id} AND {there}")),
        (
            "sessions_user_living",
            format!("SELECT FROM sessions WHERE user_id = {id} AND state NOT IN ('terminated', 'failed')"),
        ),
        ("sessions_waiting", format!("SELECT FROM sessions WHERE state_since < now() AND {there}")),
        ("commands_open", format!("SELECT FROM commands WHERE agent_id = {id} AND completed_at IS NULL")),
        ("commands_deadline", "SELECT FROM commands WHERE deadline < now() AND completed_at IS NULL".into()),
    ] {
        let plan = without(&client, index, &sql).await;
        for other in ["_active", "_living", "_waiting", "_deadline"] {
            assert!(!plan.contains(other), "instead of {index}:\n{plan}");
        }
    }
}

#[tokio::test]
async fn a_command_on_its_way_is_entered_into_no_index_anew() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    test.online_agent("vm-1", 10).await;
    test.pending_session(&org.admin).await;
    let client = test.superuser().await;
    client.batch_execute("BEGIN").await.unwrap();
    for change in [
        "status = 'sent', sent_at = now(), sent_epoch = sent_epoch + 1",
        "status = 'ack', acknowledged_at = now()",
    ] {
        client.batch_execute(&format!("UPDATE commands SET {change}")).await.unwrap();
    }
    let row = client
        .query_one(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_all_tables WHERE relname = 'commands'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 2));
}

#[tokio::test]
async fn the_catalog_is_searched_by_its_indexes_under_row_level_security() {
    let test = TestDb::new().await;
    let of = test.repository("official").await;
    let many = |n: usize| serde_json::json!({"category": format!("of {n}"), "tags": [format!("tag-{n}")], "description": "one of many"});
    let templates: Vec<_> = (0..2_000).map(|n| template(&format!("tool-{n}"), &many(n))).collect();
    let plugins: Vec<_> = (0..2_000).map(|n| plugin(&format!("tool-{n}"), &many(n))).collect();
    test.sync(of, &templates, &plugins).await;
    test.execute("ANALYZE catalog_templates, catalog_plugins, template_stats, plugin_stats").await;
    let app = test.app().await;
    app.batch_execute("SET ROLE tidegate_user; SET enable_seqscan = off").await.unwrap();
    for (table, stats, id) in [
        ("catalog_templates", "template_stats", "template_id"),
        ("catalog_plugins", "plugin_stats", "plugin_id"),
    ] {
        for (condition, indexes) in [
            (
                "e.search @@ (to_tsquery('simple', 'firef:*') || plainto_tsquery('english', 'firef')) OR 'firfox' <% e.title",
                ["_search", "_title"].as_slice(),
            ),
            ("e.tags @> ARRAY['tag-7']", &["_tags"]),
            ("lower(e.category) = 'of 7'", &["_category"]),
        ] {
            let sql =
                format!("EXPLAIN SELECT e.id FROM {table} e WHERE e.withdrawn_at IS NULL AND ({condition})");
            let rows = app.query(&sql, &[]).await.unwrap();
            let plan = rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n");
            for index in indexes {
                assert!(plan.contains(&format!("{table}{index}")), "{plan}");
            }
        }
        let sql = format!("EXPLAIN SELECT {id} FROM {stats} ORDER BY install_count DESC, {id} DESC LIMIT 20");
        let plan: String =
            app.query(&sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)).collect();
        assert!(plan.contains(&format!("{stats}_popular")), "{plan}");
    }
}

/// Sources of which each has a stream, as many as make a plan for few of them show.
async fn sources(test: &TestDb, scope: &OrgScope, handles: std::ops::Range<usize>) {
    let (org, user, first, end) = (scope.org_id(), scope.user_id(), handles.start, handles.end - 1);
    let made = format!(
        "WITH made AS (
             INSERT INTO sources (id, org_id, created_by, handle, kind, created_at)
             SELECT gen_random_uuid(), '{org}', '{user}', 's-' || n, 'message', now() FROM generate_series({first}, {end}) n
             RETURNING id)
         INSERT INTO pipe_streams (org_id, source_id, pipe, ttl_seconds, max_msgs, max_bytes, created_at,
                                   force_ttl_seconds, force_max_msgs, force_max_bytes, incarnation, seen_at)
         SELECT '{org}', id, 'inbox', 60, 5, 1024, now(), 60, 5, 1024, now(), now() FROM made"
    );
    test.execute(&made).await;
}

#[tokio::test]
async fn after_a_burst_of_new_sources_a_message_reads_the_stream_of_its_own() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let (db, scope) = (test.db(), org.admin.org().unwrap());
    let (place, system, now) = (("s-0", "inbox"), Operator::system(), DateTime::UNIX_EPOCH);
    let in_force = InForce { retention: Retention::default(), incarnation: now };
    let asked = async || {
        let found = auth::writable_pipe(&db, scope, place, SourceRight::to_write("inbox")).await.unwrap();
        assert!(found.is_some());
        let usable = db.in_org_hot(scope, async |tx| pipe::usable(tx, place, true).await).await.unwrap();
        assert!(usable.stream.is_some());
        let wanted = Operation::EnsureStream(usable.source.id, "inbox".into());
        let id = db.in_org(scope, async |tx| pipe_operation::insert(tx, &wanted, now).await).await.unwrap();
        let made = async |tx: &mut _| pipe_operation::finish_made(tx, (id, 0), in_force, now).await;
        assert!(db.in_platform_hot(&system, made).await.unwrap());
    };
    // The plan is kept from when there were few, and nobody has counted them since.
    sources(&test, scope, 0..3).await;
    for _ in 0..10 {
        asked().await;
    }
    sources(&test, scope, 3..800).await;
    // What a connection has read is counted at its end at the latest.
    asked().await;
    test.kill_connections().await;
    let counted =
        "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'pipe_streams'";
    let read: i64 = test.look(counted).await;
    assert!((1..200).contains(&read), "{read} rows of streams were read to find one");
}

#[tokio::test]
async fn marked_credentials_are_found_without_reading_those_that_are_good() {
    let test = TestDb::new().await;
    let acme = test.org_with_admin("acme").await;
    let (org, user) = (acme.id, acme.admin.org().unwrap().user_id());
    test
        .execute(&format!(
            "INSERT INTO nats_principals (org_id, credential, user_id, renewed_at, valid_until)
             SELECT '{org}', 'login:' || gen_random_uuid(), '{user}', now(), now() + interval '5 minutes' FROM generate_series(1, 20000);
             UPDATE nats_principals SET narrowed = true
             WHERE credential IN (SELECT credential FROM nats_principals ORDER BY credential LIMIT 3);
             ANALYZE nats_principals"
        ))
        .await;
    let client = test.superuser().await;
    let explained = async |sql: &str| {
        let rows = client.query(&format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}"), &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
    };
    let plan = explained(
        "SELECT p.org_id, p.credential FROM nats_principals p
         WHERE p.narrowed AND (p.revoked_at IS NULL OR p.revoked_at < p.renewed_at) AND p.valid_until > now()
         ORDER BY p.valid_until LIMIT 1000",
    )
    .await;
    assert!(plan.contains("nats_principals_narrowed") && plan.contains("rows=3 loops=1"), "{plan}");
    let plan = explained(
        "SELECT p.* FROM nats_principals p WHERE (p.org_id, p.credential) > ('00000000-0000-0000-0000-000000000000', '')
         ORDER BY p.org_id, p.credential LIMIT 1000",
    )
    .await;
    assert!(plan.contains("nats_principals_pkey") && plan.contains("rows=1000 loops=1"), "{plan}");
}
