//! Plugins that are installed, what they consist of, and what they keep for themselves.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::{Map, Value};
use tidegate_model::{
    CatalogPluginId, InstalledPlugin, InstalledPluginId, OrgId, PluginManifest, PluginType,
};

use crate::{Error, OrgTx, PlatformTx, Result, SystemScope, statement::statement};

/// Digest of a package, SHA-256.
pub type Digest = Vec<u8>;

/// A plugin with what only the platform sees of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// What operators see.
    pub plugin: InstalledPlugin,
    /// What it consists of.
    pub package: Digest,
    /// Signs what is sent to it; sealed.
    pub secret: Option<Vec<u8>>,
    /// Raised by every change.
    pub revision: i64,
    /// What it was before the last upgrade.
    pub previous: Option<Previous>,
}

/// What a roll-back brings back.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// What it said of itself.
    pub manifest: PluginManifest,
    /// How it was configured.
    pub config: Map<String, Value>,
    /// What it was granted.
    pub permissions: Vec<String>,
    /// What it consisted of.
    #[serde(skip)]
    pub package: Digest,
}

/// What is written of a plugin, at its installation and at every change.
#[derive(Debug, Clone)]
pub struct Written {
    /// What it says of itself.
    pub manifest: PluginManifest,
    /// How it is configured.
    pub config: Map<String, Value>,
    /// What it is granted.
    pub permissions: Vec<String>,
    /// What it consists of.
    pub package: Digest,
    /// Which events it hears.
    pub events: Vec<String>,
    /// Whether one event waits for the one before.
    pub ordered: bool,
    /// Whether starts of sessions ask it first.
    pub vetoes: bool,
    /// What a roll-back brings back.
    pub previous: Option<Previous>,
}

/// A plugin to be installed.
#[derive(Debug, Clone)]
pub struct New {
    /// Where it stands in the catalog.
    pub catalog_plugin_id: Option<CatalogPluginId>,
    /// The organization that it is for.
    pub org_id: Option<OrgId>,
    /// Whether it runs at once.
    pub enabled: bool,
    /// What it is.
    pub written: Written,
    /// Signs what is sent to it; sealed.
    pub secret: Option<Vec<u8>>,
    /// Username of whoever installs it.
    pub installed_by: String,
}

type Columns = (
    (BigInt, Nullable<BigInt>, Nullable<Uuid>, Text, Text, Text, Bool, Jsonb, Jsonb, Binary),
    (Array<Text>, Nullable<Binary>, BigInt, Integer, Nullable<Text>, Nullable<Jsonb>, Nullable<Binary>),
    (Text, Timestamptz, Timestamptz),
);
type Row = (
    (
        InstalledPluginId,
        Option<CatalogPluginId>,
        Option<OrgId>,
        String,
        String,
        PluginType,
        bool,
        Value,
        Value,
        Vec<u8>,
    ),
    (Vec<String>, Option<Vec<u8>>, i64, i32, Option<String>, Option<Value>, Option<Vec<u8>>),
    (String, DateTime<Utc>, DateTime<Utc>),
);

macro_rules! of_plugins {
    ($($rest:literal)?) => {
        concat!(
            "SELECT p.id, p.catalog_plugin_id, p.org_id, p.name, p.version, p.plugin_type, p.enabled, p.config, p.manifest, p.package,
                    p.permissions, p.secret, p.revision, p.faults, p.disabled_reason, p.previous, p.previous_package,
                    p.installed_by, p.installed_at, p.updated_at
             FROM installed_plugins p ",
            $($rest)?
        )
    };
}

fn stored(row: Row) -> Result<Stored> {
    let (
        (
            id,
            catalog_plugin_id,
            organization_id,
            name,
            version,
            plugin_type,
            enabled,
            config,
            manifest,
            package,
        ),
        (permissions, secret, revision, faults, disabled_reason, previous, previous_package),
        (installed_by, installed_at, updated_at),
    ) = row;
    let manifest: PluginManifest = read(manifest)?;
    let icon_url = manifest.icon_path().map(|_| icon_url(id, &package)).unwrap_or_default();
    let previous: Option<Previous> = match (previous, previous_package) {
        (Some(previous), Some(package)) => Some(Previous { package, ..read(previous)? }),
        _ => None,
    };
    let plugin = InstalledPlugin {
        id,
        catalog_plugin_id,
        organization_id,
        name,
        version: version.parse().map_err(|error: semver::Error| Error::corrupt("plugin version", error))?,
        enabled,
        config: read(config)?,
        installed_by,
        installed_at,
        updated_at,
        display_name: manifest.display_name.clone(),
        description: manifest.description.clone(),
        plugin_type,
        icon_url,
        manifest,
        permissions,
        faults,
        disabled_reason,
        previous_version: previous.as_ref().map(|previous| previous.manifest.version.clone()),
    };
    Ok(Stored { plugin, package, secret, revision, previous })
}

