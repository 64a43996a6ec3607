//! `POST admin/organizations`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use tidegate_model::{CreateOrganizationRequest, Fields, FromFields, Organization};
use tidegate_service::Made;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::Body,
};

/// An organization to make for somebody else.
#[derive(Debug, ToSchema)]
#[schema(as = CreateOrganizationForRequest, rename_all = "camelCase")]
#[expect(dead_code, reason = "the shape of `Wanted`, which is read field by field, for the OpenAPI document")]
pub(crate) struct New {
    /// Username of who owns it.
    owner: String,
    /// Unique across the platform: 3–50 of `a-z 0-9 -`, no `-` at either end.
    name: String,
    /// For people, 3–100 characters.
    display_name: String,
    /// At most 500 characters.
    description: Option<String>,
    /// A DNS-1123 label, 3–63 characters. Default `tidegate-{name}`.
    k8s_namespace: Option<String>,
}

/// A body of this route.
#[derive(Debug)]
pub(crate) struct Wanted {
    owner: String,
    request: CreateOrganizationRequest,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let owner: Option<String> = fields.required("owner");
        if let Some(owner) = &owner {
            fields.errors().check("owner", tidegate_model::validate_username(owner));
        }
        let request = CreateOrganizationRequest::from_fields(fields);
        Some(Self { owner: owner?, request: request? })
    }
}

/// Makes an organization that somebody else owns.
#[utoipa::path(post, path = "/api/v1/admin/organizations", tag = "admin", request_body = New, params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "made", body = Organization),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the platform", body = ErrorAnswer),
    (status = 404, description = "no such owner", body = ErrorAnswer),
    (status = 409, description = "the name is taken", body = ErrorAnswer),
))]
pub(crate) async fn create_organization(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<Wanted>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST admin/organizations", body.bytes())?;
    let (organizations, Wanted { owner, request }) = (&context.services.all_organizations, body.valid()?);
    let made = organizations.create(&caller.0, request, &owner, key.as_ref(), |made| json!(made)).await?;
    Ok(match made {
        Made::New(made) => HttpResponse::Created().json(made),
        Made::Replay(replay) => again(replay),
    })
}
