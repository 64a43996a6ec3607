//! The schema's versions: on an empty database, by several at once, and over rows that are there.

use std::{fs, path::Path};

use tidegate_persistence::{migrate, system};
use tidegate_test_support::TestDb;

use crate::Filled;

#[tokio::test]
async fn two_that_migrate_an_empty_database_at_once_both_succeed() {
    let test = TestDb::empty().await;
    let url = test.migrator_url();
    let runs = (0..3).map(|_| migrate::run(&url));
    let mut applied = Vec::new();
    for outcome in futures_util::future::join_all(runs).await {
        applied.push(outcome.unwrap().len());
    }
    applied.sort_unstable();
    let all = applied.pop().unwrap();
    assert!(all > 0, "one of them did the work");
    assert_eq!(applied, [0, 0], "the others found it done");
    assert!(system::health(&test.db()).await.unwrap().migrated);
}

/// Every table with the number of its rows.
const COUNTS: &str = "SELECT string_agg(t.relname || ' ' || (xpath('/row/n/text()',
               query_to_xml('SELECT count(*) AS n FROM ' || quote_ident(t.relname), false, true, '')))[1]::text, E'\\n' ORDER BY t.relname)
             FROM pg_class t WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p')
               AND t.relname <> '__diesel_schema_migrations' AND NOT t.relispartition";

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let filled = Filled::new().await;
    let test = &filled.test;
    let before: String = test.look(COUNTS).await;
    assert!(before.contains("sessions 4"), "{before}");
    assert_eq!(migrate::run(&test.migrator_url()).await.unwrap(), Vec::<String>::new());
    assert_eq!(test.look::<String>(COUNTS).await, before);
}

/// The version that `filled-000018.sql` was taken from.
const FILLED: &str = "2026-11-28-000018_plans";

#[tokio::test]
async fn migrating_a_filled_database_of_an_earlier_version_keeps_every_row() {
    let test = TestDb::empty().await;
    let later = migrate_up_to(&test, FILLED).await;
    let superuser = test.superuser().await;
    superuser.batch_execute("SET session_replication_role = replica").await.unwrap();
    superuser.batch_execute(include_str!("filled-000018.sql")).await.unwrap();
    let before: String = test.look(COUNTS).await;
    assert!(before.contains("sessions 4") && before.contains("memberships 4"), "{before}");

    assert_eq!(migrate::run(&test.migrator_url()).await.unwrap().len(), later);
    let counted: String = test.look(COUNTS).await;
    let after: Vec<&str> = counted.lines().collect();
    for count in before.lines() {
        assert!(after.contains(&count), "{count}, afterwards {after:?}");
    }
    assert!(system::health(&test.db()).await.unwrap().migrated);
}

/// Applies the migrations up to one of them, as earlier programs did, and returns how many are left.
async fn migrate_up_to(test: &TestDb, last: &str) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let url = test.migrator_url();
    let (migrator, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let table = "CREATE TABLE __diesel_schema_migrations
        (version varchar(50) PRIMARY KEY, run_on timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP)";
    migrator.batch_execute(table).await.unwrap();
    let position = names.iter().position(|name| name == last).unwrap();
    for name in &names[..=position] {
        let sql = fs::read_to_string(folder.join(name).join("up.sql")).unwrap();
        let version = name.split('_').next().unwrap().replace('-', "");
        let noted = format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}')");
        migrator.batch_execute(&format!("BEGIN; {sql}; {noted}; COMMIT")).await.unwrap();
    }
    names.len() - position - 1
}

#[tokio::test]
async fn only_the_owner_of_the_schema_migrates() {
    let test = TestDb::empty().await;
    migrate::run(&test.app_url()).await.unwrap_err();
    assert!(!system::health(&test.db()).await.unwrap().migrated);
}

#[tokio::test]
async fn a_database_that_is_away_cannot_be_migrated() {
    let test = TestDb::empty().await;
    let outage = test.outage().await;
    let error = migrate::run(&test.migrator_url()).await.unwrap_err();
    assert!(matches!(error, tidegate_persistence::Error::Unavailable(_)), "{error:?}");
    outage.end().await;
}
