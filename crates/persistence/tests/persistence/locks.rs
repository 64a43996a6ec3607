//! What must not change while somebody decides by it is locked until they have.

use tidegate_model::{Clock, SystemClock};
use tidegate_persistence::{Operator, credential, device_code, user_change};
use tidegate_test_support::TestDb;

/// Whether a statement waits for somebody's lock.
async fn waits(test: &TestDb, sql: &str) -> bool {
    let other = test.superuser().await;
    let refused =
        other.batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = '50ms'; {sql}; ROLLBACK")).await;
    refused.is_err_and(|error| error.code().is_some_and(|code| code.code() == "55P03"))
}

#[tokio::test]
async fn whoever_is_let_in_by_a_device_stays_a_member_until_the_token_is_made() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let user = org.admin.user().user_id();
    let (db, console) = (test.db(), Operator::console());
    let leaving = [
        format!("DELETE FROM memberships WHERE user_id = '{user}'"),
        format!("UPDATE users SET active = false WHERE id = '{user}'"),
        format!("UPDATE organizations SET status = 'deleted' WHERE id = '{}'", org.id),
    ];
    for sql in &leaving {
        assert!(!waits(&test, sql).await, "{sql}");
    }
    let held = db.in_platform(&console, async |tx| {
        let name = device_code::may_act(tx, user, org.id).await?;
        for sql in &leaving {
            assert!(waits(&test, sql).await, "{sql}");
        }
        Ok::<_, tidegate_persistence::Error>(name)
    });
    assert_eq!(held.await.unwrap().as_deref(), Some(org.admin.user().username()));
    test.execute(&leaving[0]).await;
    let gone = db.in_platform(&console, async |tx| device_code::may_act(tx, user, org.id).await);
    assert_eq!(gone.await.unwrap(), None);
}

#[tokio::test]
async fn a_user_and_a_credential_that_are_held_end_later() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let user = org.admin.user().user_id();
    let deactivate = format!("UPDATE users SET active = false WHERE id = '{user}'");
    let end = format!("SELECT pg_advisory_xact_lock(hashtextextended('{user}', 7526411283028599910))");
    let db = test.db();
    let held = db.in_user(org.admin.user(), async |tx| {
        let held = user_change::hold_own(tx).await?;
        assert!(waits(&test, &deactivate).await && !waits(&test, &end).await);
        Ok::<_, tidegate_persistence::Error>(held)
    });
    assert!(held.await.unwrap());
    let now = test.manual_clock().now();
    let held = db.in_user(org.admin.user(), async |tx| {
        let held = credential::hold_own(tx, now).await?;
        assert!(waits(&test, &end).await);
        Ok::<_, tidegate_persistence::Error>(held)
    });
    assert!(held.await.unwrap());
    // Long after the login's own end.
    let late = SystemClock::new().now();
    assert!(!db.in_user(org.admin.user(), async |tx| credential::hold_own(tx, late).await).await.unwrap());
    test.execute(&deactivate).await;
    assert!(!db.in_user(org.admin.user(), async |tx| user_change::hold_own(tx).await).await.unwrap());
    assert!(!db.in_user(org.admin.user(), async |tx| credential::hold_own(tx, now).await).await.unwrap());
}
