//! `POST applications`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use tidegate_model::{
    CatalogTemplateId, GroupId, InstallApplicationRequest, InstalledApplication, TemplatePlatform,
};
use tidegate_service::Made;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::Body,
};

/// An application to install.
#[derive(Debug, ToSchema)]
#[schema(as = InstallApplicationRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `InstallApplicationRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// The template of the catalog.
    catalog_template_id: CatalogTemplateId,
    /// For people, 1–200 characters; the template's where absent.
    display_name: Option<String>,
    /// What to install it on, one of the template's; its first one that has an approved agent where absent.
    platform: Option<TemplatePlatform>,
    /// Values of the template's options.
    #[schema(value_type = Option<Object>)]
    configuration: Option<serde_json::Value>,
    /// Groups whose members may launch it. Without any, those who manage applications see it alone.
    group_ids: Option<Vec<GroupId>>,
}

/// Asks for the installation of a template: `installStatus` goes from `pending` over `creating` to `installed`, or to
/// `failed` with a message.
#[utoipa::path(post, path = "/api/v1/applications", tag = "applications", request_body = New, params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "asked for", body = InstalledApplication),
    (status = 400, description = "bad fields, each named, those of the configuration by their paths", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin or maintainer", body = ErrorAnswer),
    (status = 404, description = "no such template in the catalog, or no such group", body = ErrorAnswer),
    (status = 409, description = "the template cannot be installed, or there are too many applications", body = ErrorAnswer),
))]
pub(crate) async fn install(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<InstallApplicationRequest>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST applications", body.bytes())?;
    let applications = &context.services.applications;
    let made = applications.install(caller.org()?, body.valid()?, key.as_ref(), |made| json!(made)).await?;
    Ok(match made {
        Made::New(application) => HttpResponse::Created().json(application),
        Made::Replay(replay) => again(replay),
    })
}
