//! `POST organizations`.

use actix_web::{HttpResponse, web::Data};
use tidegate_model::{CreateOrganizationRequest, Organization};

use super::answer::New;
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Body};

/// Makes an organization, which is the caller's own.
#[utoipa::path(post, path = "/api/v1/organizations", tag = "organizations", request_body = New, responses(
    (status = 201, description = "made", body = Organization),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 409, description = "the name is taken", body = ErrorAnswer),
))]
pub(crate) async fn create(
    context: Data<Context>,
    caller: Identified,
    body: Body<CreateOrganizationRequest>,
) -> Result<HttpResponse, Problem> {
    let made = context.services.organizations.create(&caller.0, body.valid()?).await?;
    Ok(HttpResponse::Created().json(made))
}
