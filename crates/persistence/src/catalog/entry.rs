//! Templates, plugins and versions, one by one.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Bytea, Jsonb, Nullable, Text, Timestamptz};
use diesel_async::RunQueryDsl;
use semver::Version;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_model::{
    AppType, BlobDigest, CatalogPlugin, CatalogPluginId, CatalogRepository, CatalogTemplate,
    CatalogTemplateId, PluginType, PluginVersion, PluginVersionId, RepositoryId, RepositoryType,
    TemplatePlatform,
};

use super::CatalogTx;
use crate::{Error, Result, statement::statement};

/// A template with what only this server needs of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTemplate {
    /// What people see.
    pub template: CatalogTemplate,
    /// Its icon.
    pub icon: Option<BlobDigest>,
}

/// A plugin with what only this server needs of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPlugin {
    /// What people see.
    pub plugin: CatalogPlugin,
    /// Its icon.
    pub icon: Option<BlobDigest>,
    /// Its newest version's folder.
    pub package: BlobDigest,
}

/// A plugin's version with what only this server needs of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVersion {
    /// What people see.
    pub version: PluginVersion,
    /// Its folder.
    pub package: BlobDigest,
}

pub(super) type RepositoryColumns = (BigInt, Text, Text, Text, Text, Bool, Timestamptz, Timestamptz);
pub(super) type RepositoryRow =
    (RepositoryId, String, String, RepositoryType, String, bool, DateTime<Utc>, DateTime<Utc>);

/// The columns of [`RepositoryColumns`], of `repositories r`.
macro_rules! repository_columns {
    () => {
        "r.id, r.name, r.url, r.type, r.description, r.enabled, r.created_at, r.updated_at"
    };
}

fn repository(row: RepositoryRow) -> CatalogRepository {
    let (id, name, url, kind, description, enabled, created_at, updated_at) = row;
    CatalogRepository { id, name, url, kind, description, enabled, created_at, updated_at }
}

/// Columns that templates and plugins share, of the entry `e` and its counts `s`.
pub(super) type EntryColumns = (
    BigInt,
    BigInt,
    Text,
    Text,
    Text,
    Text,
    Nullable<Bytea>,
    Jsonb,
    Timestamptz,
    Timestamptz,
    Nullable<Timestamptz>,
    BigInt,
    BigInt,
    BigInt,
);
pub(super) type EntryRow = (
    i64,
    RepositoryId,
    String,
    String,
    String,
    String,
    Option<Vec<u8>>,
    Value,
    DateTime<Utc>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    i64,
    i64,
    i64,
);
macro_rules! entry_columns {
    () => {
        "e.id, e.repository_id, e.name, e.display_name, e.description, e.category, e.icon, e.manifest, e.created_at, e.updated_at, \
         e.withdrawn_at, s.install_count, s.rating_sum, s.rating_count"
    };
}

pub(super) use {entry_columns, repository_columns};

pub(super) type TemplateColumns = (EntryColumns, Text, Array<Text>, RepositoryColumns);
pub(super) type TemplateRow = (EntryRow, AppType, Vec<String>, RepositoryRow);
pub(super) type PluginColumns = (EntryColumns, Text, Text, Bytea, RepositoryColumns);
pub(super) type PluginRow = (EntryRow, String, PluginType, Vec<u8>, RepositoryRow);

fn read<T: DeserializeOwned>(manifest: Value) -> Result<T> {
    serde_json::from_value(manifest).map_err(|error| Error::corrupt("manifest", error))
}

fn digest(bytes: Vec<u8>) -> Result<BlobDigest> {
    BlobDigest::try_from(bytes).map_err(|error| Error::corrupt("digest", error))
}

fn version(text: &str) -> Result<Version> {
    text.parse().map_err(|error: semver::Error| Error::corrupt("version", error))
}

/// Mean of ratings; 0 of none.
fn mean(sum: i64, count: i64) -> f64 {
    // Counts of ratings stay far below where a float forgets whole numbers.
    let exact = |number: i64| i32::try_from(number).map_or(f64::from(i32::MAX), f64::from);
    if count == 0 { 0.0 } else { exact(sum) / exact(count) }
}

fn icon_url(icon: Option<&BlobDigest>) -> String {
    icon.map(BlobDigest::icon_url).unwrap_or_default()
}

pub(super) fn stored_template((entry, app_type, platforms, of): TemplateRow) -> Result<StoredTemplate> {
    let (
        id,
        repository_id,
        name,
        display_name,
        description,
        category,
        icon,
        manifest,
        created,
        updated,
        withdrawn,
        installs,
        sum,
        count,
    ) = entry;
    let icon = icon.map(digest).transpose()?;
    let manifest: tidegate_model::TemplateManifest = read(manifest)?;
    let platforms: Result<Vec<TemplatePlatform>, _> = platforms.iter().map(|text| text.parse()).collect();
    let template = CatalogTemplate {
        id: CatalogTemplateId::from_number(id),
        repository_id,
        name,
        display_name,
        description,
        category,
        app_type,
        platforms: platforms.map_err(|error| Error::corrupt("platform", error))?,
        icon_url: icon_url(icon.as_ref()),
        tags: manifest.tags.clone(),
        manifest,
        install_count: installs,
        avg_rating: mean(sum, count),
        rating_count: count,
        repository: repository(of),
        created_at: created,
        updated_at: updated,
        withdrawn_at: withdrawn,
    };
    Ok(StoredTemplate { template, icon })
}

