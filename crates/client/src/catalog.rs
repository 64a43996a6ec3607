//! The catalog: templates and plugins that can be installed, and what people think of them.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tidegate_model::{
    AppType, BlobDigest, CatalogPlugin, CatalogPluginId, CatalogSort, CatalogTemplate, CatalogTemplateId,
    PluginRating, PluginStats, PluginType, PluginVersion, RateRequest, TemplateRating,
};

use crate::{Client, Error, call::Call};

/// What is looked for in the catalog.
#[derive(Debug, Clone, Default)]
pub struct CatalogQuery {
    /// Words, their beginnings, or what is nearly the same.
    pub search: Option<String>,
    /// In this category.
    pub category: Option<String>,
    /// With this tag.
    pub tag: Option<String>,
    /// In which order; what fits best first with a search, else what is most popular.
    pub sort: Option<CatalogSort>,
    /// Entries at most, 1 to 100; 100 where it is silent.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before, in the same order.
    pub cursor: Option<String>,
}

impl CatalogQuery {
    fn ask(&self, call: Call) -> Call {
        call.query("limit", self.limit.unwrap_or(100).to_string())
            .query_if("search", self.search.as_deref())
            .query_if("category", self.category.as_deref())
            .query_if("tag", self.tag.as_deref())
            .query_if("sort", self.sort.map(CatalogSort::as_str))
            .query_if("cursor", self.cursor.as_deref())
    }
}

/// One page of templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplatePage {
    /// In the order that was asked for.
    pub templates: Vec<CatalogTemplate>,
    /// How many there are on all pages, exact up to 10 000.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// One page of plugins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginPage {
    /// In the order that was asked for.
    pub plugins: Vec<CatalogPlugin>,
    /// How many there are on all pages, exact up to 10 000.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// One page of ratings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RatingPage<R> {
    /// The last change first.
    pub ratings: Vec<R>,
    /// How many there are on all pages, exact up to 10 000.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// The versions of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginVersions {
    /// The newest first.
    pub versions: Vec<PluginVersion>,
}

impl Client {
    /// `GET catalog/templates`, one page.
    pub async fn catalog_templates(
        &self,
        query: &CatalogQuery,
        app_type: Option<AppType>,
    ) -> Result<TemplatePage, Error> {
        let call = query.ask(Call::get(&["catalog", "templates"]));
        self.fetch(call.query_if("appType", app_type.map(AppType::as_str))).await
    }

    /// `GET plugins/catalog`, one page.
    pub async fn catalog_plugins(
        &self,
        query: &CatalogQuery,
        plugin_type: Option<PluginType>,
    ) -> Result<PluginPage, Error> {
        let call = query.ask(Call::get(&["plugins", "catalog"]));
        self.fetch(call.query_if("type", plugin_type.map(PluginType::as_str))).await
    }

    /// `GET catalog/templates/{id}`.
    pub async fn catalog_template(&self, id: CatalogTemplateId) -> Result<CatalogTemplate, Error> {
        self.fetch(Call::get(&["catalog", "templates", &id.to_string()])).await
    }

    /// `GET plugins/catalog/{id}`, which counts as looking at it.
    pub async fn catalog_plugin(&self, id: CatalogPluginId) -> Result<CatalogPlugin, Error> {
        self.fetch(Call::get(&["plugins", "catalog", &id.to_string()])).await
    }

    /// `GET plugins/catalog/{id}/versions`.
    pub async fn catalog_plugin_versions(&self, id: CatalogPluginId) -> Result<PluginVersions, Error> {
        self.fetch(Call::get(&["plugins", "catalog", &id.to_string(), "versions"])).await
    }

    /// `GET plugins/catalog/{id}/stats`.
    pub async fn catalog_plugin_stats(&self, id: CatalogPluginId) -> Result<PluginStats, Error> {
        self.fetch(Call::get(&["plugins", "catalog", &id.to_string(), "stats"])).await
    }

    /// `GET catalog/templates/{id}/ratings`, one page.
    pub async fn template_ratings(
        &self,
        id: CatalogTemplateId,
        cursor: Option<&str>,
    ) -> Result<RatingPage<TemplateRating>, Error> {
        let call = Call::get(&["catalog", "templates", &id.to_string(), "ratings"]);
        self.fetch(call.query("limit", "100".to_owned()).query_if("cursor", cursor)).await
    }

    /// `GET plugins/catalog/{id}/ratings`, one page.
    pub async fn plugin_ratings(
        &self,
        id: CatalogPluginId,
        cursor: Option<&str>,
    ) -> Result<RatingPage<PluginRating>, Error> {
        let call = Call::get(&["plugins", "catalog", &id.to_string(), "ratings"]);
        self.fetch(call.query("limit", "100".to_owned()).query_if("cursor", cursor)).await
    }

    /// `POST catalog/templates/{id}/rate`: a second rating replaces the first.
    pub async fn rate_template(
        &self,
        id: CatalogTemplateId,
        request: &RateRequest,
    ) -> Result<TemplateRating, Error> {
        let path = ["catalog", "templates", &id.to_string(), "rate"];
        self.fetch(Call::new(Method::POST, &path).json(request)?.repeatable()).await
    }

    /// `POST plugins/catalog/{id}/rate`: a second rating replaces the first.
    pub async fn rate_plugin(
        &self,
        id: CatalogPluginId,
        request: &RateRequest,
    ) -> Result<PluginRating, Error> {
        let path = ["plugins", "catalog", &id.to_string(), "rate"];
        self.fetch(Call::new(Method::POST, &path).json(request)?.repeatable()).await
    }

    /// `DELETE catalog/templates/{id}/rate`.
    pub async fn unrate_template(&self, id: CatalogTemplateId) -> Result<(), Error> {
        let path = ["catalog", "templates", &id.to_string(), "rate"];
        self.send(&Call::new(Method::DELETE, &path)).await.map(drop)
    }

    /// `DELETE plugins/catalog/{id}/rate`.
    pub async fn unrate_plugin(&self, id: CatalogPluginId) -> Result<(), Error> {
        let path = ["plugins", "catalog", &id.to_string(), "rate"];
        self.send(&Call::new(Method::DELETE, &path)).await.map(drop)
    }

    /// `GET catalog/icons/{digest}`: the picture.
    pub async fn catalog_icon(&self, digest: BlobDigest) -> Result<Vec<u8>, Error> {
        let response = self.send(&Call::get(&["catalog", "icons", &digest.to_string()])).await?;
        self.read_any(response).await
    }
}
