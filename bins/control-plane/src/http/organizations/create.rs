//! `POST organizations`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use tidegate_model::{CreateOrganizationRequest, Organization};
use tidegate_service::Made;

use super::answer::New;
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::Body,
};

/// Makes an organization, which is the caller's own.
#[utoipa::path(post, path = "/api/v1/organizations", tag = "organizations", request_body = New, params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "made", body = Organization),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 409, description = "the name is taken", body = ErrorAnswer),
))]
pub(crate) async fn create(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<CreateOrganizationRequest>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST organizations", body.bytes())?;
    let organizations = &context.services.organizations;
    let made = organizations.create_keyed(&caller.0, body.valid()?, key.as_ref(), |made| json!(made)).await?;
    Ok(match made {
        Made::New(made) => HttpResponse::Created().json(made),
        Made::Replay(replay) => again(replay),
    })
}
