//! `GET plugins/catalog` and what hangs on one of it.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{
    CatalogPlugin, CatalogPluginId, Fields, FromFields, PluginStats, PluginType, PluginVersion,
};
use utoipa::ToSchema;

use super::Wanted;
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Query, Segment},
};

/// A page of plugins.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CatalogPlugins)]
pub(crate) struct Found {
    /// In the order that was asked for.
    plugins: Vec<CatalogPlugin>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Which page of which plugins.
#[derive(Debug)]
pub(crate) struct Which(Wanted<PluginType>);

impl FromFields for Which {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Wanted::read(fields, "type", "must be extension, webhook, api, ui or theme").map(Self)
    }
}

/// Plugins that can be installed: of repositories that are enabled and were synced.
#[utoipa::path(get, path = "/api/v1/plugins/catalog", tag = "catalog", params(
    ("search" = Option<String>, Query, description = "words, their beginnings, or what is nearly the same; at most 200 characters"),
    ("category" = Option<String>, Query, description = "in this category, in any case"),
    ("tag" = Option<String>, Query, description = "with this tag, in any case"),
    ("type" = Option<PluginType>, Query, description = "extension, webhook, api, ui or theme"),
    ("sort" = Option<String>, Query, description = "relevance, popular, rating, newest or name; relevance with a search, else popular. By relevance the 2000 most popular ones that fit are shown"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before, in the same order"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query, each field named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
))]
pub(crate) async fn plugins(
    context: Data<Context>,
    caller: Identified,
    which: Query<Which>,
) -> Result<Json<Found>, Problem> {
    let Wanted { search, kind, paging } = which.0.0;
    let listed = context.services.catalog.plugins(&caller.0, search, kind, &paging).await?;
    Ok(Json(Found {
        plugins: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// A plugin that can be installed. It counts as looked at.
#[utoipa::path(get, path = "/api/v1/plugins/catalog/{id}", tag = "catalog", params(("id" = i64, Path)), responses(
    (status = 200, description = "the plugin", body = CatalogPlugin),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such plugin, or not listed", body = ErrorAnswer),
))]
pub(crate) async fn plugin(
    context: Data<Context>,
    caller: Identified,
    id: Segment<CatalogPluginId>,
) -> Result<Json<CatalogPlugin>, Problem> {
    Ok(Json(context.services.catalog.plugin(&caller.0, id.0).await?))
}

/// Versions of a plugin.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PluginVersions)]
pub(crate) struct History {
    /// The newest first: the 100 that came last.
    versions: Vec<PluginVersion>,
    /// How many there are here.
    total: usize,
    /// Always `null`: there is one page.
    next_cursor: Option<String>,
}

/// The versions of a plugin with what each changed, the newest first.
#[utoipa::path(get, path = "/api/v1/plugins/catalog/{id}/versions", tag = "catalog", params(("id" = i64, Path)), responses(
    (status = 200, description = "the versions", body = History),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such plugin, or not listed", body = ErrorAnswer),
))]
pub(crate) async fn versions(
    context: Data<Context>,
    caller: Identified,
    id: Segment<CatalogPluginId>,
) -> Result<Json<History>, Problem> {
    let versions = context.services.catalog.versions(&caller.0, id.0).await?;
    Ok(Json(History { total: versions.len(), versions, next_cursor: None }))
}

/// How often a plugin is looked at and installed. Views of the last seconds come a little later.
#[utoipa::path(get, path = "/api/v1/plugins/catalog/{id}/stats", tag = "catalog", params(("id" = i64, Path)), responses(
    (status = 200, description = "the counts", body = PluginStats),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such plugin, or not listed", body = ErrorAnswer),
))]
pub(crate) async fn stats(
    context: Data<Context>,
    caller: Identified,
    id: Segment<CatalogPluginId>,
) -> Result<Json<PluginStats>, Problem> {
    Ok(Json(context.services.catalog.stats(&caller.0, id.0).await?))
}