/// Where a plugin's icon is served: another package has another address, so that whoever has one need not ask again.
fn icon_url(id: InstalledPluginId, package: &[u8]) -> String {
    format!("/api/v1/plugins/{id}/icon?v={}", icon_tag(package))
}

/// What the icon of a package is known by.
pub fn icon_tag(package: &[u8]) -> String {
    package.iter().take(8).fold(String::new(), |tag, byte| tag + &format!("{byte:02x}"))
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| Error::corrupt("plugin", error))
}

fn shown<T: serde::Serialize>(value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::Internal(Box::new(error)))
}

/// Changes of plugins take turns: what one depends on must still be there when it is written. It ends with the transaction.
pub async fn take_turns(tx: &mut PlatformTx) -> Result<()> {
    // "plugins" in ASCII.
    statement::<()>("SELECT pg_advisory_xact_lock(31646429386697587)").execute(tx.conn()?).await?;
    Ok(())
}

/// Keeps a package; one that is there already is the same.
pub async fn put_package(
    tx: &mut PlatformTx,
    digest: Digest,
    content: Vec<u8>,
    now: DateTime<Utc>,
) -> Result<()> {
    statement::<()>(
        "INSERT INTO plugin_packages (digest, content, created_at) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING",
    )
    .bind::<Binary, _>(digest)
    .bind::<Binary, _>(content)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Lets packages go that no plugin consists of any more.
pub async fn forget_packages(tx: &mut PlatformTx) -> Result<()> {
    statement::<()>(
        "DELETE FROM plugin_packages k WHERE NOT EXISTS (SELECT 1 FROM installed_plugins p WHERE p.package = k.digest)
           AND NOT EXISTS (SELECT 1 FROM installed_plugins p WHERE p.previous_package = k.digest)",
    )
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Plugins that may be installed: all of them are looked at together, whoever changes one.
pub const MOST: usize = 1_000;

/// Every plugin, by name: there are at most [`MOST`]. With an organization: its own and the platform's.
pub async fn list(tx: &mut PlatformTx, org: Option<OrgId>) -> Result<Vec<Stored>> {
    let rows: Vec<Row> = statement::<Columns>(of_plugins!(
        "WHERE ?::uuid IS NULL OR p.org_id IS NULL OR p.org_id = ? ORDER BY p.name, p.id LIMIT 1000"
    ))
    .bind::<Nullable<Uuid>, _>(org)
    .bind::<Nullable<Uuid>, _>(org)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(stored).collect()
}

/// One plugin.
pub async fn find(tx: &mut PlatformTx, id: InstalledPluginId) -> Result<Stored> {
    find_on(tx.conn()?, id).await
}

async fn find_on(conn: &mut AsyncPgConnection, id: InstalledPluginId) -> Result<Stored> {
    let rows: Vec<Row> =
        statement::<Columns>(of_plugins!("WHERE p.id = ?")).bind::<BigInt, _>(id).load(conn).await?;
    stored(rows.into_iter().next().ok_or(Error::NotFound)?)
}

/// Installs a plugin.
pub async fn insert(tx: &mut PlatformTx, new: New, now: DateTime<Utc>) -> Result<InstalledPluginId> {
    let New { catalog_plugin_id, org_id, enabled, written, secret, installed_by } = new;
    let (manifest, config) = (shown(&written.manifest)?, shown(&written.config)?);
    let rows: Vec<(InstalledPluginId,)> = statement::<(BigInt,)>(
        "INSERT INTO installed_plugins (catalog_plugin_id, org_id, name, version, plugin_type, enabled, config, manifest, package,
                permissions, events, ordered, vetoes, secret, installed_by, installed_at, updated_at, since_xact)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, pg_current_xact_id()::text::bigint) RETURNING id",
    )
    .bind::<Nullable<BigInt>, _>(catalog_plugin_id)
    .bind::<Nullable<Uuid>, _>(org_id)
    .bind::<Text, _>(written.manifest.name)
    .bind::<Text, _>(written.manifest.version.to_string())
    .bind::<Text, _>(written.manifest.kind)
    .bind::<Bool, _>(enabled)
    .bind::<Jsonb, _>(config)
    .bind::<Jsonb, _>(manifest)
    .bind::<Binary, _>(written.package)
    .bind::<Array<Text>, _>(written.permissions)
    .bind::<Array<Text>, _>(written.events)
    .bind::<Bool, _>(written.ordered)
    .bind::<Bool, _>(written.vetoes)
    .bind::<Nullable<Binary>, _>(secret)
    .bind::<Text, _>(installed_by)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(|row| row.0).ok_or(Error::NotFound)
}

