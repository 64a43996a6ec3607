//! The audit log is append-only, says nothing in another one's name, and is searched by its indexes.

use chrono::TimeDelta;
use tidegate_model::{AuditFilter, Clock, SystemClock};
use tidegate_persistence::audit;
use tidegate_test_support::TestDb;
use tokio_postgres::Client;

/// Row-level security or a missing grant.
const DENIED: &str = "42501";

async fn enter(client: &Client, role: &str, settings: &[(&str, String)]) {
    let settings = settings.iter().map(|(name, value)| format!(", set_config('{name}', '{value}', true)"));
    let settings: String = settings.collect();
    let begin = format!("BEGIN; SELECT set_config('role', '{role}', true){settings}");
    client.batch_execute(&begin).await.unwrap();
}

async fn attempt(client: &Client, sql: &str) -> Result<u64, String> {
    client.batch_execute("SAVEPOINT attempt").await.unwrap();
    let outcome = client.execute(sql, &[]).await;
    client.batch_execute("ROLLBACK TO SAVEPOINT attempt").await.unwrap();
    outcome.map_err(|error| error.code().map(|code| code.code().to_owned()).unwrap_or_default())
}

fn write(org: &str, user: &str, action: &str) -> String {
    format!(
        "INSERT INTO audit_log (id, org_id, actor, actor_key, action, resource, at)
         VALUES (gen_random_uuid(), {org}, 'user:{user}', 'someone', '{action}', 'test:1', now())"
    )
}

