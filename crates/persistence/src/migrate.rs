//! The schema's versions, embedded, applied under an advisory lock.

use diesel::{migration::MigrationSource, pg::Pg};
use diesel_async::{AsyncMigrationHarness, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tidegate_model::Secret;

use crate::{Error, Result, connector::Connector, roles};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The same texts, readable: diesel embeds them and does not show them.
const TEXTS: &[&str] = &[
    include_str!("../migrations/2026-11-22-000001_foundation/up.sql"),
    include_str!("../migrations/2026-11-22-000002_keys/up.sql"),
    include_str!("../migrations/2026-11-22-000003_organizations/up.sql"),
    include_str!("../migrations/2026-11-23-000004_users/up.sql"),
    include_str!("../migrations/2026-11-23-000005_groups/up.sql"),
    include_str!("../migrations/2026-11-23-000006_audit/up.sql"),
    include_str!("../migrations/2026-11-23-000007_device/up.sql"),
    include_str!("../migrations/2026-11-23-000008_identities/up.sql"),
    include_str!("../migrations/2026-11-23-000009_mail/up.sql"),
    include_str!("../migrations/2026-11-27-000010_containers/up.sql"),
    include_str!("../migrations/2026-11-27-000011_placement/up.sql"),
    include_str!("../migrations/2026-11-27-000012_activity/up.sql"),
    include_str!("../migrations/2026-11-27-000013_shares/up.sql"),
    include_str!("../migrations/2026-11-27-000014_events/up.sql"),
    include_str!("../migrations/2026-11-27-000015_people/up.sql"),
    include_str!("../migrations/2026-11-28-000016_password_resets/up.sql"),
    include_str!("../migrations/2026-11-28-000017_disconnects/up.sql"),
    include_str!("../migrations/2026-11-28-000018_plans/up.sql"),
    include_str!("../migrations/2026-11-28-000019_catalog/up.sql"),
    include_str!("../migrations/2026-11-28-000020_plugins/up.sql"),
    include_str!("../migrations/2026-11-28-000022_round_trips/up.sql"),
    include_str!("../migrations/2026-11-28-000023_catalog_use/up.sql"),
    include_str!("../migrations/2026-11-28-000024_applications/up.sql"),
    include_str!("../migrations/2026-11-28-000025_pipes/up.sql"),
    include_str!("../migrations/2026-11-28-000026_terminal_sources/up.sql"),
    include_str!("../migrations/2026-11-28-000029_nats_rotation/up.sql"),
    include_str!("../migrations/2026-11-28-000030_nats_room/up.sql"),
    include_str!("../migrations/2026-11-28-000031_concerned/up.sql"),
    include_str!("../migrations/2026-11-28-000032_fewer_round_trips/up.sql"),
    include_str!("../migrations/2026-11-28-000033_by_their_keys/up.sql"),
];

/// Two processes that start on an empty database take turns under this lock ("tidegate" in ASCII).
const LOCK: i64 = 0x7469_6465_6761_7465;

/// Brings the schema to this version and returns what was applied. `url` is the migrator's, who owns the schema.
pub async fn run(url: &Secret<String>) -> Result<Vec<String>> {
    let connector = Connector::new(url)?;
    // diesel's harness blocks; a thread with a runtime of its own works under every kind of caller's runtime.
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("tidegate-migrate".into())
        .spawn(move || {
            let outcome = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .map_err(|error| Error::Internal(Box::new(error)))
                .and_then(|runtime| runtime.block_on(apply(&connector)));
            // The caller may have gone; then nobody needs the answer.
            drop(done.send(outcome));
        })
        .map_err(|error| Error::Internal(Box::new(error)))?;
    result.await.map_err(|error| Error::Internal(Box::new(error)))?
}

async fn apply(connector: &Connector) -> Result<Vec<String>> {
    let mut connection = connector.connect().await.map_err(Error::unavailable)?;
    connection.batch_execute(&format!("SELECT pg_advisory_lock({LOCK})")).await?;
    let mut harness = AsyncMigrationHarness::new(connection);
    let applied = harness
        .run_pending_migrations(MIGRATIONS)
        .map(|versions| versions.iter().map(ToString::to_string).collect())
        .map_err(Error::Internal);
    // The lock goes with the connection, on every way out.
    applied
}

/// The newest version this program knows.
pub fn latest() -> Result<String> {
    let migrations = MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(Error::Internal)?;
    Ok(migrations.iter().map(|migration| migration.name().version().to_string()).max().unwrap_or_default())
}

/// Every migration's name and text, for the template database's key in tests.
pub fn fingerprint() -> Result<String> {
    let migrations = MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(Error::Internal)?;
    let names: Vec<String> = migrations.iter().map(|migration| migration.name().to_string()).collect();
    if names.len() != TEXTS.len() {
        return Err(Error::Internal("a migration's text is missing in `TEXTS`: add it".into()));
    }
    Ok([names.concat(), TEXTS.concat(), roles::SQL.to_owned()].concat())
}
