//! What is past its time goes, what is not stays, and one control plane sweeps at a time.

use std::path::Path;

use chrono::TimeDelta;
use serde_json::json;
use tidegate_model::{CreateInviteRequest, OrgRole, Scope, SessionState, StreamKind, StreamMode};
use tidegate_test_support::TestDb;
use tokio_util::sync::CancellationToken;

use crate::keys::{mint, wanted};

/// An ended session with its history, an ended login, a revoked key, an invite with its mail, a kept answer and a used ticket.
async fn ended_things(test: &TestDb) -> tidegate_service::Caller {
    let org = test.org_with_admin("acme").await;
    let (services, scope) = (test.services(), org.admin.org().unwrap());
    let mut agent = test.online_agent("vm-1", 5).await;
    let key = tidegate_service::Idempotency::new(scope.credential(), "POST /sessions", "one", b"{}").unwrap();
    let new = tidegate_test_support::new_session("shell");
    let made = services.sessions.create(scope, new, Some(&key), |_, _| json!(null)).await.unwrap();
    let session = crate::queued(made);
    agent.work().await;
    services.streams.connect(scope, session.id, StreamKind::Terminal, StreamMode::View).await.unwrap();
    services.events.ticket(&org.admin).await.unwrap();
    services.sessions.terminate(scope, session.id).await.unwrap();
    agent.work().await;
    assert_eq!(crate::state(test, &org.admin, session.id).await, SessionState::Terminated);
    let (key, _) = mint(&services.keys, &org.admin, &wanted(&[Scope::Streams])).await.unwrap();
    services.keys.revoke_api_key(scope, key.id, None).await.unwrap();
    let invite = CreateInviteRequest {
        username: "friend".into(),
        role: OrgRole::User,
        expires_in: TimeDelta::days(1),
    };
    services.invites.create(scope, invite, None, |_| json!(null)).await.unwrap();
    // There is no such friend, so that the mail ends at once.
    let post = tidegate_service::MailOptions::default().open(Path::new("/nowhere"), "").unwrap();
    assert_eq!(services.mails.send_due(&post, &CancellationToken::new()).await.unwrap(), 1);
    org.admin
}

const LEFT: &str = "SELECT concat_ws(' ', (SELECT count(*) FROM sessions), (SELECT count(*) FROM session_events),
    (SELECT count(*) FROM session_specs), (SELECT count(*) FROM commands), (SELECT count(*) FROM stream_tickets),
    (SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM api_keys), (SELECT count(*) FROM invites),
    (SELECT count(*) FROM login_sessions))";

#[tokio::test]
async fn what_is_past_its_time_goes_and_what_lives_stays() {
    let test = TestDb::new().await;
    let admin = ended_things(&test).await;
    let before: String = test.look(LEFT).await;
    assert!(test.services().operators.tidy().await.unwrap().is_empty(), "nothing is old yet");
    assert_eq!(test.look::<String>(LEFT).await, before);
    let living = test.pending_session(&admin).await;
    test.manual_clock().advance(TimeDelta::days(400));
    let gone = test.services().operators.tidy().await.unwrap();
    for table in [
        "commands",
        "events",
        "event_tickets",
        "sessions",
        "stream_tickets",
        "idempotency_keys",
        "api_keys",
        "mails",
        "invites",
        "login_sessions",
    ] {
        assert!(gone.iter().any(|(name, rows)| *name == table && *rows > 0), "{table} in {gone:?}");
    }
    // The living session with its command; its history has an age of its own.
    assert_eq!(test.look::<String>(LEFT).await, "1 0 0 1 0 0 0 0 0", "{gone:?}");
    assert_eq!(test.look::<String>("SELECT id::text FROM sessions").await, living.id.to_string());
}

#[tokio::test]
async fn one_control_plane_sweeps_at_a_time() {
    let test = TestDb::new().await;
    ended_things(&test).await;
    test.manual_clock().advance(TimeDelta::days(400));
    let other = test.superuser().await;
    other.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(8243122675226502500)").await.unwrap();
    assert!(test.services().operators.tidy().await.unwrap().is_empty());
    other.batch_execute("ROLLBACK").await.unwrap();
    assert!(!test.services().operators.tidy().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_deleted_keeps_nothing_else_from_going() {
    let test = TestDb::new().await;
    ended_things(&test).await;
    test.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON commands FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    test.manual_clock().advance(TimeDelta::days(400));
    test.services().operators.tidy().await.unwrap_err();
    // Sessions wait for their commands; everything else is gone.
    assert_eq!(test.look::<String>(LEFT).await, "1 0 0 2 0 0 0 0 0");
}

#[tokio::test]
async fn many_batches_go_in_one_sweep_and_the_audit_log_is_among_them() {
    let test = TestDb::new().await;
    test.execute(
        "INSERT INTO audit_log (id, actor, actor_key, action, resource, at)
         SELECT gen_random_uuid(), 'system', 'system', 'test', 'test:' || n, '2000-01-01' FROM generate_series(1, 12000) n",
    )
    .await;
    let gone = test.services().operators.tidy().await.unwrap();
    assert_eq!(gone, [("audit_log", 12_000)]);
}
