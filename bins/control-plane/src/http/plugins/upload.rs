//! `POST plugins` and `POST plugins/{id}/upgrade`.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Json, Payload},
};
use serde_json::{Map, Value, json};
use tidegate_model::{
    FieldErrors, FromFields, InstallPluginRequest, InstalledPlugin, InstalledPluginId, UpgradePluginRequest,
};
use tidegate_service::Made;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::multipart;
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::{Segment, collect},
};

/// Bytes of a body with an archive at most.
const LARGEST: usize = 17 * 1024 * 1024;

/// A package with what is asked for.
#[derive(Debug, ToSchema)]
#[schema(as = PluginUpload)]
#[expect(dead_code, reason = "the shape of the parts, for the OpenAPI document")]
pub(crate) struct Upload {
    /// A tar, a tar that gzip compressed, or a zip of the plugin's folder, at most 16 MiB, packed or not.
    #[schema(value_type = String, format = Binary)]
    archive: Vec<u8>,
    /// JSON; without it everything is as it is by default, and nothing is granted.
    request: Option<InstallPluginRequest>,
}

/// The same for another version.
#[derive(Debug, ToSchema)]
#[schema(as = PluginUpgradeUpload)]
#[expect(dead_code, reason = "the shape of the parts, for the OpenAPI document")]
pub(crate) struct UpgradeUpload {
    /// A tar, a tar that gzip compressed, or a zip of the plugin's folder, at most 16 MiB, packed or not.
    #[schema(value_type = String, format = Binary)]
    archive: Vec<u8>,
    /// JSON; without it everything is as it is by default, and no more is granted.
    request: Option<UpgradePluginRequest>,
}

async fn body(context: &Context, payload: Payload, most: usize) -> Result<actix_web::web::Bytes, Problem> {
    let reading = collect(payload.into_inner(), most);
    let read = timeout(context.body_time(), reading).await;
    read.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))?
}

/// Archive and request out of a body of several parts.
fn read<T: FromFields>(bytes: &[u8], boundary: &str) -> Result<(Vec<u8>, T), FieldErrors> {
    let parts = multipart::parts(bytes, boundary)?;
    let mut errors = FieldErrors::new();
    for name in parts.keys().filter(|name| !matches!(name.as_str(), "archive" | "request")) {
        errors.add(name.clone(), "is not a part of this request");
    }
    let archive = parts.get("archive").copied();
    if archive.is_none() {
        errors.add("archive", "is required");
    }
    let request = match parts.get("request") {
        None => Value::Object(Map::new()),
        Some(text) => serde_json::from_slice(text).unwrap_or_else(|error| {
            errors.add("request", format_args!("is not JSON: {error}"));
            Value::Object(Map::new())
        }),
    };
    let request = T::from_json(request);
    errors.into_result()?;
    Ok((archive.unwrap_or_default().to_vec(), request?))
}

/// A body of JSON alone; nothing at all is an object without fields.
fn whole(bytes: &[u8]) -> Result<Value, FieldErrors> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| FieldErrors::one("body", format_args!("is not JSON: {error}")))
}

/// Installs a plugin that is brought by hand: an archive of its folder, and what it is granted.
#[utoipa::path(post, path = "/api/v1/plugins", tag = "plugins",
    request_body(content = Upload, content_type = "multipart/form-data"), params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "installed", body = InstalledPlugin),
    (status = 400, description = "everything that is wrong with it, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such organization", body = ErrorAnswer),
    (status = 409, description = "one of this name is installed", body = ErrorAnswer),
    (status = 413, description = "too large", body = ErrorAnswer),
))]
pub(crate) async fn upload(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let bytes = body(&context, payload, LARGEST).await?;
    let boundary = multipart::boundary(request.headers());
    let no_parts =
        || FieldErrors::one("body", "must be multipart/form-data with the parts archive and request");
    let (archive, wanted): (_, InstallPluginRequest) =
        boundary.ok_or_else(no_parts).and_then(|it| read(&bytes, &it)).map_err(Problem::invalid)?;
    let whole = [archive.as_slice(), &serde_json::to_vec(&wanted).unwrap_or_default()].concat();
    let key = idempotency(&request, &caller, "POST plugins", &whole)?;
    let plugins = &context.services.plugins;
    let made = plugins.upload(&caller.0, archive, wanted, key.as_ref(), |made| json!(made)).await?;
    Ok(match made {
        Made::New(made) => HttpResponse::Created().json(made),
        Made::Replay(replay) => again(replay),
    })
}

/// Brings a plugin to another version: of the catalog, or of an archive that is brought by hand. Its configuration is
/// carried over as far as the new version knows it; refused with every reason where it does not fit.
#[utoipa::path(post, path = "/api/v1/plugins/{id}/upgrade", tag = "plugins",
    request_body(content = UpgradeUpload, content_type = "multipart/form-data"), params(("id" = i64, Path)), responses(
    (status = 200, description = "the plugin", body = InstalledPlugin),
    (status = 400, description = "everything that is wrong with it, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
    (status = 404, description = "no such plugin", body = ErrorAnswer),
    (status = 409, description = "it is this version, another plugin needs the older one, or it was changed meanwhile", body = ErrorAnswer),
    (status = 413, description = "too large", body = ErrorAnswer),
))]
pub(crate) async fn upgrade(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<InstalledPluginId>,
    payload: Payload,
) -> Result<Json<InstalledPlugin>, Problem> {
    let plugins = &context.services.plugins;
    let bytes = body(&context, payload, LARGEST).await?;
    // What is not there is said before what is wrong with the body.
    plugins.get(&caller.0, id.0).await?;
    let Some(boundary) = multipart::boundary(request.headers()) else {
        let wanted = whole(&bytes).and_then(UpgradePluginRequest::from_json).map_err(Problem::invalid)?;
        return Ok(Json(plugins.upgrade(&caller.0, id.0, wanted).await?));
    };
    let (archive, wanted) = read(&bytes, &boundary).map_err(Problem::invalid)?;
    Ok(Json(plugins.upgrade_by_hand(&caller.0, id.0, archive, wanted).await?))
}
