//! `GET plugins`, `GET plugins/{id}` and `GET plugins/{id}/secret`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{Fields, FromFields, InstalledPlugin, InstalledPluginId, OrgId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Query, Segment, parsed},
};

/// Plugins that are installed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InstalledPlugins)]
pub(crate) struct Found {
    /// By name.
    plugins: Vec<InstalledPlugin>,
    /// How many there are: all of them are here.
    total: usize,
    /// There is no next page.
    #[schema(value_type = Option<String>)]
    next_cursor: Option<()>,
}

/// Which plugins.
#[derive(Debug)]
pub(crate) struct Which {
    organization: Option<OrgId>,
}

impl FromFields for Which {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { organization: parsed(fields, "organizationId", "must be the id of an organization") })
    }
}

/// The plugins of the platform and of its organizations, by name.
#[utoipa::path(get, path = "/api/v1/plugins", tag = "plugins", params(
    ("organizationId" = Option<String>, Query, description = "those that this organization may use"),
), responses(
    (status = 200, description = "the plugins", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
))]
pub(crate) async fn list(
    context: Data<Context>,
    caller: Identified,
    which: Query<Which>,
) -> Result<Json<Found>, Problem> {
    let plugins = context.services.plugins.list(&caller.0, which.0.organization).await?;
    Ok(Json(Found { total: plugins.len(), plugins, next_cursor: None }))
}

/// One plugin, with its configuration and why it was disabled, if the platform did.
#[utoipa::path(get, path = "/api/v1/plugins/{id}", tag = "plugins", params(("id" = i64, Path)), responses(
    (status = 200, description = "the plugin", body = InstalledPlugin),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
) -> Result<Json<InstalledPlugin>, Problem> {
    Ok(Json(context.services.plugins.get(&caller.0, id.0).await?))
}

/// What signs a plugin's events.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PluginSecret)]
pub(crate) struct Signing {
    /// `whsec_` and base64, as libraries for Standard Webhooks take it.
    secret: String,
}

/// What a webhook's receiver has to know to see that an event came from here.
#[utoipa::path(get, path = "/api/v1/plugins/{id}/secret", tag = "plugins", params(("id" = i64, Path)), responses(
    (status = 200, description = "the secret", body = Signing),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin", body = ErrorAnswer),
))]
pub(crate) async fn secret(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
) -> Result<Json<Signing>, Problem> {
    Ok(Json(Signing { secret: context.services.plugins.secret(&caller.0, id.0).await? }))
}
