//! The catalog as people see it: searched, looked at, rated. What it holds is written by syncs, and installed elsewhere.
//!
//! It is the platform's, and whoever is logged in sees the same one; nobody learns from it who uses the platform beside the
//! members of their own organizations.

mod views;

use std::sync::Arc;

use serde_json::json;
use tidegate_model::{
    AppType, BlobDigest, CatalogPlugin, CatalogPluginId, CatalogSort, CatalogTemplate, CatalogTemplateId,
    FieldErrors, Operation, PluginRating, PluginStats, PluginType, PluginVersion, RateRequest, Standing,
    TemplateRating,
};
use tidegate_persistence::{
    UserTx, audit,
    catalog::{self, Blob, Key, Query},
};

pub(crate) use self::views::Views;
use crate::{
    Caller, Core, Error, Listed, Paging, Result,
    error::Named,
    page,
    page::{bad_cursor, known_moment},
    permissions::require,
};

/// The catalog as people see it.
#[derive(Debug, Clone)]
pub struct Catalog(pub(crate) Arc<Core>);

/// What is looked for in the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogSearch {
    /// Words, parts of them, or what is nearly the same; at most 200 characters.
    pub text: Option<String>,
    /// In this category, in any case.
    pub category: Option<String>,
    /// With this tag, in any case.
    pub tag: Option<String>,
    /// In which order; what fits best first, or what is most popular where no text is looked for.
    pub sort: Option<CatalogSort>,
}

/// Versions of a plugin that are shown at most.
const VERSIONS: i64 = 100;

impl CatalogSearch {
    fn query(self, kind: Option<&'static str>, paging: &Paging) -> Result<Query> {
        let mut errors = FieldErrors::new();
        let trimmed =
            |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let (text, category, tag) = (trimmed(self.text), trimmed(self.category), trimmed(self.tag));
        for (field, value, longest) in
            [("search", &text, 200), ("category", &category, 64), ("tag", &tag, 64)]
        {
            if value.as_ref().is_some_and(|value| value.chars().count() > longest) {
                errors.add(field, format_args!("must have at most {longest} characters"));
            }
        }
        errors.into_result().map_err(Error::Invalid)?;
        let sort = match self.sort {
            None if text.is_some() => CatalogSort::Relevance,
            None => CatalogSort::Popular,
            Some(CatalogSort::Relevance) if text.is_none() => CatalogSort::Popular,
            Some(sort) => sort,
        };
        let after = paging.after()?.map(|text| read_key(&text, sort).ok_or_else(bad_cursor)).transpose()?;
        Ok(Query { text, category, tag, kind, sort, after, limit: paging.rows() })
    }
}

/// A key as a cursor says it. The order is in it: a cursor of one order means nothing in another.
fn written_key(sort: CatalogSort, key: &Key) -> String {
    format!("{sort} {} {} {} {}", key.first, key.second, key.id, key.name)
}

fn read_key(text: &str, sort: CatalogSort) -> Option<Key> {
    let mut parts = text.splitn(5, ' ');
    if parts.next()? != sort.as_str() {
        return None;
    }
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (first, second, id) = (number()?, number()?, number()?);
    if sort == CatalogSort::Newest {
        known_moment(first)?;
    }
    Some(Key { first, second, id, name: parts.next()?.to_owned() })
}

impl Catalog {
    /// Templates that fit.
    pub async fn templates(
        &self,
        caller: &Caller,
        search: CatalogSearch,
        app_type: Option<AppType>,
        paging: &Paging,
    ) -> Result<Listed<CatalogTemplate>> {
        allowed(caller, Operation::ReadCatalog)?;
        let query = search.query(app_type.map(AppType::as_str), paging)?;
        let (asked, sort) = (query.clone(), query.sort);
        let found =
            self.0.db.in_user(caller.user(), async |tx| catalog::search_templates(tx, &asked).await).await?;
        let listed = paging.page(found.entries, found.total, |(_, key)| written_key(sort, key));
        Ok(listed.map(|(stored, _)| stored.template))
    }

    /// Plugins that fit.
    pub async fn plugins(
        &self,
        caller: &Caller,
        search: CatalogSearch,
        plugin_type: Option<PluginType>,
        paging: &Paging,
    ) -> Result<Listed<CatalogPlugin>> {
        allowed(caller, Operation::ReadCatalog)?;
        let query = search.query(plugin_type.map(PluginType::as_str), paging)?;
        let (asked, sort) = (query.clone(), query.sort);
        let found =
            self.0.db.in_user(caller.user(), async |tx| catalog::search_plugins(tx, &asked).await).await?;
        let listed = paging.page(found.entries, found.total, |(_, key)| written_key(sort, key));
        Ok(listed.map(|(stored, _)| stored.plugin))
    }

