//! What a sync writes: each function is one statement for any number of rows.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Bytea, Jsonb, Nullable, Text, Timestamptz};
use diesel_async::RunQueryDsl;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_model::{
    BlobDigest, CatalogPluginId, CatalogTemplateId, PluginManifest, RepositoryId, TemplateManifest,
};

use crate::{Error, PlatformTx, Result, statement::statement};

/// What the catalog has of a repository, by name: each with its id, the digest it was written with, and whether it was
/// withdrawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Its templates.
    pub templates: BTreeMap<String, (CatalogTemplateId, Vec<u8>, bool)>,
    /// Its plugins.
    pub plugins: BTreeMap<String, (CatalogPluginId, Vec<u8>, bool)>,
}

/// What the catalog has of a repository.
pub async fn known(tx: &mut PlatformTx, repository: RepositoryId) -> Result<Known> {
    let rows: Vec<(bool, String, i64, Vec<u8>, bool)> = statement::<(Bool, Text, BigInt, Bytea, Bool)>(
        "SELECT true, name, id, digest, withdrawn_at IS NOT NULL FROM catalog_templates WHERE repository_id = ?
         UNION ALL SELECT false, name, id, digest, withdrawn_at IS NOT NULL FROM catalog_plugins WHERE repository_id = ?",
    )
    .bind::<BigInt, _>(repository)
    .bind::<BigInt, _>(repository)
    .load(tx.conn()?)
    .await?;
    let mut known = Known::default();
    for (is_template, name, id, digest, withdrawn) in rows {
        if is_template {
            known.templates.insert(name, (CatalogTemplateId::from_number(id), digest, withdrawn));
        } else {
            known.plugins.insert(name, (CatalogPluginId::from_number(id), digest, withdrawn));
        }
    }
    Ok(known)
}

/// A template as its repository has it.
#[derive(Debug, Clone)]
pub struct NewTemplate {
    /// What it says.
    pub manifest: TemplateManifest,
    /// Its icon, kept before by [`super::put_blobs`].
    pub icon: Option<BlobDigest>,
    /// Of all that the repository says of it, its icon included.
    pub digest: Vec<u8>,
}

/// A plugin as its repository has it.
#[derive(Debug, Clone)]
pub struct NewPlugin {
    /// What it says.
    pub manifest: PluginManifest,
    /// Its icon, kept before by [`super::put_blobs`].
    pub icon: Option<BlobDigest>,
    /// Its folder, kept before by [`super::put_blobs`].
    pub package: BlobDigest,
    /// What this version changes.
    pub changelog: String,
    /// Of all that the repository says of it, icon and package included.
    pub digest: Vec<u8>,
}

fn stored<M: Serialize>(manifest: &M) -> Result<Value> {
    serde_json::to_value(manifest).map_err(|error| Error::Internal(Box::new(error)))
}

fn bytes(digest: Option<BlobDigest>) -> Option<Vec<u8>> {
    digest.map(|digest| digest.as_bytes().to_vec())
}

