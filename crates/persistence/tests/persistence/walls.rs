//! Every table has its walls: forced row-level security, and a policy for each role that holds a grant.

use tidegate_persistence::{roles, system};
use tidegate_test_support::TestDb;
use tokio_postgres::error::SqlState;

/// Tables without forced row-level security, and why.
const UNGUARDED: &[(&str, &str)] =
    &[("__diesel_schema_migrations", "versions of the schema, no tenant's data; no scope role may read it")];

/// Tables without an `org_id` that is never null, and why.
const WITHOUT_TENANT: &[(&str, &str)] = &[
    ("__diesel_schema_migrations", "versions of the schema"),
    ("agents", "of the platform; organizations see the approved ones"),
    ("bearer_tokens", "of a user, across organizations; the chosen one may be none"),
    ("audit_log", "lines of the platform's own log have no organization"),
    ("catalog_blobs", "of the platform's catalog, the same one for everybody"),
    ("catalog_plugins", "of the platform's catalog, the same one for everybody"),
    ("catalog_templates", "of the platform's catalog, the same one for everybody"),
    ("commands", "an operator's command belongs to no organization"),
    ("device_codes", "of nobody until somebody lets the device in"),
    ("event_horizon", "two numbers, of nobody"),
    ("events", "an agent's change belongs to no organization"),
    ("identities", "of a user, across organizations; the platform alone sees them"),
    ("identity_attempts", "of nobody until they come back"),
    ("login_sessions", "of a user, across organizations; the chosen one may be none"),
    ("nats_operator", "of the platform, which alone sees it"),
    ("organizations", "is the tenant itself"),
    ("password_resets", "of nobody until a user uses it, across organizations; the platform alone sees them"),
    ("plugin_ratings", "of a user, about the platform's catalog"),
    ("plugin_stats", "of the platform's catalog, the same one for everybody"),
    ("plugin_versions", "of the platform's catalog, the same one for everybody"),
    ("installed_plugins", "those of the platform have no organization"),
    ("plugin_deliveries", "what the platform is told of has no organization"),
    ("plugin_feed", "a place in the streams of events, of nobody"),
    ("plugin_packages", "contents by their digest; organizations see those of plugins that they may use"),
    ("plugin_store", "what a plugin keeps for the platform has no organization"),
    ("quarantined_sessions", "nobody knows whose they are"),
    ("repositories", "of the platform; people see the enabled ones, without secrets"),
    ("repository_problems", "of the platform; operators alone see them"),
    ("template_ratings", "of a user, about the platform's catalog"),
    ("template_stats", "of the platform's catalog, the same one for everybody"),
    ("user_idempotency_keys", "of a user, for what belongs to no organization"),
    ("users", "a global identity, UserTx"),
];

/// Grants without a policy of the role on that table, and why nothing is lost.
const GRANTS_WITHOUT_POLICY: &[(&str, &str, &str)] =
    &[("__diesel_schema_migrations", "tidegate_app", "health checks read the schema's version")];

async fn pairs(test: &TestDb, sql: &str) -> Vec<(String, String)> {
    let rows = test.superuser().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn every_table_has_forced_row_level_security_or_a_reason() {
    let test = TestDb::new().await;
    let sql = "SELECT c.relname::text, (c.relrowsecurity AND c.relforcerowsecurity)::text FROM pg_class c
               WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')";
    let tables = pairs(&test, sql).await;
    assert!(tables.len() > 10, "{tables:?}");
    for (table, guarded) in &tables {
        let excused = UNGUARDED.iter().any(|(name, _)| name == table);
        assert_ne!(
            guarded == "true",
            excused,
            "{table} is guarded: {guarded}, stands in the list: {excused}"
        );
    }
    for (table, reason) in UNGUARDED {
        assert!(
            tables.iter().any(|(name, _)| name == table),
            "{table} ({reason}) is gone: take it off the list"
        );
    }
}

#[tokio::test]
async fn every_table_belongs_to_an_organization_or_has_a_reason() {
    let test = TestDb::new().await;
    let sql = "SELECT t.table_name::text, EXISTS (SELECT 1 FROM information_schema.columns c WHERE c.table_schema = 'public'
                 AND c.table_name = t.table_name AND c.column_name = 'org_id' AND c.is_nullable = 'NO')::text
               FROM information_schema.tables t WHERE t.table_schema = 'public' AND t.table_type = 'BASE TABLE'";
    let tables = pairs(&test, sql).await;
    for (table, tenanted) in &tables {
        let excused = WITHOUT_TENANT.iter().any(|(name, _)| name == table);
        assert_ne!(
            tenanted == "true",
            excused,
            "{table} has org_id: {tenanted}, stands in the list: {excused}"
        );
    }
    for (table, reason) in WITHOUT_TENANT {
        assert!(
            tables.iter().any(|(name, _)| name == table),
            "{table} ({reason}) is gone: take it off the list"
        );
    }
}

