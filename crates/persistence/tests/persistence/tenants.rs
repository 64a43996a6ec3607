//! No scope sees or changes a row of another one, whatever it writes into a statement.

use tidegate_model::OrgId;
use tokio_postgres::Client;

use crate::Filled;

/// Takes the role and setting of a scope, as `Db` does, on a bare connection.
async fn enter(client: &Client, role: &str, setting: &str, value: &str) {
    let begin =
        format!("BEGIN; SELECT set_config('role', '{role}', true), set_config('{setting}', '{value}', true)");
    client.batch_execute(&begin).await.unwrap();
}

/// Runs one statement inside the transaction and undoes it: rows touched, or the code of the refusal.
async fn attempt(client: &Client, sql: &str) -> Result<u64, String> {
    client.batch_execute("SAVEPOINT attempt").await.unwrap();
    let outcome = client.execute(sql, &[]).await;
    client.batch_execute("ROLLBACK TO SAVEPOINT attempt").await.unwrap();
    outcome.map_err(|error| error.code().map(|code| code.code().to_owned()).unwrap_or_default())
}

/// Row-level security or a missing grant.
const DENIED: &str = "42501";
const FOREIGN_KEY: &str = "23503";

/// Tables with an organization that somebody chose, and none that they belong to.
const OF_USERS: &[&str] = &["login_sessions", "device_codes"];