#[tokio::test]
async fn no_role_of_the_server_changes_or_deletes_a_line() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    let app = test.app().await;
    for role in ["tidegate_org", "tidegate_user", "tidegate_hub", "tidegate_platform"] {
        let user = org.admin.user().user_id().to_string();
        enter(&app, role, &[("app.org_id", org.id.to_string()), ("app.user_id", user)]).await;
        for sql in ["DELETE FROM audit_log", "UPDATE audit_log SET actor = 'nobody'", "TRUNCATE audit_log"] {
            assert_eq!(attempt(&app, sql).await, Err(DENIED.into()), "{role}: {sql}");
        }
        app.batch_execute("ROLLBACK").await.unwrap();
    }
    for role in ["tidegate_org", "tidegate_user", "tidegate_hub"] {
        enter(&app, role, &[]).await;
        let forget = attempt(&app, "SELECT audit_forget(now(), 10)").await;
        assert_eq!(forget, Err(DENIED.into()), "{role}");
        app.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn what_is_forgotten_is_old_whatever_bound_is_asked_for() {
    let test = TestDb::new().await;
    test.org_with_admin("acme").await;
    // The clock of the tests stands in the past; the database's own does not.
    test.execute("UPDATE audit_log SET at = now()").await;
    let lines = "SELECT count(*) FROM audit_log";
    let young: i64 = test.look(lines).await;
    assert!(young > 0);
    test.execute(
        "INSERT INTO audit_log (id, actor, actor_key, action, resource, at)
         SELECT gen_random_uuid(), 'system', 'system', 'test', 'test:' || n, now() - interval '8 days' FROM generate_series(1, 30) n",
    )
    .await;
    let app = test.app().await;
    enter(&app, "tidegate_platform", &[]).await;
    let forget = async |bound: &str| -> i64 {
        app.query_one(&format!("SELECT audit_forget({bound}, 20)"), &[]).await.unwrap().get(0)
    };
    assert_eq!(forget("now() - interval '9 days'").await, 0, "older than the bound alone");
    assert_eq!(forget("'infinity'").await, 20, "as many as were asked for");
    assert_eq!(forget("'infinity'").await, 10);
    assert_eq!(forget("'infinity'").await, 0, "what is younger than a week stays");
    app.batch_execute("COMMIT").await.unwrap();
    assert_eq!(test.look::<i64>(lines).await, young);
}

#[tokio::test]
async fn nobody_writes_in_another_ones_name_or_where_they_do_not_belong() {
    let test = TestDb::new().await;
    let (acme, bolt) = (test.org_with_admin("acme").await, test.org_with_admin("bolt").await);
    let (me, other) = (acme.admin.user().user_id().to_string(), bolt.admin.user().user_id().to_string());
    let (own, foreign) = (format!("'{}'", acme.id), format!("'{}'", bolt.id));
    let app = test.app().await;
    enter(&app, "tidegate_user", &[("app.user_id", me.clone())]).await;
    assert_eq!(attempt(&app, &write("NULL", &me, "user.test")).await, Ok(1));
    assert_eq!(attempt(&app, &write(&own, &me, "user.test")).await, Ok(1));
    for forged in [
        write(&foreign, &me, "user.test"),
        write(&foreign, &me, "invite.accept"),
        write(&own, &other, "user.test"),
    ] {
        assert_eq!(attempt(&app, &forged).await, Err(DENIED.into()), "{forged}");
    }
    app.batch_execute("ROLLBACK").await.unwrap();
    enter(&app, "tidegate_org", &[("app.org_id", acme.id.to_string()), ("app.user_id", me.clone())]).await;
    assert_eq!(attempt(&app, &write(&own, &me, "user.test")).await, Ok(1));
    for forged in
        [write(&own, &other, "user.test"), write(&foreign, &me, "user.test"), write("NULL", &me, "x")]
    {
        assert_eq!(attempt(&app, &forged).await, Err(DENIED.into()), "{forged}");
    }
    app.batch_execute("ROLLBACK").await.unwrap();
    // An invite lets its answer in, and nothing else.
    let name: String = test.look(&format!("SELECT username FROM users WHERE id = '{me}'")).await;
    test.execute(&format!(
        "INSERT INTO invites (id, org_id, invitee_username, inviter_user_id, inviter_username, role, status, created_at, expires_at)
         VALUES (gen_random_uuid(), {foreign}, '{name}', '{other}', 'other', 'user', 'declined', now(), now() + interval '1 day')"
    ))
    .await;
    enter(&app, "tidegate_user", &[("app.user_id", me.clone())]).await;
    assert_eq!(attempt(&app, &write(&foreign, &me, "invite.decline")).await, Ok(1));
    assert_eq!(attempt(&app, &write(&foreign, &me, "user.test")).await, Err(DENIED.into()));
    app.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn every_filter_has_its_index_under_row_level_security() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    test.org_with_admin("bolt").await;
    test.execute(
        "INSERT INTO audit_log (id, org_id, actor, actor_key, action, resource, at)
         SELECT gen_random_uuid(), o.id, 'console', 'actor' || n % 997, 'action' || n % 499, 'test:' || n % 499, now() - n * interval '1 s'
         FROM organizations o CROSS JOIN generate_series(1, CASE o.name WHEN 'acme' THEN 2000 ELSE 40000 END) n; ANALYZE audit_log",
    )
    .await;
    let app = test.app().await;
    let plan = async |sql: &str| -> String {
        let rows =
            app.query(&format!("EXPLAIN {sql} ORDER BY at DESC, id DESC LIMIT 51"), &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
    };
    let inside = format!("SELECT id FROM audit_log WHERE org_id = '{}'", org.id);
    let filters = [
        ("time", "(at, id) < (now(), gen_random_uuid())"),
        ("actor", "actor_key = 'actor7'"),
        ("action", "action = 'action7'"),
        ("resource", "resource = 'test:7'"),
    ];
    let settings = [("app.org_id", org.id.to_string()), ("app.user_id", String::new())];
    enter(&app, "tidegate_org", &settings).await;
    for (index, filter) in filters {
        let plan = plan(&format!("{inside} AND {filter}")).await;
        // A thing has its lines in one organization: one index for both.
        let index = if index == "resource" { index.to_owned() } else { format!("org_{index}") };
        assert!(plan.contains(&format!("audit_log_{index}")) && !plan.contains("Seq Scan"), "{plan}");
    }
    app.batch_execute("ROLLBACK").await.unwrap();
    enter(&app, "tidegate_platform", &[]).await;
    for (index, filter) in filters {
        let plan = plan(&format!("SELECT id FROM audit_log WHERE {filter}")).await;
        assert!(plan.contains(&format!("audit_log_{index}")) && !plan.contains("Seq Scan"), "{plan}");
    }
    app.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn the_log_is_read_in_order_each_line_once() {
    let test = TestDb::new().await;
    let org = test.org_with_admin("acme").await;
    test.execute(&format!(
        "INSERT INTO audit_log (id, org_id, actor, actor_key, action, resource, at)
         SELECT gen_random_uuid(), '{}', 'console', 'console', 'test', 'test:' || n, date_trunc('day', now()) FROM generate_series(1, 25) n",
        org.id
    ))
    .await;
    let (db, filter) = (test.db(), AuditFilter { action: Some("test".into()), ..AuditFilter::default() });
    let (scope, mut seen, mut before) = (org.admin.org().unwrap(), Vec::new(), None);
    loop {
        let page = db.in_org(scope, async |tx| audit::list(tx, &filter, before, 10).await).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.at, last.id));
        seen.extend(page.into_iter().map(|line| line.resource));
    }
    assert_eq!(seen.len(), 25);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25, "of lines of one moment each comes once");
    assert_eq!(db.in_org(scope, async |tx| audit::count(tx, &filter).await).await.unwrap(), 25);
    let later = AuditFilter { since: Some(SystemClock::new().now() + TimeDelta::days(1)), ..filter };
    assert_eq!(db.in_org(scope, async |tx| audit::count(tx, &later).await).await.unwrap(), 0);
}
