//! Transactions that end badly: dropped, killed, without a database.

use std::sync::Arc;

use tidegate_model::{Clock, OrgId};
use tidegate_persistence::{
    Db, Error, Operator, Options, PlatformTx, audit,
    organization::{self, NewOrganization},
};
use tidegate_test_support::{TestDb, eventually};
use tokio::sync::Notify;

async fn insert(test: &TestDb, tx: &mut PlatformTx, name: &str) -> Result<(), Error> {
    let now = test.manual_clock().now();
    let new = NewOrganization::named(OrgId::new(), name, None, now);
    organization::insert(tx, new).await
}

async fn exists(test: &TestDb, name: &str) -> bool {
    let found = test
        .db()
        .in_platform(&Operator::console(), async |tx| organization::find_by_name(tx, name).await)
        .await;
    match found {
        Ok(_) => true,
        Err(Error::NotFound) => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// A pool of one connection: what one transaction leaves behind, the next one meets.
fn narrow(test: &TestDb) -> Db {
    let options = Options {
        url: test.app_url(),
        max_connections: 1,
        acquire_timeout_seconds: 30,
        ..Options::default()
    };
    Db::new(&options).unwrap()
}

#[tokio::test]
async fn a_text_that_cannot_be_stored_is_told_from_a_fault_of_ours() {
    let test = TestDb::new().await;
    let (db, console, at) = (test.db(), Operator::console(), test.manual_clock().now());
    let plain = db.in_platform(&console, async |tx| insert(&test, tx, "nul\0").await).await;
    assert!(matches!(plain, Err(Error::Unstorable(_))), "{plain:?}");
    let detail = serde_json::json!({"a": ["\0"]});
    let entry = audit::Entry { action: "test", resource: "x:y".into(), address: None, detail, at };
    let object = db.in_platform(&console, async |tx| audit::insert_platform(tx, entry).await).await;
    assert!(matches!(object, Err(Error::Unstorable(_))), "{object:?}");
}

#[tokio::test]
async fn a_transaction_that_is_dropped_half_way_commits_nothing_and_leaves_the_pool_usable() {
    let test = TestDb::new().await;
    let db = narrow(&test);
    for round in 0..3 {
        let half_way = Arc::new(Notify::new());
        let reached = Arc::clone(&half_way);
        let operator = Operator::console();
        let work = db.in_platform(&operator, async |tx| {
            insert(&test, tx, "half-done").await?;
            reached.notify_one();
            std::future::pending::<Result<(), Error>>().await
        });
        tokio::select! {
            _ = work => panic!("it waits for ever"),
            () = half_way.notified() => {}
        }
        assert!(!exists(&test, "half-done").await, "round {round}");
        // The only connection there is.
        db.in_platform(&Operator::console(), async |tx| organization::find_by_name(tx, "none").await)
            .await
            .unwrap_err();
    }
}

#[tokio::test]
async fn a_transaction_that_is_dropped_inside_a_statement_commits_nothing() {
    let test = TestDb::new().await;
    let db = narrow(&test);
    let other = test.superuser().await;
    // The unique name is taken by a transaction that has not ended: whoever wants it too, waits.
    let take = "BEGIN; INSERT INTO organizations (id, name, display_name, k8s_namespace, status, created_at, updated_at)
                VALUES (gen_random_uuid(), 'acme', 'acme', 'acme', 'active', now(), now())";
    other.batch_execute(take).await.unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let operator = Operator::console();
    tokio::select! {
        _ = db.in_platform(&operator, async |tx| insert(&test, tx, "acme").await) => panic!("it waits"),
        () = eventually("a statement that waits", async || test.look::<i64>(waits).await > 0) => {}
    }
    other.batch_execute("ROLLBACK").await.unwrap();
    db.in_platform(&operator, async |tx| insert(&test, tx, "acme").await).await.unwrap();
    assert!(exists(&test, "acme").await);
}

#[tokio::test]
async fn an_error_rolls_back() {
    let test = TestDb::new().await;
    let outcome: Result<(), Error> = test
        .db()
        .in_platform(&Operator::console(), async |tx| {
            insert(&test, tx, "undone").await?;
            Err(Error::NotFound)
        })
        .await;
    assert!(matches!(outcome, Err(Error::NotFound)));
    assert!(!exists(&test, "undone").await);
}

#[tokio::test]
async fn a_failed_statement_leaves_the_connection_usable() {
    let test = TestDb::new().await;
    let db = narrow(&test);
    let twice = db
        .in_platform(&Operator::console(), async |tx| {
            insert(&test, tx, "acme").await?;
            insert(&test, tx, "acme").await
        })
        .await;
    assert!(matches!(twice, Err(Error::Violation(_))), "{twice:?}");
    db.in_platform(&Operator::console(), async |tx| insert(&test, tx, "acme").await).await.unwrap();
    assert!(exists(&test, "acme").await);
}

#[tokio::test]
async fn killed_backends_are_survived_by_the_next_transaction() {
    let test = TestDb::new().await;
    let (db, operator) = (test.db(), Operator::console());
    // Several connections, all of them in the pool when they die.
    let several =
        (0..5).map(|_| db.in_platform(&operator, async |tx| organization::find_by_name(tx, "none").await));
    futures_util::future::join_all(several).await;
    for round in 0..3 {
        let killed = test.kill_connections().await;
        assert!(killed > 0, "round {round}");
        assert!(!exists(&test, "none").await);
        db.now().await.unwrap_or_else(|error| panic!("a lookup outside of a transaction: {error:?}"));
    }
}

#[tokio::test]
async fn a_backend_killed_within_a_transaction_is_unavailable_and_not_a_fault() {
    let test = TestDb::new().await;
    let outcome = test
        .db()
        .in_platform(&Operator::console(), async |tx| {
            insert(&test, tx, "lost").await?;
            assert!(test.kill_connections().await > 0);
            insert(&test, tx, "lost-too").await
        })
        .await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    let outcome = test
        .db()
        .in_platform(&Operator::console(), async |tx| {
            insert(&test, tx, "lost").await?;
            assert!(test.kill_connections().await > 0);
            Ok::<_, Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::Unavailable(_))), "at COMMIT: {outcome:?}");
    assert!(!exists(&test, "lost").await);
}

#[tokio::test]
async fn a_statement_is_good_for_many_calls_on_one_connection() {
    let test = TestDb::new().await;
    let db = narrow(&test);
    let operator = Operator::console();
    for name in ["one-a", "one-b", "one-c"] {
        db.in_platform(&operator, async |tx| insert(&test, tx, name).await).await.unwrap();
    }
    db.in_platform(&operator, async |tx| {
        for name in ["one-a", "one-b", "one-c"] {
            assert_eq!(organization::find_by_name(tx, name).await?.name, name);
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_until_it_is_back() {
    let test = TestDb::new().await;
    assert!(!exists(&test, "none").await);
    let outage = test.outage().await;
    let operator = Operator::console();
    for _ in 0..3 {
        let outcome =
            test.db().in_platform(&operator, async |tx| organization::find_by_name(tx, "none").await).await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
        let outcome = test.db().now().await;
        assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
    }
    outage.end().await;
    assert!(!exists(&test, "none").await);
}

#[tokio::test]
async fn nobody_inherits_the_role_of_the_transaction_before() {
    let test = TestDb::new().await;
    let db = narrow(&test);
    db.in_platform(&Operator::console(), async |tx| insert(&test, tx, "acme").await).await.unwrap();
    // A lookup outside of any transaction runs as the login role, which may call it; the scope roles may not.
    assert!(!tidegate_persistence::auth::admin_exists(&db).await.unwrap());
}