/// Functions with the rights of their owner that are not the lister's, and why.
const OF_THE_OWNER: &[(&str, &str)] = &[
    ("audit_forget", "retention deletes by age through it alone; the lister reads and never writes"),
    ("tidegate_command_made", "a trigger: no role of the server writes events"),
    ("tidegate_command_over", "a trigger: no role of the server writes events"),
    ("tidegate_agent_changed", "a trigger: no role of the server writes events"),
    ("tidegate_events_gone", "a trigger: no role of the server moves the horizon"),
    ("tidegate_template_rated", "a trigger: no role of the server writes sums of ratings"),
    ("tidegate_plugin_rated", "a trigger: no role of the server writes sums of ratings"),
    ("catalog_template_installed", "counts one installation, and does nothing else"),
    ("catalog_plugin_installed", "counts one installation, and does nothing else"),
    ("tidegate_stream_gone", "a trigger: whatever takes a stream's row away tells NATS so, a cascade too"),
    ("tidegate_reader_gone", "a trigger: whatever takes a cursor away tells NATS so, a cascade too"),
    (
        "tidegate_right_gone",
        "a trigger: whatever takes a right away has readers looked through, a cascade too",
    ),
    ("tidegate_place_gone", "a trigger: whatever takes a place in a group away, a cascade too"),
    ("tidegate_group_hung", "a trigger: a group's place below another is a right to read"),
    ("tidegate_role_moved", "a trigger: another role may send less, and live credentials are told so"),
    (
        "tidegate_credential_ended",
        "a trigger; it marks what somebody holds on NATS who may not be there any more, which whoever ends it does not see",
    ),
    (
        "tidegate_member_gone",
        "a trigger; it marks what somebody holds on NATS who may not be there any more, which whoever ends it does not see",
    ),
    (
        "tidegate_user_gone",
        "a trigger; it marks what somebody holds on NATS who may not be there any more, which whoever ends it does not see",
    ),
    (
        "tidegate_org_shut",
        "a trigger; it marks what somebody holds on NATS who may not be there any more, which whoever ends it does not see",
    ),
    ("tidegate_org_moved", "a trigger: an organization's standing is its account's"),
    ("events_rebase", "reaches lines of transactions that are still to come, which only a restored dump has"),
];

const GRANTS: &str = "SELECT c.relname::text, r.rolname::text FROM pg_class c CROSS JOIN pg_roles r
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND r.rolname LIKE 'tidegate%'
      AND r.rolname <> 'tidegate_migrator' AND has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')";

/// What each role may do to each table, a row for each command.
const COMMANDS: &str =
    "SELECT c.relname::text, r.rolname::text || ' ' || x.command FROM pg_class c CROSS JOIN pg_roles r
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS x(command)
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND r.rolname LIKE 'tidegate%'
      AND r.rolname <> 'tidegate_migrator'
      AND CASE x.command WHEN 'DELETE' THEN has_table_privilege(r.oid, c.oid, 'DELETE')
                         ELSE has_any_column_privilege(r.oid, c.oid, x.command) END";

/// What each policy lets its role do, a row for each command.
const POLICIES: &str = "SELECT c.relname::text, r.rolname::text || ' ' || x.command FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
    CROSS JOIN LATERAL unnest(p.polroles) AS of(role) JOIN pg_roles r ON r.oid = of.role
    JOIN (VALUES ('r', 'SELECT'), ('a', 'INSERT'), ('w', 'UPDATE'), ('d', 'DELETE')) AS x(short, command)
      ON p.polcmd::text IN ('*', x.short)";

