//! `PATCH` and `DELETE plugins/{id}`, and `POST …/enable`, `…/disable` and `…/rollback`.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use tidegate_model::{InstalledPlugin, InstalledPluginId, UpdatePluginRequest};

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// Changes how a plugin is configured, and whether it runs. The configuration is whole: defaults lie below it.
#[utoipa::path(patch, path = "/api/v1/plugins/{id}", tag = "plugins", request_body = UpdatePluginRequest,
    params(("id" = i64, Path)), responses(
    (status = 200, description = "the plugin", body = InstalledPlugin),
    (status = 400, description = "bad options, each named with its path", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin", body = ErrorAnswer),
    (status = 409, description = "others need it, or it was changed meanwhile", body = ErrorAnswer),
))]
pub(crate) async fn update(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
    body: Body<UpdatePluginRequest>,
) -> Result<Json<InstalledPlugin>, Problem> {
    let plugins = &context.services.plugins;
    let there = async || Ok(plugins.get(&caller.0, id.0).await.map(drop)?);
    let wanted = body.after(there).await?;
    Ok(Json(plugins.update(&caller.0, id.0, wanted).await?))
}

/// Lets a plugin run, on every control plane from this moment on.
#[utoipa::path(post, path = "/api/v1/plugins/{id}/enable", tag = "plugins", params(("id" = i64, Path)), responses(
    (status = 200, description = "the plugin", body = InstalledPlugin),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin", body = ErrorAnswer),
    (status = 409, description = "what it needs is not there or not enabled", body = ErrorAnswer),
))]
pub(crate) async fn enable(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
) -> Result<Json<InstalledPlugin>, Problem> {
    Ok(Json(context.services.plugins.enable(&caller.0, id.0).await?))
}

/// Lets a plugin run no more, on any control plane. What it keeps stays, and so does what waits for it, for a day.
#[utoipa::path(post, path = "/api/v1/plugins/{id}/disable", tag = "plugins", params(("id" = i64, Path)), responses(
    (status = 200, description = "the plugin", body = InstalledPlugin),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin", body = ErrorAnswer),
    (status = 409, description = "one that runs needs it", body = ErrorAnswer),
))]
pub(crate) async fn disable(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
) -> Result<Json<InstalledPlugin>, Problem> {
    Ok(Json(context.services.plugins.disable(&caller.0, id.0).await?))
}

/// Brings back the version, configuration and permissions from before the last upgrade.
#[utoipa::path(post, path = "/api/v1/plugins/{id}/rollback", tag = "plugins", params(("id" = i64, Path)), responses(
    (status = 200, description = "the plugin", body = InstalledPlugin),
    (status = 400, description = "it cannot be what it was any more: each reason is named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin", body = ErrorAnswer),
    (status = 409, description = "there is nothing to bring back, or another plugin needs the newer one", body = ErrorAnswer),
))]
pub(crate) async fn roll_back(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
) -> Result<Json<InstalledPlugin>, Problem> {
    Ok(Json(context.services.plugins.roll_back(&caller.0, id.0).await?))
}

/// Uninstalls a plugin, with everything that it kept.
#[utoipa::path(delete, path = "/api/v1/plugins/{id}", tag = "plugins", params(("id" = i64, Path)), responses(
    (status = 204, description = "uninstalled"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin", body = ErrorAnswer),
    (status = 409, description = "another plugin needs it", body = ErrorAnswer),
))]
pub(crate) async fn uninstall(
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
) -> Result<HttpResponse, Problem> {
    context.services.plugins.uninstall(&caller.0, id.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