/// Writes what a plugin is from now on: the old or the new, and nothing in between.
pub async fn update(
    tx: &mut PlatformTx,
    id: InstalledPluginId,
    written: Written,
    now: DateTime<Utc>,
) -> Result<()> {
    let (manifest, config) = (shown(&written.manifest)?, shown(&written.config)?);
    let previous = written.previous.as_ref().map(shown).transpose()?;
    let changed = statement::<()>(
        "UPDATE installed_plugins SET version = ?, plugin_type = ?, config = ?, manifest = ?, package = ?, permissions = ?, events = ?,
                ordered = ?, vetoes = ?, previous = ?, previous_package = ?, faults = 0, revision = revision + 1, updated_at = ?
         WHERE id = ?",
    )
    .bind::<Text, _>(written.manifest.version.to_string())
    .bind::<Text, _>(written.manifest.kind)
    .bind::<Jsonb, _>(config)
    .bind::<Jsonb, _>(manifest)
    .bind::<Binary, _>(written.package)
    .bind::<Array<Text>, _>(written.permissions)
    .bind::<Array<Text>, _>(written.events)
    .bind::<Bool, _>(written.ordered)
    .bind::<Bool, _>(written.vetoes)
    .bind::<Nullable<Jsonb>, _>(previous)
    .bind::<Nullable<Binary>, _>(written.previous.map(|previous| previous.package))
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(id)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Enables or disables a plugin; false where it was so already. One that is enabled hears of what is committed from now on.
pub async fn set_enabled(
    tx: &mut PlatformTx,
    id: InstalledPluginId,
    enabled: bool,
    reason: Option<String>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let changed = statement::<()>(
        "UPDATE installed_plugins SET enabled = ?, disabled_reason = ?, faults = 0, revision = revision + 1, updated_at = ?,
                since_xact = pg_current_xact_id()::text::bigint WHERE id = ? AND enabled <> ?",
    )
    .bind::<Bool, _>(enabled)
    .bind::<Nullable<Text>, _>(reason)
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(id)
    .bind::<Bool, _>(enabled)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Counts a fault of a plugin that is enabled and of this revision; how many there are now, and none where it is another one
/// by now.
pub async fn count_fault(tx: &mut PlatformTx, id: InstalledPluginId, revision: i64) -> Result<Option<i32>> {
    let rows: Vec<(i32,)> = statement::<(Integer,)>(
        "UPDATE installed_plugins SET faults = faults + 1 WHERE id = ? AND revision = ? AND enabled RETURNING faults",
    )
    .bind::<BigInt, _>(id)
    .bind::<BigInt, _>(revision)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().map(|row| row.0))
}

/// Forgets faults: it did what it should.
pub async fn forgive(tx: &mut PlatformTx, id: InstalledPluginId) -> Result<()> {
    statement::<()>("UPDATE installed_plugins SET faults = 0 WHERE id = ? AND faults > 0")
        .bind::<BigInt, _>(id)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Uninstalls a plugin, with what it kept and what it was to be told.
pub async fn delete(tx: &mut PlatformTx, id: InstalledPluginId) -> Result<()> {
    let gone = statement::<()>("DELETE FROM installed_plugins WHERE id = ?")
        .bind::<BigInt, _>(id)
        .execute(tx.conn()?)
        .await?;
    if gone == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// What a plugin consists of.
pub async fn package(tx: &mut PlatformTx, digest: Digest) -> Result<Vec<u8>> {
    package_on(tx.conn()?, digest).await
}

/// The same of a plugin that the organization may use.
pub async fn package_in(tx: &mut OrgTx, digest: Digest) -> Result<Vec<u8>> {
    package_on(tx.conn()?, digest).await
}

async fn package_on(conn: &mut AsyncPgConnection, digest: Digest) -> Result<Vec<u8>> {
    let rows: Vec<(Vec<u8>,)> =
        statement::<(Binary,)>("SELECT content FROM plugin_packages WHERE digest = ?")
            .bind::<Binary, _>(digest)
            .load(conn)
            .await?;
    rows.into_iter().next().map(|row| row.0).ok_or(Error::NotFound)
}

/// Forgets what plugins keep for the organization that ends.
pub async fn forget_store(tx: &mut OrgTx) -> Result<()> {
    let org = tx.org_id();
    statement::<()>("DELETE FROM plugin_store WHERE org_id = ?")
        .bind::<Uuid, _>(org)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// A plugin that runs, as whoever runs it needs it.
#[derive(Debug, Clone)]
pub struct Running {
    /// The plugin.
    pub id: InstalledPluginId,
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub kind: PluginType,
    /// How it is configured.
    pub config: Map<String, Value>,
    /// What it says of itself.
    pub manifest: PluginManifest,
    /// What it consists of.
    pub package: Digest,
    /// What it was granted.
    pub permissions: Vec<String>,
    /// Raised by every change.
    pub revision: i64,
    /// Where it runs this time; none where nothing but the platform is concerned.
    pub scope: Option<SystemScope>,
}

type RunningColumns = (BigInt, Text, Text, Jsonb, Jsonb, Binary, Array<Text>, BigInt);
type RunningRow = (InstalledPluginId, String, PluginType, Value, Value, Vec<u8>, Vec<String>, i64);

fn running(row: RunningRow, org: Option<OrgId>) -> Result<Running> {
    let (id, name, kind, config, manifest, package, permissions, revision) = row;
    let (config, manifest) = (read(config)?, read(manifest)?);
    let scope = org.map(|org_id| SystemScope { org_id });
    Ok(Running { id, name, kind, config, manifest, package, permissions, revision, scope })
}

/// The plugin of this name that runs in the organization: its own before the platform's.
pub async fn running_in(tx: &mut OrgTx, name: &str) -> Result<Running> {
    let org = tx.org_id();
    let rows: Vec<RunningRow> = statement::<RunningColumns>(
        "SELECT id, name, plugin_type, config, manifest, package, permissions, revision FROM installed_plugins
         WHERE name = ? AND enabled ORDER BY org_id NULLS LAST LIMIT 1",
    )
    .bind::<Text, _>(name.to_owned())
    .load(tx.conn()?)
    .await?;
    running(rows.into_iter().next().ok_or(Error::NotFound)?, Some(org))
}

/// Those that the organization's starts of sessions ask first.
pub async fn vetoing_in(tx: &mut OrgTx) -> Result<Vec<Running>> {
    let org = tx.org_id();
    let rows: Vec<RunningRow> = statement::<RunningColumns>(
        "SELECT id, name, plugin_type, config, manifest, package, permissions, revision FROM installed_plugins
         WHERE enabled AND vetoes ORDER BY id LIMIT 100",
    )
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(|row| running(row, Some(org))).collect()
}

impl Running {
    /// The same for an event of this organization, or of the platform.
    pub(crate) fn within(self, org: Option<OrgId>) -> Self {
        Self { scope: org.map(|org_id| SystemScope { org_id }), ..self }
    }
}

/// A plugin for whoever looks into its package.
pub async fn packaged(tx: &mut PlatformTx, id: InstalledPluginId) -> Result<Running> {
    running_on(tx.conn()?, id).await
}

/// A plugin for whoever claimed events for it.
pub(crate) async fn running_on(conn: &mut AsyncPgConnection, id: InstalledPluginId) -> Result<Running> {
    let Stored { plugin, package, revision, .. } = find_on(conn, id).await?;
    Ok(Running {
        id,
        name: plugin.name,
        kind: plugin.plugin_type,
        config: plugin.config,
        manifest: plugin.manifest,
        package,
        permissions: plugin.permissions,
        revision,
        scope: None,
    })
}

/// Themes that run for everybody, in the order of their names.
pub async fn running_themes(tx: &mut PlatformTx) -> Result<Vec<Running>> {
    let rows: Vec<RunningRow> = statement::<RunningColumns>(
        "SELECT id, name, plugin_type, config, manifest, package, permissions, revision FROM installed_plugins
         WHERE plugin_type = 'theme' AND enabled AND org_id IS NULL ORDER BY name LIMIT 100",
    )
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(|row| running(row, None)).collect()
}

/// The platform-wide plugin of this name that runs, whoever asks: what it shows is everybody's.
pub async fn running_everywhere(tx: &mut PlatformTx, name: &str) -> Result<Running> {
    let rows: Vec<RunningRow> = statement::<RunningColumns>(
        "SELECT id, name, plugin_type, config, manifest, package, permissions, revision FROM installed_plugins
         WHERE name = ? AND enabled AND org_id IS NULL",
    )
    .bind::<Text, _>(name.to_owned())
    .load(tx.conn()?)
    .await?;
    running(rows.into_iter().next().ok_or(Error::NotFound)?, None)
}

/// Where a plugin's store is asked: in one organization, or for what belongs to none.
#[derive(Debug)]
pub enum StoreTx<'a> {
    /// An organization's part.
    Org(&'a mut OrgTx),
    /// The platform's part.
    Platform(&'a mut PlatformTx),
}

impl StoreTx<'_> {
    fn org(&self) -> Option<OrgId> {
        match self {
            Self::Org(tx) => Some(tx.org_id()),
            Self::Platform(_) => None,
        }
    }

    fn conn(&mut self) -> Result<&mut AsyncPgConnection> {
        match self {
            Self::Org(tx) => tx.conn(),
            Self::Platform(tx) => tx.conn(),
        }
    }

    /// The value of a key.
    pub async fn get(&mut self, plugin: InstalledPluginId, key: &str) -> Result<Option<Value>> {
        let org = self.org();
        let rows: Vec<(Value,)> = statement::<(Jsonb,)>(
            "SELECT value FROM plugin_store WHERE plugin_id = ? AND org_id IS NOT DISTINCT FROM ? AND key = ?",
        )
        .bind::<BigInt, _>(plugin)
        .bind::<Nullable<Uuid>, _>(org)
        .bind::<Text, _>(key.to_owned())
        .load(self.conn()?)
        .await?;
        Ok(rows.into_iter().next().map(|row| row.0))
    }

    /// Sets a key, if there are fewer than `most` or it is there already; whether it did.
    pub async fn set(
        &mut self,
        plugin: InstalledPluginId,
        key: &str,
        value: Value,
        most: i64,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let org = self.org();
        let written = statement::<()>(
            "INSERT INTO plugin_store (plugin_id, org_id, key, value, updated_at)
             SELECT ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM plugin_store s WHERE s.plugin_id = ? AND s.org_id IS NOT DISTINCT FROM ?) < ?
                OR EXISTS (SELECT 1 FROM plugin_store s WHERE s.plugin_id = ? AND s.org_id IS NOT DISTINCT FROM ? AND s.key = ?)
             ON CONFLICT ON CONSTRAINT plugin_store_key DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        )
        .bind::<BigInt, _>(plugin)
        .bind::<Nullable<Uuid>, _>(org)
        .bind::<Text, _>(key.to_owned())
        .bind::<Jsonb, _>(value)
        .bind::<Timestamptz, _>(now)
        .bind::<BigInt, _>(plugin)
        .bind::<Nullable<Uuid>, _>(org)
        .bind::<BigInt, _>(most)
        .bind::<BigInt, _>(plugin)
        .bind::<Nullable<Uuid>, _>(org)
        .bind::<Text, _>(key.to_owned())
        .execute(self.conn()?)
        .await?;
        Ok(written == 1)
    }

    /// Takes a key away; whether it was there.
    pub async fn delete(&mut self, plugin: InstalledPluginId, key: &str) -> Result<bool> {
        let org = self.org();
        let gone = statement::<()>(
            "DELETE FROM plugin_store WHERE plugin_id = ? AND org_id IS NOT DISTINCT FROM ? AND key = ?",
        )
        .bind::<BigInt, _>(plugin)
        .bind::<Nullable<Uuid>, _>(org)
        .bind::<Text, _>(key.to_owned())
        .execute(self.conn()?)
        .await?;
        Ok(gone == 1)
    }

    /// Keys that begin like this, in order, at most 100.
    pub async fn keys(&mut self, plugin: InstalledPluginId, prefix: &str) -> Result<Vec<String>> {
        let org = self.org();
        let rows: Vec<(String,)> = statement::<(Text,)>(
            "SELECT key FROM plugin_store WHERE plugin_id = ? AND org_id IS NOT DISTINCT FROM ? AND left(key, length(?)) = ?
             ORDER BY key LIMIT 100",
        )
        .bind::<BigInt, _>(plugin)
        .bind::<Nullable<Uuid>, _>(org)
        .bind::<Text, _>(prefix.to_owned())
        .bind::<Text, _>(prefix.to_owned())
        .load(self.conn()?)
        .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}