/// Writes templates by their names: what is there keeps its id, ratings and counts, what was withdrawn is back.
pub async fn upsert_templates(
    tx: &mut PlatformTx,
    repository: RepositoryId,
    templates: &[NewTemplate],
    now: DateTime<Utc>,
) -> Result<()> {
    if templates.is_empty() {
        return Ok(());
    }
    let manifests = templates.iter().map(|new| stored(&new.manifest)).collect::<Result<Vec<Value>>>()?;
    statement::<()>(
        "WITH entries AS (
           INSERT INTO catalog_templates AS t (repository_id, name, display_name, description, category, app_type, platforms, tags,
                icon, manifest, digest, created_at, updated_at)
           SELECT ?, n.m ->> 'name', n.m ->> 'displayName', n.m ->> 'description', COALESCE(n.m ->> 'category', ''), n.m ->> 'appType',
                ARRAY(SELECT jsonb_array_elements_text(n.m -> 'platforms')),
                ARRAY(SELECT lower(tag) FROM jsonb_array_elements_text(n.m -> 'tags') AS x (tag)), n.icon, n.m, n.digest, ?, ?
           FROM unnest(?, ?, ?) AS n (m, icon, digest) ORDER BY n.m ->> 'name'
           ON CONFLICT (repository_id, name) DO UPDATE SET display_name = excluded.display_name, description = excluded.description,
                category = excluded.category, app_type = excluded.app_type, platforms = excluded.platforms, tags = excluded.tags,
                icon = excluded.icon, manifest = excluded.manifest, digest = excluded.digest, withdrawn_at = NULL,
                updated_at = excluded.updated_at
           RETURNING t.id, t.created_at)
         INSERT INTO template_stats (template_id, updated_at) SELECT e.id, e.created_at FROM entries e
         ON CONFLICT (template_id) DO NOTHING",
    )
    .bind::<BigInt, _>(repository)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Array<Jsonb>, _>(manifests)
    .bind::<Array<Nullable<Bytea>>, _>(templates.iter().map(|new| bytes(new.icon)).collect::<Vec<_>>())
    .bind::<Array<Bytea>, _>(templates.iter().map(|new| new.digest.clone()).collect::<Vec<_>>())
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Writes plugins by their names, each with its version: what is there keeps its id, ratings, counts and versions, what was
/// withdrawn is back. A version that was published again is what it is now.
pub async fn upsert_plugins(
    tx: &mut PlatformTx,
    repository: RepositoryId,
    plugins: &[NewPlugin],
    now: DateTime<Utc>,
) -> Result<()> {
    if plugins.is_empty() {
        return Ok(());
    }
    let manifests = plugins.iter().map(|new| stored(&new.manifest)).collect::<Result<Vec<Value>>>()?;
    statement::<()>(
        "WITH given AS (SELECT * FROM unnest(?, ?, ?, ?, ?) AS n (m, icon, package, changelog, digest)),
         entries AS (
           INSERT INTO catalog_plugins AS p (repository_id, name, version, display_name, description, category, plugin_type, tags,
                icon, package, manifest, digest, created_at, updated_at)
           SELECT ?, n.m ->> 'name', n.m ->> 'version', n.m ->> 'displayName', n.m ->> 'description', COALESCE(n.m ->> 'category', ''),
                n.m ->> 'type', ARRAY(SELECT lower(tag) FROM jsonb_array_elements_text(n.m -> 'tags') AS x (tag)),
                n.icon, n.package, n.m, n.digest, ?, ?
           FROM given n ORDER BY n.m ->> 'name'
           ON CONFLICT (repository_id, name) DO UPDATE SET version = excluded.version, display_name = excluded.display_name,
                description = excluded.description, category = excluded.category, plugin_type = excluded.plugin_type,
                tags = excluded.tags, icon = excluded.icon, package = excluded.package, manifest = excluded.manifest,
                digest = excluded.digest, withdrawn_at = NULL, updated_at = excluded.updated_at
           RETURNING p.id, p.name, p.created_at),
         counted AS (
           INSERT INTO plugin_stats (plugin_id, updated_at) SELECT e.id, e.created_at FROM entries e
           ON CONFLICT (plugin_id) DO NOTHING)
         INSERT INTO plugin_versions (plugin_id, version, changelog, manifest, package, created_at)
         SELECT e.id, n.m ->> 'version', n.changelog, n.m, n.package, ? FROM given n JOIN entries e ON e.name = n.m ->> 'name'
         ORDER BY e.id
         ON CONFLICT (plugin_id, version) DO UPDATE SET changelog = excluded.changelog, manifest = excluded.manifest,
                package = excluded.package",
    )
    .bind::<Array<Jsonb>, _>(manifests)
    .bind::<Array<Nullable<Bytea>>, _>(plugins.iter().map(|new| bytes(new.icon)).collect::<Vec<_>>())
    .bind::<Array<Bytea>, _>(plugins.iter().map(|new| new.package.as_bytes().to_vec()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(plugins.iter().map(|new| new.changelog.clone()).collect::<Vec<_>>())
    .bind::<Array<Bytea>, _>(plugins.iter().map(|new| new.digest.clone()).collect::<Vec<_>>())
    .bind::<BigInt, _>(repository)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Withdraws what a repository no longer has: it is not listed any more, and stays for whoever installed it. Returns how
/// many there were.
pub async fn withdraw(
    tx: &mut PlatformTx,
    repository: RepositoryId,
    templates: Vec<String>,
    plugins: Vec<String>,
    now: DateTime<Utc>,
) -> Result<usize> {
    if templates.is_empty() && plugins.is_empty() {
        return Ok(0);
    }
    let gone: Vec<i64> = statement::<BigInt>(
        "WITH t AS (UPDATE catalog_templates SET withdrawn_at = ?, updated_at = ?
                    WHERE repository_id = ? AND name = ANY (?) AND withdrawn_at IS NULL RETURNING 1),
              p AS (UPDATE catalog_plugins SET withdrawn_at = ?, updated_at = ?
                    WHERE repository_id = ? AND name = ANY (?) AND withdrawn_at IS NULL RETURNING 1)
         SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM p)",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(repository)
    .bind::<Array<Text>, _>(templates)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(repository)
    .bind::<Array<Text>, _>(plugins)
    .load(tx.conn()?)
    .await?;
    Ok(gone.into_iter().next().and_then(|gone| usize::try_from(gone).ok()).unwrap_or(0))
}