#[tokio::test]
async fn every_grant_has_exactly_one_policy_of_its_role() {
    let test = TestDb::new().await;
    let allowed = pairs(&test, POLICIES).await;
    for command in pairs(&test, COMMANDS).await {
        let excused = GRANTS_WITHOUT_POLICY
            .iter()
            .any(|(table, role, _)| *table == command.0 && command.1.split(' ').next() == Some(role));
        let count = allowed.iter().filter(|policy| **policy == command).count();
        // Two policies of one role for one command are OR-ed, and lose the index.
        assert_eq!(count, usize::from(!excused), "policies of {} on {}", command.1, command.0);
    }
    let policies = pairs(
        &test,
        "SELECT c.relname::text, r.rolname::text FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
         CROSS JOIN LATERAL unnest(p.polroles) AS of(role) JOIN pg_roles r ON r.oid = of.role AND r.rolname <> 'tidegate_migrator'",
    )
    .await;
    let grants = pairs(&test, GRANTS).await;
    for (table, role, reason) in GRANTS_WITHOUT_POLICY {
        let held = grants.iter().any(|grant| grant.0 == *table && grant.1 == *role);
        assert!(held, "{role} on {table} ({reason}) is gone: take it off the list");
    }
    for policy in &policies {
        assert!(grants.contains(policy), "the policy of {} on {} is for no grant", policy.1, policy.0);
    }
}

#[tokio::test]
async fn every_policy_names_a_role() {
    let test = TestDb::new().await;
    let open: i64 = test.look("SELECT count(*) FROM pg_policy WHERE 0 = ANY (polroles)").await;
    assert_eq!(open, 0);
}

#[tokio::test]
async fn the_login_role_can_touch_nothing_by_itself() {
    let test = TestDb::new().await;
    let tables: Vec<String> = test
        .superuser()
        .await
        .query("SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let app = test.app().await;
    for table in tables.iter().filter(|table| *table != "__diesel_schema_migrations") {
        for sql in
            [format!("SELECT 1 FROM {table}"), format!("DELETE FROM {table}"), format!("TRUNCATE {table}")]
        {
            let refused = app.batch_execute(&sql).await.unwrap_err();
            assert_eq!(refused.code().map(SqlState::code), Some("42501"), "{sql}");
        }
    }
    let refused = app.batch_execute("CREATE TABLE mine (id int)").await.unwrap_err();
    assert_eq!(refused.code().map(SqlState::code), Some("42501"));
    app.batch_execute("SET ROLE tidegate_lister").await.unwrap_err();
    app.batch_execute("SET ROLE tidegate_migrator").await.unwrap_err();
}

#[tokio::test]
async fn every_lookup_that_sees_across_tenants_is_pinned_and_owned_by_the_lister() {
    let test = TestDb::new().await;
    let wrong: Vec<(String, String)> = pairs(
        &test,
        "SELECT p.proname::text, p.proowner::regrole::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
           AND (p.proconfig IS NULL OR NOT 'search_path=public, pg_temp' = ANY (p.proconfig) OR has_function_privilege('public', p.oid, 'EXECUTE'))",
    )
    .await;
    assert_eq!(wrong, []);
    let strangers = pairs(
        &test,
        "SELECT p.proname::text, p.proowner::regrole::text FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef
           AND p.proowner <> 'tidegate_lister'::regrole ORDER BY 1",
    )
    .await;
    let mut excused: Vec<(String, String)> =
        OF_THE_OWNER.iter().map(|(name, _)| ((*name).to_owned(), "tidegate_migrator".to_owned())).collect();
    excused.sort_unstable();
    assert_eq!(strangers, excused, "owned by the lister, or stands in the list with its reason");
    let writes: i64 = test
        .look(
            "SELECT count(*) FROM information_schema.role_table_grants
             WHERE grantee = 'tidegate_lister' AND privilege_type <> 'SELECT'",
        )
        .await;
    assert_eq!(writes, 0, "the lister reads and never writes");
}

#[tokio::test]
async fn a_healthy_database_has_no_complaints() {
    let test = TestDb::new().await;
    let health = system::health(&test.db()).await.unwrap();
    assert!(health.server_version >= 150_000, "{health:?}");
    assert!(health.migrated, "{health:?}");
    assert_eq!(health.missing_roles, Vec::<&str>::new());
    assert_eq!(health.unguarded_tables, Vec::<String>::new());
    assert!(!health.bypasses_rls);
    assert_eq!(roles::SCOPES.len(), 5);
}

#[tokio::test]
async fn an_empty_database_is_not_migrated() {
    let test = TestDb::empty().await;
    assert!(!system::health(&test.db()).await.unwrap().migrated);
}