    /// A template that is listed.
    pub async fn template(&self, caller: &Caller, id: CatalogTemplateId) -> Result<CatalogTemplate> {
        allowed(caller, Operation::ReadCatalog)?;
        self.0.db.in_user(caller.user(), async |tx| listed_template(tx, id).await).await
    }

    /// A plugin that is listed. It counts as looked at.
    pub async fn plugin(&self, caller: &Caller, id: CatalogPluginId) -> Result<CatalogPlugin> {
        allowed(caller, Operation::ReadCatalog)?;
        let plugin = self.0.db.in_user(caller.user(), async |tx| listed_plugin(tx, id).await).await?;
        self.0.views.note(id, self.0.clock.now());
        Ok(plugin)
    }

    /// Whether a template is listed: else it is not found.
    pub async fn template_is_listed(&self, caller: &Caller, id: CatalogTemplateId) -> Result<()> {
        self.template(caller, id).await.map(drop)
    }

    /// Whether a plugin is listed: else it is not found. It does not count as looked at.
    pub async fn plugin_is_listed(&self, caller: &Caller, id: CatalogPluginId) -> Result<()> {
        allowed(caller, Operation::ReadCatalog)?;
        self.0.db.in_user(caller.user(), async |tx| listed_plugin(tx, id).await.map(drop)).await
    }

    /// The versions of a plugin, the newest first: the 100 that came last.
    pub async fn versions(&self, caller: &Caller, id: CatalogPluginId) -> Result<Vec<PluginVersion>> {
        allowed(caller, Operation::ReadCatalog)?;
        let versions = self.0.db.in_user(caller.user(), async |tx| {
            listed_plugin(tx, id).await?;
            Ok::<_, Error>(catalog::plugin_versions(tx, id, VERSIONS).await?)
        });
        Ok(versions.await?.into_iter().map(|stored| stored.version).collect())
    }

    /// How often a plugin is looked at and installed. Views of the last seconds come a little later.
    pub async fn stats(&self, caller: &Caller, id: CatalogPluginId) -> Result<PluginStats> {
        allowed(caller, Operation::ReadCatalog)?;
        let stats = self.0.db.in_user(caller.user(), async |tx| {
            listed_plugin(tx, id).await?;
            Ok::<_, Error>(catalog::plugin_stats(tx, id).await?)
        });
        stats.await
    }

    /// Ratings of a template, the last change first.
    pub async fn template_ratings(
        &self,
        caller: &Caller,
        id: CatalogTemplateId,
        paging: &Paging,
    ) -> Result<Listed<TemplateRating>> {
        allowed(caller, Operation::ReadCatalog)?;
        let (after, rows) = (paging.after_moment()?, paging.rows());
        let ratings = self.0.db.in_user(caller.user(), async |tx| {
            listed_template(tx, id).await?;
            Ok::<_, Error>(catalog::template_ratings(tx, id, after, rows).await?)
        });
        let (items, total) = ratings.await?;
        let listed = paging.page(items, total, |placed| page::moment(placed.place.0, placed.place.1));
        Ok(listed.map(|placed| placed.rating))
    }

    /// Ratings of a plugin, the last change first.
    pub async fn plugin_ratings(
        &self,
        caller: &Caller,
        id: CatalogPluginId,
        paging: &Paging,
    ) -> Result<Listed<PluginRating>> {
        allowed(caller, Operation::ReadCatalog)?;
        let (after, rows) = (paging.after_moment()?, paging.rows());
        let ratings = self.0.db.in_user(caller.user(), async |tx| {
            listed_plugin(tx, id).await?;
            Ok::<_, Error>(catalog::plugin_ratings(tx, id, after, rows).await?)
        });
        let (items, total) = ratings.await?;
        let listed = paging.page(items, total, |placed| page::moment(placed.place.0, placed.place.1));
        Ok(listed.map(|placed| placed.rating))
    }

