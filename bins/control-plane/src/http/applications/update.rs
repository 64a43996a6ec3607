//! `PUT applications/{id}` and `PUT applications/{id}/enabled`.

use actix_web::web::{Data, Json};
use tidegate_model::{ApplicationId, Fields, FromFields, InstalledApplication, UpdateApplicationRequest};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// What changes; what is absent stays.
#[derive(Debug, ToSchema)]
#[schema(as = UpdateApplicationRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `UpdateApplicationRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Change {
    /// For people, 1–200 characters.
    display_name: Option<String>,
    /// Whether it can be launched.
    enabled: Option<bool>,
    /// Values of the template's options, all of them anew.
    #[schema(value_type = Option<Object>)]
    configuration: Option<serde_json::Value>,
}

/// Changes an application. Sessions that are there go on as they were started. One whose installation failed is installed
/// once more, with or without a change.
#[utoipa::path(put, path = "/api/v1/applications/{id}", tag = "applications", request_body = Change,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the application", body = InstalledApplication),
    (status = 400, description = "bad fields, each named, those of the configuration by their paths", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin or maintainer, and in no group with access `admin`", body = ErrorAnswer),
    (status = 404, description = "no such application, or not for the caller", body = ErrorAnswer),
    (status = 409, description = "it is being installed, or was meanwhile", body = ErrorAnswer),
))]
pub(crate) async fn update(
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
    body: Body<UpdateApplicationRequest>,
) -> Result<Json<InstalledApplication>, Problem> {
    let (applications, org) = (&context.services.applications, caller.org()?);
    let change = body.after(async || Ok(applications.get(org, id.0).await.map(drop)?)).await?;
    Ok(Json(applications.update(org, id.0, change).await?))
}

/// Whether an application can be launched.
#[derive(Debug, ToSchema)]
#[schema(as = ApplicationEnabled)]
pub(crate) struct Enabled {
    /// Whether it can be launched.
    enabled: bool,
}

impl FromFields for Enabled {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { enabled: fields.required("enabled")? })
    }
}

/// Enables or disables an application. Nobody starts a session of a disabled one; those that are there go on.
#[utoipa::path(put, path = "/api/v1/applications/{id}/enabled", tag = "applications", request_body = Enabled,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the application", body = InstalledApplication),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin or maintainer, and in no group with access `admin`", body = ErrorAnswer),
    (status = 404, description = "no such application, or not for the caller", body = ErrorAnswer),
))]
pub(crate) async fn set_enabled(
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
    body: Body<Enabled>,
) -> Result<Json<InstalledApplication>, Problem> {
    let (applications, org) = (&context.services.applications, caller.org()?);
    let Enabled { enabled } = body.after(async || Ok(applications.get(org, id.0).await.map(drop)?)).await?;
    let change = UpdateApplicationRequest { enabled: Some(enabled), ..UpdateApplicationRequest::default() };
    Ok(Json(applications.update(org, id.0, change).await?))
}
