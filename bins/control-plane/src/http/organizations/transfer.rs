//! `POST organizations/{id}/transfer`.

use actix_web::web::{Data, Json};
use tidegate_model::{Fields, FromFields, Organization, UserId};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Body};

/// Who owns the organization from now on.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Transfer {
    /// A member of it.
    pub(crate) user_id: UserId,
}

impl FromFields for Transfer {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { user_id: fields.required("userId")? })
    }
}

/// Gives the organization to another member, who becomes `org_admin`; the owner before stays `org_admin`.
#[utoipa::path(post, path = "/api/v1/organizations/{id}/transfer", tag = "organizations", request_body = Transfer,
    params(("id" = String, Path, description = "id or name")), responses(
    (status = 200, description = "the organization", body = Organization),
    (status = 400, description = "a field is missing", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not the owner", body = ErrorAnswer),
    (status = 404, description = "no such organization or member", body = ErrorAnswer),
    (status = 409, description = "given away meanwhile, or the member is deactivated", body = ErrorAnswer),
))]
pub(crate) async fn transfer(
    context: Data<Context>,
    caller: Identified,
    body: Body<Transfer>,
) -> Result<Json<Organization>, Problem> {
    let to = body.valid()?.user_id;
    Ok(Json(context.services.organizations.transfer(caller.org()?, to).await?))
}