    /// Rates a template, or says something else of it than before.
    pub async fn rate_template(
        &self,
        caller: &Caller,
        id: CatalogTemplateId,
        request: RateRequest,
    ) -> Result<TemplateRating> {
        allowed(caller, Operation::RateCatalog)?;
        let now = self.0.clock.now();
        let name = caller.user().username();
        let rated = self.0.db.in_user(caller.user(), async |tx| {
            listed_template(tx, id).await?;
            // The line first: raters of one entry wait for each other from the rating on.
            let detail = json!({"after": request});
            audit::insert_user(tx, None, line("template.rate", format!("template:{id}"), detail, now))
                .await?;
            Ok::<_, Error>(catalog::rate_template(tx, (id, name), request, now).await?)
        });
        rated.await
    }

    /// Rates a plugin, or says something else of it than before.
    pub async fn rate_plugin(
        &self,
        caller: &Caller,
        id: CatalogPluginId,
        request: RateRequest,
    ) -> Result<PluginRating> {
        allowed(caller, Operation::RateCatalog)?;
        let now = self.0.clock.now();
        let name = caller.user().username();
        let rated = self.0.db.in_user(caller.user(), async |tx| {
            listed_plugin(tx, id).await?;
            let detail = json!({"after": request});
            audit::insert_user(tx, None, line("plugin.rate", format!("plugin:{id}"), detail, now)).await?;
            Ok::<_, Error>(catalog::rate_plugin(tx, (id, name), request, now).await?)
        });
        rated.await
    }

    /// Takes one's rating of a template back, also of one that is listed no longer.
    pub async fn unrate_template(&self, caller: &Caller, id: CatalogTemplateId) -> Result<()> {
        allowed(caller, Operation::RateCatalog)?;
        let now = self.0.clock.now();
        let gone = self.0.db.in_user(caller.user(), async |tx| {
            if !catalog::unrate_template(tx, id).await? {
                return Err(Error::not_found(format_args!("your rating of template {id}")));
            }
            let line = line("template.unrate", format!("template:{id}"), json!({}), now);
            Ok(audit::insert_user(tx, None, line).await?)
        });
        gone.await
    }

    /// Takes one's rating of a plugin back, also of one that is listed no longer.
    pub async fn unrate_plugin(&self, caller: &Caller, id: CatalogPluginId) -> Result<()> {
        allowed(caller, Operation::RateCatalog)?;
        let now = self.0.clock.now();
        let gone = self.0.db.in_user(caller.user(), async |tx| {
            if !catalog::unrate_plugin(tx, id).await? {
                return Err(Error::not_found(format_args!("your rating of plugin {id}")));
            }
            let line = line("plugin.unrate", format!("plugin:{id}"), json!({}), now);
            Ok(audit::insert_user(tx, None, line).await?)
        });
        gone.await
    }

    /// A picture, by its digest.
    pub async fn icon(&self, caller: &Caller, digest: BlobDigest) -> Result<Blob> {
        allowed(caller, Operation::ReadCatalog)?;
        let icon = self.0.db.in_user(caller.user(), async |tx| catalog::blob(tx, digest).await);
        icon.await.named(format_args!("icon {digest}"))
    }
}

fn allowed(caller: &Caller, operation: Operation) -> Result<()> {
    require(operation, Standing { system: caller.role(), org: None, owner: false })
}

fn line(
    action: &'static str,
    resource: String,
    detail: serde_json::Value,
    at: chrono::DateTime<chrono::Utc>,
) -> audit::Entry {
    audit::Entry { action, resource, address: None, detail, at }
}

/// What is withdrawn is seen by whoever installed it, and not here.
async fn listed_template(tx: &mut UserTx, id: CatalogTemplateId) -> Result<CatalogTemplate> {
    let what = || format!("template {id}");
    let found = catalog::template(tx, id).await.named(what())?.template;
    if found.withdrawn_at.is_some() { Err(Error::not_found(what())) } else { Ok(found) }
}

async fn listed_plugin(tx: &mut UserTx, id: CatalogPluginId) -> Result<CatalogPlugin> {
    let what = || format!("plugin {id}");
    let found = catalog::plugin(tx, id).await.named(what())?.plugin;
    if found.withdrawn_at.is_some() { Err(Error::not_found(what())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_in_its_own_order_alone() {
        let key = Key { first: -1, second: i64::MAX, name: "a  b ".into(), id: 7 };
        let text = written_key(CatalogSort::Name, &key);
        assert_eq!(read_key(&text, CatalogSort::Name), Some(key));
        assert_eq!(read_key(&text, CatalogSort::Popular), None);
        for bad in ["", "name", "name 1 2", "name 1 2 x y", "name 1 2 3", "name 99999999999999999999 1 1 x"] {
            assert_eq!(read_key(bad, CatalogSort::Name), None, "{bad:?}");
        }
    }
}
