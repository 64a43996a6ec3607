//! Keys that are brought at one time: looked up in one statement, each answered for itself, and none as of a moment before
//! it was brought.

use std::sync::Arc;

use futures_util::future::join_all;
use tidegate_model::Scope;
use tidegate_service::{Caller, Error};
use tidegate_test_support::{TestDb, eventually};
use tokio::task::JoinHandle;

use crate::keys::{Stage, ended, mint, wanted};

/// Statements that wait for a lock.
const WAITS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
/// More than one statement takes.
const MANY: usize = 300;

type Asked = JoinHandle<Result<Caller, Error>>;

/// Brings the stage's key so many times, each in a task of its own.
fn brought(stage: &Arc<Stage>, count: usize) -> Vec<Asked> {
    let one = |_| {
        let stage = Arc::clone(stage);
        tokio::spawn(async move { stage.comes_in().await })
    };
    (0..count).map(one).collect()
}

async fn answers(asked: Vec<Asked>) -> Vec<Result<Caller, Error>> {
    join_all(asked).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_keys_at_one_time_each_stands_for_its_own() {
    let test = TestDb::new().await;
    let (logins, mut brought) = (&test.services().logins, Vec::new());
    for name in ["acme", "bolt", "crab"] {
        let org = test.org_with_admin(name).await;
        let keys = &test.services().keys;
        let (_, good) = mint(keys, &org.admin, &wanted(&[Scope::SessionsRead])).await.unwrap();
        let (revoked, over) = mint(keys, &org.admin, &wanted(&[Scope::SessionsRead])).await.unwrap();
        keys.revoke_api_key(org.admin.org().unwrap(), revoked.id, None).await.unwrap();
        brought.push((good.clone(), None, Ok(Some(org.id))));
        brought.push((good.clone(), Some(name), Ok(Some(org.id))));
        brought.push((good, Some("delta"), Ok(None)));
        brought.push((over, None, Err(())));
    }
    let asked = brought.iter().cycle().take(MANY).map(async |(key, org, right)| {
        let caller = logins.authenticate(key, *org).await;
        let seen = caller.map(|caller| caller.org().ok().map(tidegate_service::OrgScope::org_id));
        assert_eq!(seen.map_err(drop), *right, "{key} for {org:?}");
    });
    join_all(asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_after_a_revocation_is_not_answered_by_a_statement_from_before_it() {
    let stage = Arc::new(Stage::new(&[Scope::SessionsRead]).await);
    assert!(stage.comes_in().await.is_ok());
    let holder = stage.test.superuser().await;
    holder.batch_execute("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // All that may be under way, held in the middle.
    let before = brought(&stage, MANY);
    eventually("statements that wait", async || stage.test.look::<i64>(WAITS).await > 0).await;
    holder.batch_execute("UPDATE api_keys SET revoked_at = now(); COMMIT").await.unwrap();
    let after = brought(&stage, MANY);
    assert!(answers(after).await.iter().all(ended), "brought after the revocation");
    for answer in answers(before).await {
        assert!(answer.is_ok() || ended(&answer), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_waited_for_their_turn_are_told_what_is_so_when_it_comes() {
    let stage = Arc::new(Stage::new(&[Scope::SessionsRead]).await);
    assert!(stage.comes_in().await.is_ok());
    let holder = stage.test.superuser().await;
    holder.batch_execute("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut asked = brought(&stage, 2 * MANY);
    eventually("statements that wait", async || stage.test.look::<i64>(WAITS).await > 1).await;
    // At most two statements of at most 128 were sent before the key was revoked.
    asked.extend(brought(&stage, MANY));
    holder.batch_execute("UPDATE api_keys SET revoked_at = now(); COMMIT").await.unwrap();
    let refused = answers(asked).await.iter().filter(|answer| ended(answer)).count();
    assert!(refused >= 3 * MANY - 2 * 128, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_a_statement_is_under_way_disturbs_nobody() {
    let stage = Arc::new(Stage::new(&[Scope::SessionsRead]).await);
    let holder = stage.test.superuser().await;
    holder.batch_execute("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let (leaving, staying) = (brought(&stage, MANY), brought(&stage, MANY));
    eventually("statements that wait", async || stage.test.look::<i64>(WAITS).await > 0).await;
    for asked in &leaving {
        asked.abort();
    }
    for asked in leaving {
        assert!(asked.await.unwrap_err().is_cancelled());
    }
    holder.batch_execute("COMMIT").await.unwrap();
    assert!(answers(staying).await.iter().all(Result::is_ok));
    assert!(stage.comes_in().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_to_everybody_and_forgotten_when_it_is_over() {
    let stage = Arc::new(Stage::new(&[Scope::SessionsRead]).await);
    assert!(stage.comes_in().await.is_ok());
    let outage = stage.test.outage().await;
    for answer in answers(brought(&stage, MANY)).await {
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    }
    outage.end().await;
    assert!(answers(brought(&stage, MANY)).await.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_dies_under_a_statement_is_an_outage_for_those_it_carried() {
    let stage = Arc::new(Stage::new(&[Scope::SessionsRead]).await);
    let holder = stage.test.superuser().await;
    holder.batch_execute("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let asked = brought(&stage, 8);
    eventually("statements that wait", async || stage.test.look::<i64>(WAITS).await > 0).await;
    assert!(stage.test.kill_connections().await > 0);
    holder.batch_execute("COMMIT").await.unwrap();
    let answers = answers(asked).await;
    assert!(answers.iter().any(Result::is_err));
    for answer in &answers {
        assert!(matches!(answer, Ok(_) | Err(Error::Unavailable(_))), "{answer:?}");
    }
    assert!(stage.comes_in().await.is_ok());
}

#[test]
fn the_end_of_the_runtime_that_asked_leaves_the_others_served() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let stage = second.block_on(async { Arc::new(Stage::new(&[Scope::SessionsRead]).await) });
    let holder = second.block_on(async {
        let holder = stage.test.superuser().await;
        holder.batch_execute("BEGIN; LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
        holder
    });
    let asked = first.block_on(async { brought(&stage, 8) });
    second.block_on(async {
        eventually("statements that wait", async || stage.test.look::<i64>(WAITS).await > 0).await;
    });
    // As a serving thread ends: in the middle of what it carried.
    first.shutdown_background();
    second.block_on(async {
        for asked in asked {
            assert!(asked.await.is_err());
        }
        holder.batch_execute("COMMIT").await.unwrap();
        eventually("it is let in again", async || stage.comes_in().await.is_ok()).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_fails_for_its_own_key_alone() {
    let stage = Stage::new(&[Scope::SessionsRead]).await;
    let (logins, keys) = (&stage.test.services().logins, stage.keys());
    let newer = stage.test.org_with_admin("newer").await;
    let (_, strange) = mint(keys, &newer.admin, &wanted(&[Scope::SessionsRead])).await.unwrap();
    // As a later version may write it.
    let check = "SELECT string_agg(format('DROP CONSTRAINT %I', conname), ', ') FROM pg_constraint
                 WHERE conrelid = 'memberships'::regclass AND contype = 'c'";
    let checks: String = stage.test.look(check).await;
    stage.test.execute(&format!("ALTER TABLE memberships {checks}")).await;
    let later = format!("UPDATE memberships SET role = 'archon' WHERE org_id = '{}'", newer.id);
    stage.test.execute(&later).await;
    let asked = [&stage.plaintext, &strange].into_iter().cycle().take(40).map(async |key| {
        let answer = logins.authenticate(key, None).await;
        if *key == strange {
            assert!(matches!(answer, Err(Error::Internal(_))), "{answer:?}");
        } else {
            assert!(answer.is_ok(), "{answer:?}");
        }
    });
    join_all(asked).await;
}
