//! `POST plugins/catalog/{id}/install`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use tidegate_model::{CatalogPluginId, InstallPluginRequest, InstalledPlugin};
use tidegate_service::Made;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::{Body, Segment},
};

/// Installs a plugin of the catalog, for the platform or for one organization.
#[utoipa::path(post, path = "/api/v1/plugins/catalog/{id}/install", tag = "plugins", request_body = InstallPluginRequest, params(
    ("id" = i64, Path),
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "installed", body = InstalledPlugin),
    (status = 400, description = "everything that is wrong with it, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin, version or organization", body = ErrorAnswer),
    (status = 409, description = "one of this name is installed", body = ErrorAnswer),
))]
pub(crate) async fn install(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<CatalogPluginId>,
    body: Body<InstallPluginRequest>,
) -> Result<HttpResponse, Problem> {
    let whole = [id.0.to_string().as_bytes(), body.bytes()].concat();
    let key = idempotency(&request, &caller, "POST plugins/catalog/install", &whole)?;
    let plugins = &context.services.plugins;
    let there = async || Ok(plugins.is_in_catalog(&caller.0, id.0).await?);
    let wanted = body.after(there).await?;
    let made = plugins.install(&caller.0, id.0, wanted, key.as_ref(), |made| json!(made)).await?;
    Ok(match made {
        Made::New(made) => HttpResponse::Created().json(made),
        Made::Replay(replay) => again(replay),
    })
}