async fn tenanted_tables(filled: &Filled) -> Vec<String> {
    let sql = "SELECT table_name::text FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'org_id' ORDER BY 1";
    filled.test.superuser().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn columns(filled: &Filled, table: &str) -> String {
    let sql = format!(
        "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = '{table}' AND is_identity = 'NO'"
    );
    filled.test.look(&sql).await
}

async fn count(filled: &Filled, table: &str, org: OrgId) -> i64 {
    filled.test.look(&format!("SELECT count(*) FROM {table} WHERE org_id = '{org}'")).await
}

/// One row of the other organization as JSON, as only the superuser sees it.
async fn foreign_row(filled: &Filled, table: &str, org: OrgId) -> String {
    filled.test.look(&format!("SELECT to_jsonb(t)::text FROM {table} t WHERE org_id = '{org}' LIMIT 1")).await
}

#[tokio::test]
async fn an_organization_cannot_read_or_change_another_ones_rows_in_any_table() {
    let filled = Filled::new().await;
    let (acme, bolt) = (filled.acme.id, filled.bolt.id);
    let app = filled.test.app().await;
    for table in tenanted_tables(&filled).await {
        if OF_USERS.contains(&table.as_str()) {
            continue; // below
        }
        let theirs = count(&filled, &table, bolt).await;
        assert!(theirs > 0 || table == "audit_log", "{table} was filled");
        enter(&app, "tidegate_org", "app.org_id", &acme.to_string()).await;
        let seen = app
            .query_one(&format!("SELECT count(*) FROM {table} WHERE org_id = '{bolt}'"), &[])
            .await
            .unwrap();
        assert_eq!(seen.get::<_, i64>(0), 0, "{table} is read");
        for change in ["DELETE FROM", "UPDATE"] {
            let set = if change == "UPDATE" { "SET org_id = org_id" } else { "" };
            let outcome = attempt(&app, &format!("{change} {table} {set} WHERE org_id = '{bolt}'")).await;
            assert!(outcome == Ok(0) || outcome == Err(DENIED.into()), "{change} {table}: {outcome:?}");
        }
        app.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(count(&filled, &table, bolt).await, theirs, "{table} is whole");
    }
}

#[tokio::test]
async fn an_organization_cannot_forge_another_ones_id_in_any_table() {
    let filled = Filled::new().await;
    let (acme, bolt) = (filled.acme.id, filled.bolt.id);
    let app = filled.test.app().await;
    for table in tenanted_tables(&filled).await {
        if OF_USERS.contains(&table.as_str()) || count(&filled, &table, bolt).await == 0 {
            continue;
        }
        let (names, row) = (columns(&filled, &table).await, foreign_row(&filled, &table, bolt).await);
        enter(&app, "tidegate_org", "app.org_id", &acme.to_string()).await;
        let insert = format!(
            "INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_record(NULL::{table}, '{}')",
            row.replace('\'', "''")
        );
        assert_eq!(attempt(&app, &insert).await, Err(DENIED.into()), "{table} takes a forged row");
        let give_away = format!("UPDATE {table} SET org_id = '{bolt}' WHERE org_id = '{acme}'");
        assert_eq!(attempt(&app, &give_away).await, Err(DENIED.into()), "{table} gives a row away");
        app.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn an_organization_sees_its_own_people_and_neither_passwords_nor_strangers() {
    let filled = Filled::new().await;
    let app = filled.test.app().await;
    enter(&app, "tidegate_org", "app.org_id", &filled.acme.id.to_string()).await;
    let row = app.query_one("SELECT count(*) FROM (SELECT id FROM users) u", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 2, "the admin and the viewer");
    let row = app.query_one("SELECT count(*) FROM organizations", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
    for sql in [
        "SELECT password_hash FROM users",
        "SELECT refresh_hash FROM login_sessions",
        "SELECT api_key_hash FROM agents",
        "SELECT key_hash FROM api_keys",
        "SELECT digest FROM api_keys",
        "UPDATE api_keys SET created_by_user_id = created_by_user_id",
        "UPDATE api_keys SET scopes = ARRAY['admin']",
        "UPDATE api_keys SET expires_at = NULL",
        "DELETE FROM api_keys",
        "UPDATE agents SET status = 'offline'",
        "UPDATE organizations SET status = 'active'",
        "DELETE FROM audit_log",
        "UPDATE audit_log SET actor = 'nobody'",
        "UPDATE session_events SET reason = 'rewritten'",
        "UPDATE organization_quotas SET ceiling_sessions = NULL",
        "DELETE FROM organization_quotas",
        "UPDATE homes SET storage_bytes = 0, user_id = user_id",
        "UPDATE groups SET name = 'other'",
        "UPDATE group_memberships SET user_id = user_id",
        "SELECT status FROM mails",
        "SELECT invite_id FROM mails",
        "UPDATE mails SET due_at = created_at",
        "DELETE FROM mails",
    ] {
        assert_eq!(attempt(&app, sql).await, Err(DENIED.into()), "{sql}");
    }
    assert_eq!(attempt(&app, "DELETE FROM homes").await, Ok(0), "only their agent says that they are gone");
}

#[tokio::test]
async fn who_has_forgotten_a_password_is_seen_and_forged_by_the_platform_alone() {
    let filled = Filled::new().await;
    let app = filled.test.app().await;
    let none = uuid::Uuid::nil().to_string();
    for (role, setting, value) in [
        ("tidegate_org", "app.org_id", filled.acme.id.to_string()),
        ("tidegate_user", "app.user_id", none.clone()),
        ("tidegate_hub", "app.agent_ids", format!("{{{none}}}")),
    ] {
        enter(&app, role, setting, &value).await;
        for sql in [
            "SELECT id FROM password_resets",
            "INSERT INTO password_resets (id, due_at, created_at) VALUES (gen_random_uuid(), now(), now())",
            "UPDATE password_resets SET used_at = NULL",
            "DELETE FROM password_resets",
        ] {
            assert_eq!(attempt(&app, sql).await, Err(DENIED.into()), "{role}: {sql}");
        }
        app.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn the_platform_stamps_and_revokes_keys_and_reads_or_widens_none() {
    let filled = Filled::new().await;
    let app = filled.test.app().await;
    enter(&app, "tidegate_platform", "app.org_id", "").await;
    for sql in [
        "SELECT key_hash FROM api_keys",
        "SELECT digest FROM api_keys",
        "UPDATE api_keys SET scopes = ARRAY['admin']",
        "UPDATE api_keys SET digest = NULL, digest_version = NULL",
        "UPDATE api_keys SET org_id = org_id",
    ] {
        assert_eq!(attempt(&app, sql).await, Err(DENIED.into()), "{sql}");
    }
    assert_eq!(attempt(&app, "UPDATE api_keys SET last_used_at = now()").await, Ok(2));
    assert_eq!(attempt(&app, "UPDATE api_keys SET revoked_at = now()").await, Ok(2));
}

#[tokio::test]
async fn a_mail_that_waits_goes_with_its_invite_and_says_what_it_is_about_to_nobody_but_its_sender() {
    let filled = Filled::new().await;
    let app = filled.test.app().await;
    enter(&app, "tidegate_platform", "app.org_id", "").await;
    for sql in [
        "UPDATE mails SET invite_id = invite_id",
        "UPDATE mails SET org_id = org_id",
        "INSERT INTO mails DEFAULT VALUES",
    ] {
        assert_eq!(attempt(&app, sql).await, Err(DENIED.into()), "{sql}");
    }
    let waiting = "SELECT count(*) FROM mails WHERE status = 'pending'";
    assert_eq!(app.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0), 2);
    assert_eq!(app.execute("DELETE FROM invites", &[]).await.unwrap(), 2);
    assert_eq!(app.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_scope_without_its_setting_sees_nothing() {
    let filled = Filled::new().await;
    let app = filled.test.app().await;
    for (role, setting, table) in [
        ("tidegate_org", "app.org_id", "sessions"),
        ("tidegate_org", "app.org_id", "api_keys"),
        ("tidegate_hub", "app.agent_ids", "sessions"),
        ("tidegate_hub", "app.agent_ids", "agents"),
        ("tidegate_user", "app.user_id", "memberships"),
    ] {
        enter(&app, role, setting, "").await;
        let row = app.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "{role} on {table}");
        app.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn a_user_sees_their_own_rows_alone() {
    let filled = Filled::new().await;
    let (me, other) = (filled.acme.admin.user().user_id(), filled.bolt.admin.user().user_id());
    let app = filled.test.app().await;
    enter(&app, "tidegate_user", "app.user_id", &me.to_string()).await;
    for (table, column) in [
        ("users", "id"),
        ("memberships", "user_id"),
        ("login_sessions", "user_id"),
        ("bearer_tokens", "user_id"),
    ] {
        let mine = app.query_one(&format!("SELECT count({column}) FROM {table}"), &[]).await.unwrap();
        assert_eq!(mine.get::<_, i64>(0), 1, "{table}");
        let sql = format!("SELECT count({column}) FROM {table} WHERE {column} = '{other}'");
        let theirs = app.query_one(&sql, &[]);
        assert_eq!(theirs.await.unwrap().get::<_, i64>(0), 0, "{table}");
    }
    let organizations = app.query_one("SELECT count(*) FROM organizations", &[]).await.unwrap();
    assert_eq!(organizations.get::<_, i64>(0), 1);
    for sql in [
        "UPDATE users SET role = 'admin'".to_owned(),
        "UPDATE users SET active = true".to_owned(),
        "UPDATE memberships SET role = 'org_admin'".to_owned(),
        format!("UPDATE login_sessions SET user_id = '{other}'"),
        format!(
            "INSERT INTO login_sessions (id, user_id, refresh_hash, created_at, refreshed_at, expires_at)
             VALUES (gen_random_uuid(), '{other}', 'x', now(), now(), now())"
        ),
        "SELECT 1 FROM sessions".to_owned(),
        "SELECT 1 FROM commands".to_owned(),
        "SELECT 1 FROM api_keys".to_owned(),
    ] {
        assert_eq!(attempt(&app, &sql).await, Err(DENIED.into()), "{sql}");
    }
    let set_password = format!("UPDATE users SET password_hash = 'x' WHERE id = '{other}'");
    assert_eq!(attempt(&app, &set_password).await, Ok(0));
}

#[tokio::test]
async fn an_agent_sees_what_is_placed_on_it_and_changes_states_alone() {
    let filled = Filled::new().await;
    let (mine, other) = (filled.acme_agent.link().agent_id(), filled.bolt_agent.link().agent_id());
    let app = filled.test.app().await;
    enter(&app, "tidegate_hub", "app.agent_ids", &format!("{{{mine}}}")).await;
    for (table, column) in [
        ("agents", "id"),
        ("sessions", "agent_id"),
        ("commands", "agent_id"),
        ("session_events", "agent_id"),
        ("quarantined_sessions", "agent_id"),
    ] {
        let of = async |agent| {
            let sql = format!("SELECT count(*) FROM {table} WHERE {column} = '{agent}'");
            app.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0)
        };
        assert!(of(mine).await > 0, "{table}");
        assert_eq!(of(other).await, 0, "{table}");
    }
    let specs = app.query_one("SELECT count(session_id) FROM session_specs", &[]).await.unwrap();
    assert_eq!(specs.get::<_, i64>(0), 1, "only of its own sessions");
    let (bolt, user) = (filled.bolt.id, filled.bolt.admin.user().user_id());
    for sql in [
        format!("UPDATE sessions SET org_id = '{bolt}'"),
        format!("UPDATE sessions SET user_id = '{user}'"),
        format!("UPDATE sessions SET agent_id = '{other}'"),
        "UPDATE sessions SET generation = generation + 1".to_owned(),
        "DELETE FROM sessions".to_owned(),
        format!("UPDATE commands SET agent_id = '{other}'"),
        "UPDATE commands SET payload = '{}'".to_owned(),
        "DELETE FROM commands".to_owned(),
        "UPDATE agents SET approval_status = 'approved'".to_owned(),
        "UPDATE agents SET api_key_hash = NULL".to_owned(),
        "SELECT environment FROM session_specs".to_owned(),
        "SELECT 1 FROM users".to_owned(),
        "SELECT 1 FROM memberships".to_owned(),
        "SELECT 1 FROM stream_tickets".to_owned(),
        "SELECT 1 FROM api_keys".to_owned(),
        format!(
            "INSERT INTO quarantined_sessions (agent_id, session_id, state, first_seen, last_seen)
             VALUES ('{other}', 'x', 'running', now(), now())"
        ),
    ] {
        assert_eq!(attempt(&app, &sql).await, Err(DENIED.into()), "{sql}");
    }
    let theirs = format!("UPDATE sessions SET state_reason = 'mine' WHERE agent_id = '{other}'");
    assert_eq!(attempt(&app, &theirs).await, Ok(0));
    let own = format!("UPDATE sessions SET state_reason = 'mine' WHERE agent_id = '{mine}'");
    assert_eq!(attempt(&app, &own).await, Ok(2));
}

#[tokio::test]
async fn nothing_of_one_organization_can_hang_on_a_session_of_another() {
    let filled = Filled::new().await;
    let (acme, bolt) = (filled.acme.id, filled.bolt.id);
    let session: String =
        filled.test.look(&format!("SELECT id::text FROM sessions WHERE org_id = '{bolt}' LIMIT 1")).await;
    // Even for the superuser, whom no policy binds.
    let superuser = filled.test.superuser().await;
    for table in ["session_specs", "session_events", "commands", "stream_tickets", "session_shares"] {
        let names = columns(&filled, table).await;
        let row = foreign_row(&filled, table, acme).await;
        let key = if table == "session_specs" {
            "{}".to_owned()
        } else {
            format!("{{\"id\":\"{}\"}}", uuid::Uuid::new_v4())
        };
        superuser.batch_execute("BEGIN").await.unwrap();
        if table == "session_specs" {
            superuser
                .batch_execute(&format!("DELETE FROM session_specs WHERE session_id = '{session}'"))
                .await
                .unwrap();
        }
        let hash = if table == "stream_tickets" { r#", "hash": "\\x00""# } else { "" };
        let forged = format!(r#"{{"session_id": "{session}"{hash}}}"#);
        let insert = format!(
            "INSERT INTO {table} ({names}) SELECT {names}
             FROM jsonb_populate_record(NULL::{table}, '{}'::jsonb || '{key}' || '{forged}')",
            row.replace('\'', "''")
        );
        assert_eq!(attempt(&superuser, &insert).await, Err(FOREIGN_KEY.into()), "{table}");
        superuser.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn an_organization_makes_no_key_for_somebody_else_and_revives_none() {
    let filled = Filled::new().await;
    let (acme, app) = (filled.acme.id, filled.test.app().await);
    let copy = "INSERT INTO api_keys (id, org_id, created_by_user_id, key_hash, key_prefix, label, scopes, created_at)
                SELECT gen_random_uuid(), tidegate_org_id(), ";
    let maker = format!("SELECT created_by_user_id::text FROM api_keys WHERE org_id = '{acme}'");
    let maker: String = filled.test.look(&maker).await;
    enter(&app, "tidegate_org", "app.org_id", &acme.to_string()).await;
    app.execute(&format!("SELECT set_config('app.user_id', '{maker}', true)"), &[]).await.unwrap();
    let insert = |who: &str| format!("{copy}{who}, 'x', '00000000', 'x', ARRAY['admin'], now()");
    assert_eq!(attempt(&app, &insert("tidegate_user_id()")).await, Ok(1));
    let other = "(SELECT user_id FROM memberships WHERE user_id <> tidegate_user_id() LIMIT 1)";
    assert_eq!(attempt(&app, &insert(other)).await, Err(DENIED.to_owned()));
    assert_eq!(attempt(&app, &insert("gen_random_uuid()")).await, Err(DENIED.to_owned()));
    app.batch_execute("ROLLBACK").await.unwrap();

    filled.test.execute("UPDATE api_keys SET revoked_at = now()").await;
    enter(&app, "tidegate_org", "app.org_id", &acme.to_string()).await;
    assert_eq!(attempt(&app, "UPDATE api_keys SET revoked_at = NULL").await, Ok(0));
    app.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn an_invite_is_answered_while_it_is_pending_and_never_revived() {
    let filled = Filled::new().await;
    let app = filled.test.app().await;
    let me: String = filled.test.look("SELECT user_id::text FROM memberships LIMIT 1").await;
    let mine = format!(
        "UPDATE invites SET invitee_username = (SELECT username FROM users WHERE id = '{me}'), status = "
    );
    let accept = format!("UPDATE invites SET status = 'accepted', accepted_by = '{me}'");
    for (status, answered) in
        [("pending", true), ("revoked", false), ("declined", false), ("accepted", false)]
    {
        filled
            .test
            .execute("DELETE FROM invites WHERE org_id <> (SELECT min(org_id::text)::uuid FROM invites)")
            .await;
        filled.test.execute(&format!("{mine}'{status}'")).await;
        enter(&app, "tidegate_user", "app.user_id", &me).await;
        assert_eq!(attempt(&app, &accept).await, Ok(u64::from(answered)), "{status}");
        let for_other = "UPDATE invites SET status = 'accepted', accepted_by = gen_random_uuid()";
        let refused = if answered { Err(DENIED.to_owned()) } else { Ok(0) };
        assert_eq!(attempt(&app, for_other).await, refused, "{status}");
        app.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn a_user_decides_about_a_device_once_and_as_themselves_and_makes_no_token() {
    let filled = Filled::new().await;
    let me: String = filled.test.look("SELECT min(user_id::text) FROM memberships").await;
    let (mine, theirs): (String, String) = (
        filled.test.look(&format!("SELECT org_id::text FROM memberships WHERE user_id = '{me}'")).await,
        filled.test.look(&format!("SELECT min(org_id::text) FROM memberships WHERE org_id NOT IN (SELECT org_id FROM memberships WHERE user_id = '{me}')")).await,
    );
    let fresh = "UPDATE device_codes SET decision = NULL, user_id = NULL, org_id = NULL, decided_at = NULL, consumed_at = NULL";
    filled
        .test
        .execute(&format!(
            "DELETE FROM device_codes WHERE id <> (SELECT min(id::text)::uuid FROM device_codes); {fresh}"
        ))
        .await;
    let app = filled.test.app().await;
    let approve = |user: &str, org: &str| {
        format!(
            "UPDATE device_codes SET decision = 'approved', user_id = {user}, org_id = '{org}', decided_at = now()"
        )
    };
    let as_me = format!("'{me}'");
    enter(&app, "tidegate_user", "app.user_id", &me).await;
    // Who was not shown the code sees none, and lets none in.
    let seen =
        app.query_one("SELECT count(id) FROM device_codes WHERE user_hash IS NOT NULL", &[]).await.unwrap();
    assert_eq!(seen.get::<_, i64>(0), 0);
    assert_eq!(attempt(&app, &approve(&as_me, &mine)).await, Ok(0));
    let shown: String = filled.test.look("SELECT encode(user_hash, 'hex') FROM device_codes").await;
    let show = |code: &str| format!("SELECT set_config('app.user_code', '{code}', true)");
    app.batch_execute(&show(&"00".repeat(32))).await.unwrap();
    assert_eq!(attempt(&app, &approve(&as_me, &mine)).await, Ok(0));
    app.batch_execute(&show(&shown)).await.unwrap();
    assert_eq!(attempt(&app, &approve(&as_me, &mine)).await, Ok(1));
    for refused in [
        approve(&as_me, &theirs),
        approve("(SELECT gen_random_uuid())", &mine),
        "UPDATE device_codes SET org_id = org_id".to_owned(),
        "UPDATE device_codes SET consumed_at = now()".to_owned(),
        "SELECT client_name FROM device_codes".to_owned(),
        "SELECT device_hash FROM device_codes".to_owned(),
        "DELETE FROM device_codes".to_owned(),
        "SELECT token_hash FROM bearer_tokens".to_owned(),
        "UPDATE bearer_tokens SET expires_at = now()".to_owned(),
        format!("UPDATE bearer_tokens SET org_id = '{theirs}'"),
        "DELETE FROM bearer_tokens".to_owned(),
        format!(
            "INSERT INTO bearer_tokens (id, user_id, token_hash, prefix, client_name, created_at, expires_at)
                 VALUES (gen_random_uuid(), '{me}', 'x', '00000000', '', now(), now())"
        ),
    ] {
        assert_eq!(attempt(&app, &refused).await, Err(DENIED.into()), "{refused}");
    }
    app.batch_execute("ROLLBACK").await.unwrap();

    // What was decided stays, whoever decided, and a token that was revoked stays revoked.
    filled.test.execute(&approve(&as_me, &mine)).await;
    filled.test.execute("UPDATE bearer_tokens SET revoked_at = now()").await;
    let (deny, reopen) = (
        "UPDATE device_codes SET decision = 'denied'",
        "UPDATE device_codes SET decision = NULL, user_id = NULL, decided_at = NULL",
    );
    let nobody = "00000000-0000-0000-0000-000000000000";
    for (role, setting, value, rows) in [
        ("tidegate_user", "app.user_id", me.as_str(), 1),
        ("tidegate_user", "app.user_id", nobody, 0),
        ("tidegate_org", "app.org_id", mine.as_str(), 1),
        ("tidegate_org", "app.org_id", theirs.as_str(), 0),
    ] {
        enter(&app, role, setting, value).await;
        app.batch_execute(&show(&shown)).await.unwrap();
        assert_eq!(attempt(&app, deny).await, Ok(rows), "{role} of {value} before the token");
        assert_ne!(attempt(&app, reopen).await, Ok(1), "{role} of {value}");
        app.batch_execute("ROLLBACK").await.unwrap();
    }
    filled.test.execute("UPDATE device_codes SET consumed_at = now()").await;
    enter(&app, "tidegate_user", "app.user_id", &me).await;
    assert_eq!(attempt(&app, deny).await, Ok(0));
    assert_eq!(attempt(&app, "UPDATE bearer_tokens SET revoked_at = NULL").await, Ok(0));
    app.batch_execute("ROLLBACK").await.unwrap();
    enter(&app, "tidegate_org", "app.org_id", &mine).await;
    assert_eq!(attempt(&app, deny).await, Ok(0));
    assert_eq!(attempt(&app, "UPDATE device_codes SET decision = 'approved'").await, Ok(0));
    assert_eq!(attempt(&app, "SELECT 1 FROM device_codes").await, Err(DENIED.into()));
    assert_eq!(attempt(&app, "UPDATE bearer_tokens SET revoked_at = NULL").await, Ok(0));
    assert_eq!(attempt(&app, "SELECT prefix FROM bearer_tokens").await, Err(DENIED.into()));
    app.batch_execute("ROLLBACK").await.unwrap();
}
