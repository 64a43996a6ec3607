//! `schema.rs` says what the migrations make.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_test_support::TestDb;

/// Tables that only typed SQL texts name, and why diesel need not know them.
const WITHOUT_DSL: &[(&str, &str)] = &[
    ("__diesel_schema_migrations", "diesel's own"),
    ("agents", "fixed statements, most of them for a batch"),
    ("api_keys", "fixed statements and two lookups"),
    ("application_groups", "an upsert, a list and a function"),
    ("audit_log", "fixed statements: a line written, and two searches"),
    ("bearer_tokens", "fixed statements and a lookup"),
    ("catalog_blobs", "fixed statements, by digest"),
    ("catalog_plugins", "fixed statements for many rows, and one search"),
    ("catalog_templates", "fixed statements for many rows, and one search"),
    ("device_codes", "fixed statements, each a transition, and a lookup"),
    ("event_horizon", "one row, read by a fixed statement and written by triggers"),
    ("event_tickets", "two fixed statements and a lookup"),
    ("events", "fixed statements that read; triggers write"),
    ("group_memberships", "joined in fixed statements"),
    ("group_quotas", "an upsert and what counts bounds"),
    ("groups", "fixed statements, half of them recursive"),
    ("homes", "an upsert, a list and what counts bounds"),
    ("identities", "fixed statements, each by the whole key"),
    ("identity_attempts", "three fixed statements"),
    ("idempotency_keys", "two fixed statements"),
    ("installed_applications", "fixed statements, each a list or a transition"),
    ("invites", "fixed statements, each a transition or a list"),
    ("login_sessions", "four fixed statements and a lookup"),
    ("mails", "a claim and three transitions, each a fixed statement"),
    ("nats_accounts", "an insert that the first one wins, and fixed statements"),
    ("nats_operator", "one row, an insert that the first one wins"),
    ("nats_principals", "an upsert, a revocation and a lookup"),
    ("memberships", "joined in fixed statements"),
    ("organization_quotas", "an upsert and what counts bounds"),
    ("password_resets", "a claim and fixed statements, each a transition"),
    ("pipe_operations", "a claim and fixed statements, each a transition"),
    ("pipe_streams", "an upsert and lists joined with their sources"),
    ("pipes", "fixed statements"),
    ("read_cursors", "an upsert, a list and a deletion that asks a function"),
    ("source_grants", "an insert, a list and a function"),
    ("sources", "fixed statements, one of them for many rows"),
    ("plugin_ratings", "an upsert, a list and a deletion"),
    ("plugin_stats", "written by functions, and by one statement for many views"),
    ("plugin_versions", "written with their plugin, and a list"),
    ("installed_plugins", "fixed statements, half of them locked by turns"),
    ("plugin_deliveries", "a claim, a hand-out and fixed statements, each a transition"),
    ("plugin_feed", "one row, read and moved by fixed statements"),
    ("plugin_packages", "three fixed statements"),
    ("plugin_store", "an upsert and three fixed statements"),
    ("quarantined_sessions", "an upsert and a list"),
    ("repositories", "fixed statements, most of them transitions"),
    ("repository_problems", "two fixed statements"),
    ("session_activity", "an upsert and a list"),
    ("session_shares", "an upsert, a list and two functions"),
    ("terminal_sources", "a claim and fixed statements, each a transition"),
    ("stream_grants", "an insert and a lookup"),
    ("stream_tickets", "two fixed statements"),
    ("template_ratings", "an upsert, a list and a deletion"),
    ("template_stats", "written by functions"),
    ("user_idempotency_keys", "two fixed statements"),
    ("user_quotas", "an upsert and what counts bounds"),
    ("viewing_ends", "an upsert and two lookups"),
];

type Tables = BTreeMap<String, BTreeMap<String, String>>;

/// `column -> Type,` lines of every `table!`.
fn declared() -> Tables {
    let mut tables = Tables::new();
    let mut table = String::new();
    for line in include_str!("../../src/schema.rs").lines().map(str::trim) {
        if let Some((column, kind)) = line.split_once(" -> ") {
            let kind = kind.trim_end_matches(',').to_owned();
            tables.entry(table.clone()).or_default().insert(column.to_owned(), kind);
        } else if let Some((name, _)) = line.split_once(" (").filter(|_| line.ends_with('{')) {
            name.clone_into(&mut table);
        }
    }
    tables
}

fn diesel_type(name: &str, nullable: bool) -> String {
    let plain = match name {
        "uuid" => "Uuid",
        "text" => "Text",
        "int4" => "Integer",
        "int8" => "BigInt",
        "bool" => "Bool",
        "float8" => "Double",
        "bytea" => "Bytea",
        "jsonb" => "Jsonb",
        "timestamptz" => "Timestamptz",
        "_text" => "Array<Text>",
        other => panic!("{other} has no type in this test yet"),
    };
    if nullable { format!("Nullable<{plain}>") } else { plain.to_owned() }
}

async fn migrated(test: &TestDb) -> Tables {
    let sql = "SELECT table_name::text, column_name::text, udt_name::text, is_nullable = 'YES'
               FROM information_schema.columns WHERE table_schema = 'public'";
    let mut tables = Tables::new();
    for row in test.superuser().await.query(sql, &[]).await.unwrap() {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        if WITHOUT_DSL.iter().any(|(name, _)| *name == table) {
            tables.entry(table).or_default();
        } else {
            let kind = diesel_type(row.get(2), row.get(3));
            tables.entry(table).or_default().insert(column, kind);
        }
    }
    tables
}

#[tokio::test]
async fn schema_rs_is_what_the_migrations_make() {
    let test = TestDb::new().await;
    let mut migrated = migrated(&test).await;
    let declared = declared();
    assert!(declared.contains_key("sessions"), "schema.rs was read");
    migrated.retain(|table, _| !WITHOUT_DSL.iter().any(|(name, _)| name == table));
    assert_eq!(declared, migrated);
}

#[tokio::test]
async fn no_table_stands_in_the_list_without_need() {
    let test = TestDb::new().await;
    let there: BTreeSet<String> = migrated(&test).await.into_keys().collect();
    let declared = declared();
    for (table, reason) in WITHOUT_DSL {
        assert!(there.contains(*table), "{table} ({reason}) is gone: take it off the list");
        assert!(!declared.contains_key(*table), "{table} ({reason}) is in schema.rs: take it off the list");
    }
}