pub(super) fn stored_plugin((entry, newest, plugin_type, package, of): PluginRow) -> Result<StoredPlugin> {
    let (
        id,
        repository_id,
        name,
        display_name,
        description,
        category,
        icon,
        manifest,
        created,
        updated,
        withdrawn,
        installs,
        sum,
        count,
    ) = entry;
    let icon = icon.map(digest).transpose()?;
    let manifest: tidegate_model::PluginManifest = read(manifest)?;
    let plugin = CatalogPlugin {
        id: CatalogPluginId::from_number(id),
        repository_id,
        name,
        version: version(&newest)?,
        display_name,
        description,
        category,
        plugin_type,
        icon_url: icon_url(icon.as_ref()),
        tags: manifest.tags.clone(),
        manifest,
        install_count: installs,
        avg_rating: mean(sum, count),
        rating_count: count,
        repository: repository(of),
        created_at: created,
        updated_at: updated,
        withdrawn_at: withdrawn,
    };
    Ok(StoredPlugin { plugin, icon, package: digest(package)? })
}

/// A template of a repository that this transaction sees: people and organizations only those that are enabled. It may be
/// withdrawn.
pub async fn template(tx: &mut impl CatalogTx, id: CatalogTemplateId) -> Result<StoredTemplate> {
    let rows: Vec<TemplateRow> = statement::<TemplateColumns>(concat!(
        "SELECT ",
        entry_columns!(),
        ", e.app_type, e.platforms, ",
        repository_columns!(),
        " FROM catalog_templates e JOIN template_stats s ON s.template_id = e.id JOIN repositories r ON r.id = e.repository_id WHERE e.id = ?"
    ))
    .bind::<BigInt, _>(id)
    .load(tx.connected()?)
    .await?;
    rows.into_iter().next().map(stored_template).ok_or(Error::NotFound)?
}

/// A plugin of a repository that this transaction sees: people and organizations only those that are enabled. It may be
/// withdrawn.
pub async fn plugin(tx: &mut impl CatalogTx, id: CatalogPluginId) -> Result<StoredPlugin> {
    let rows: Vec<PluginRow> = statement::<PluginColumns>(concat!(
        "SELECT ",
        entry_columns!(),
        ", e.version, e.plugin_type, e.package, ",
        repository_columns!(),
        " FROM catalog_plugins e JOIN plugin_stats s ON s.plugin_id = e.id JOIN repositories r ON r.id = e.repository_id WHERE e.id = ?"
    ))
    .bind::<BigInt, _>(id)
    .load(tx.connected()?)
    .await?;
    rows.into_iter().next().map(stored_plugin).ok_or(Error::NotFound)?
}

type VersionColumns = (BigInt, BigInt, Text, Text, Jsonb, Bytea, Timestamptz);
type VersionRow = (PluginVersionId, CatalogPluginId, String, String, Value, Vec<u8>, DateTime<Utc>);

fn stored_version(row: VersionRow) -> Result<StoredVersion> {
    let (id, plugin_id, text, changelog, manifest, package, created_at) = row;
    let version = PluginVersion {
        id,
        plugin_id,
        version: version(&text)?,
        changelog,
        manifest: read(manifest)?,
        created_at,
    };
    Ok(StoredVersion { version, package: digest(package)? })
}

/// One version of a plugin.
pub async fn plugin_version(
    tx: &mut impl CatalogTx,
    plugin: CatalogPluginId,
    wanted: &Version,
) -> Result<StoredVersion> {
    let rows: Vec<VersionRow> = statement::<VersionColumns>(
        "SELECT id, plugin_id, version, changelog, manifest, package, created_at FROM plugin_versions
         WHERE plugin_id = ? AND version = ?",
    )
    .bind::<BigInt, _>(plugin)
    .bind::<Text, _>(wanted.to_string())
    .load(tx.connected()?)
    .await?;
    rows.into_iter().next().map(stored_version).ok_or(Error::NotFound)?
}

/// The versions of a plugin that came last, at most `limit`, the newest by its number first.
pub async fn plugin_versions(
    tx: &mut impl CatalogTx,
    plugin: CatalogPluginId,
    limit: i64,
) -> Result<Vec<StoredVersion>> {
    let rows: Vec<VersionRow> = statement::<VersionColumns>(
        "SELECT id, plugin_id, version, changelog, manifest, package, created_at FROM plugin_versions
         WHERE plugin_id = ? ORDER BY created_at DESC, id DESC LIMIT ?",
    )
    .bind::<BigInt, _>(plugin)
    .bind::<BigInt, _>(limit)
    .load(tx.connected()?)
    .await?;
    let mut versions = rows.into_iter().map(stored_version).collect::<Result<Vec<StoredVersion>>>()?;
    versions.sort_by(|one, other| other.version.version.cmp(&one.version.version));
    Ok(versions)
}
