//! `GET plugins/{id}/deliveries` and `POST …/deliveries/{deliveryId}/redeliver`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{
    DeliveryStatus, Fields, FromFields, InstalledPluginId, PluginDelivery, PluginDeliveryId,
};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    page::Page,
    valid::{Last, Query, Segment, parsed},
};

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PluginDeliveries)]
pub(crate) struct Found {
    /// The newest first.
    deliveries: Vec<PluginDelivery>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Which deliveries.
#[derive(Debug)]
pub(crate) struct Which {
    status: Option<DeliveryStatus>,
    page: Page,
}

impl FromFields for Which {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let status = parsed(fields, "status", "must be pending, delivered or failed");
        Some(Self { status, page: Page::from_fields(fields)? })
    }
}

/// What a plugin was told, with every try's outcome.
#[utoipa::path(get, path = "/api/v1/plugins/{id}/deliveries", tag = "plugins", params(
    ("id" = i64, Path),
    ("status" = Option<DeliveryStatus>, Query, description = "those that stand so"),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin", body = ErrorAnswer),
))]
pub(crate) async fn deliveries(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
    which: Query<Which>,
) -> Result<Json<Found>, Problem> {
    let Which { status, page } = which.0;
    let listed = context.services.plugins.deliveries(&caller.0, id.0, status, &page.0).await?;
    Ok(Json(Found {
        deliveries: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// Delivers something once more, with the same id: what was given up, and what was delivered, too.
#[utoipa::path(post, path = "/api/v1/plugins/{id}/deliveries/{deliveryId}/redeliver", tag = "plugins", params(
    ("id" = i64, Path), ("deliveryId" = String, Path),
), responses(
    (status = 200, description = "it waits to be delivered", body = PluginDelivery),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin or delivery", body = ErrorAnswer),
))]
pub(crate) async fn redeliver(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
    delivery: Last<PluginDeliveryId>,
) -> Result<Json<PluginDelivery>, Problem> {
    Ok(Json(context.services.plugins.redeliver(&caller.0, id.0, delivery.0).await?))
}
