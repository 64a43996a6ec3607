//! The schema's versions: on an empty database, by several at once, and over rows that are there.

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

#[tokio::test]
async fn migrating_a_filled_database_keeps_every_row() {
    let filled = Filled::new().await;
    let test = &filled.test;
    let count = "SELECT string_agg(t.relname || ' ' || (xpath('/row/n/text()',
                   query_to_xml('SELECT count(*) AS n FROM ' || quote_ident(t.relname), false, true, '')))[1]::text, E'\\n' ORDER BY t.relname)
                 FROM pg_class t WHERE t.relnamespace = 'public'::regnamespace AND t.relkind = 'r'";
    let before: String = test.look(count).await;
    assert!(before.contains("sessions 4"), "{before}");
    assert_eq!(migrate::run(&test.migrator_url()).await.unwrap(), Vec::<String>::new());
    assert_eq!(test.look::<String>(count).await, before);
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
