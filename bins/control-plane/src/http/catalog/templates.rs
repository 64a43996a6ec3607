//! `GET catalog/templates` and what hangs on one of it.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{AppType, CatalogTemplate, CatalogTemplateId, Fields, FromFields};
use utoipa::ToSchema;

use super::Wanted;
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Query, Segment},
};

/// A page of templates.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CatalogTemplates)]
pub(crate) struct Found {
    /// In the order that was asked for.
    templates: Vec<CatalogTemplate>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Which page of which templates.
#[derive(Debug)]
pub(crate) struct Which(Wanted<AppType>);

impl FromFields for Which {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Wanted::read(fields, "appType", "must be desktop, webapp or terminal").map(Self)
    }
}

/// Templates that can be installed: of repositories that are enabled and were synced.
#[utoipa::path(get, path = "/api/v1/catalog/templates", tag = "catalog", params(
    ("search" = Option<String>, Query, description = "words, their beginnings, or what is nearly the same; at most 200 characters"),
    ("category" = Option<String>, Query, description = "in this category, in any case"),
    ("tag" = Option<String>, Query, description = "with this tag, in any case"),
    ("appType" = Option<AppType>, Query, description = "desktop, webapp or terminal"),
    ("sort" = Option<String>, Query, description = "relevance, popular, rating, newest or name; relevance with a search, else popular. By relevance the 2000 most popular ones that fit are shown"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before, in the same order"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query, each field named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
))]
pub(crate) async fn templates(
    context: Data<Context>,
    caller: Identified,
    which: Query<Which>,
) -> Result<Json<Found>, Problem> {
    let Wanted { search, kind, paging } = which.0.0;
    let listed = context.services.catalog.templates(&caller.0, search, kind, &paging).await?;
    Ok(Json(Found {
        templates: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// A template that can be installed.
#[utoipa::path(get, path = "/api/v1/catalog/templates/{id}", tag = "catalog", params(("id" = i64, Path)), responses(
    (status = 200, description = "the template", body = CatalogTemplate),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such template, or not listed", body = ErrorAnswer),
))]
pub(crate) async fn template(
    context: Data<Context>,
    caller: Identified,
    id: Segment<CatalogTemplateId>,
) -> Result<Json<CatalogTemplate>, Problem> {
    Ok(Json(context.services.catalog.template(&caller.0, id.0).await?))
}
