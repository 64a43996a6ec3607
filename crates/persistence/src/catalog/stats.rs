//! How often what is looked at and installed.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Nullable, Timestamptz};
use diesel_async::RunQueryDsl;
use tidegate_model::{CatalogPluginId, CatalogTemplateId, PluginStats};

use super::CatalogTx;
use crate::{Error, OrgTx, PlatformTx, Result, statement::statement};

/// How often a plugin was looked at since it was last written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginViews {
    /// The plugin.
    pub plugin: CatalogPluginId,
    /// How often.
    pub views: i64,
    /// When last.
    pub last: DateTime<Utc>,
}

/// Adds views, in one statement for any number of plugins; those that are gone are passed over.
pub async fn count_views(tx: &mut PlatformTx, mut views: Vec<PluginViews>, now: DateTime<Utc>) -> Result<()> {
    views.sort_unstable_by_key(|one| one.plugin);
    statement::<()>(
        "WITH given AS (SELECT * FROM unnest(?, ?, ?) AS n (plugin_id, views, last)),
         held AS MATERIALIZED (SELECT s.plugin_id FROM plugin_stats s JOIN given g USING (plugin_id) ORDER BY s.plugin_id FOR NO KEY UPDATE OF s)
         UPDATE plugin_stats s SET view_count = s.view_count + g.views, last_viewed_at = GREATEST(s.last_viewed_at, g.last), updated_at = ?
         FROM held h JOIN given g USING (plugin_id) WHERE s.plugin_id = h.plugin_id",
    )
    .bind::<Array<BigInt>, _>(views.iter().map(|one| one.plugin).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(views.iter().map(|one| one.views).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(views.iter().map(|one| one.last).collect::<Vec<_>>())
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// A plugin's counts, as they are written down.
pub async fn plugin_stats(tx: &mut impl CatalogTx, plugin: CatalogPluginId) -> Result<PluginStats> {
    type Row = (CatalogPluginId, i64, i64, Option<DateTime<Utc>>, Option<DateTime<Utc>>, DateTime<Utc>);
    let rows: Vec<Row> =
        statement::<(BigInt, BigInt, BigInt, Nullable<Timestamptz>, Nullable<Timestamptz>, Timestamptz)>(
            "SELECT plugin_id, view_count, install_count, last_viewed_at, last_installed_at, updated_at
         FROM plugin_stats WHERE plugin_id = ?",
        )
        .bind::<BigInt, _>(plugin)
        .load(tx.connected()?)
        .await?;
    let stats = |(plugin_id, view_count, install_count, last_viewed_at, last_installed_at, updated_at)| {
        PluginStats { plugin_id, view_count, install_count, last_viewed_at, last_installed_at, updated_at }
    };
    rows.into_iter().next().map(stats).ok_or(Error::NotFound)
}

/// Counts one installation of a template, in the transaction that installs it.
pub async fn count_template_install(
    tx: &mut OrgTx,
    template: CatalogTemplateId,
    now: DateTime<Utc>,
) -> Result<()> {
    statement::<()>("SELECT catalog_template_installed(?, ?)")
        .bind::<BigInt, _>(template)
        .bind::<Timestamptz, _>(now)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Counts one installation of a plugin, in the transaction that installs it.
pub async fn count_plugin_install(
    tx: &mut PlatformTx,
    plugin: CatalogPluginId,
    now: DateTime<Utc>,
) -> Result<()> {
    statement::<()>("SELECT catalog_plugin_installed(?, ?)")
        .bind::<BigInt, _>(plugin)
        .bind::<Timestamptz, _>(now)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}
