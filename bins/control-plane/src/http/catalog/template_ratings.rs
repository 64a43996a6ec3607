//! `catalog/templates/{id}/ratings` and `catalog/templates/{id}/rate`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use tidegate_model::{CatalogTemplateId, RateRequest, TemplateRating};
use utoipa::ToSchema;

use super::NewRating;
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    page::Page,
    valid::{Body, Query, Segment},
};

/// A page of ratings.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TemplateRatings)]
pub(crate) struct Found {
    /// The last change first.
    ratings: Vec<TemplateRating>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// What people think of a template. Who said it is shown of oneself and of members of one's own organizations.
#[utoipa::path(get, path = "/api/v1/catalog/templates/{id}/ratings", tag = "catalog", params(
    ("id" = i64, Path),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such template, or not listed", body = ErrorAnswer),
))]
pub(crate) async fn template_ratings(
    context: Data<Context>,
    caller: Identified,
    id: Segment<CatalogTemplateId>,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.catalog.template_ratings(&caller.0, id.0, &page.0.0).await?;
    Ok(Json(Found {
        ratings: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// Rates a template; whoever did before says something else now.
#[utoipa::path(post, path = "/api/v1/catalog/templates/{id}/rate", tag = "catalog", request_body = NewRating, params(("id" = i64, Path)), responses(
    (status = 200, description = "rated", body = TemplateRating),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "the credential is an API key", body = ErrorAnswer),
    (status = 404, description = "no such template, or not listed", body = ErrorAnswer),
))]
pub(crate) async fn rate_template(
    context: Data<Context>,
    caller: Identified,
    id: Segment<CatalogTemplateId>,
    body: Body<RateRequest>,
) -> Result<Json<TemplateRating>, Problem> {
    let catalog = &context.services.catalog;
    let there = async || Ok(catalog.template_is_listed(&caller.0, id.0).await?);
    let request = body.after(there).await?;
    Ok(Json(catalog.rate_template(&caller.0, id.0, request).await?))
}

/// Takes one's rating of a template back.
#[utoipa::path(delete, path = "/api/v1/catalog/templates/{id}/rate", tag = "catalog", params(("id" = i64, Path)), responses(
    (status = 204, description = "it is gone"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "the credential is an API key", body = ErrorAnswer),
    (status = 404, description = "no rating of the caller's", body = ErrorAnswer),
))]
pub(crate) async fn unrate_template(
    context: Data<Context>,
    caller: Identified,
    id: Segment<CatalogTemplateId>,
) -> Result<HttpResponse, Problem> {
    context.services.catalog.unrate_template(&caller.0, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
