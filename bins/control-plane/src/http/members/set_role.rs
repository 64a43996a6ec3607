//! `PATCH organizations/{id}/members/{userId}`.

use actix_web::web::{Data, Json};
use tidegate_model::{Fields, FromFields, Member, OrgRole, UserId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Last},
};

/// The role a member has from now on.
#[derive(Debug, ToSchema)]
pub(crate) struct Role {
    /// Role in the organization.
    role: OrgRole,
}

impl FromFields for Role {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { role: fields.required("role")? })
    }
}

/// Changes a member's role. The owner and the last `org_admin` keep theirs.
#[utoipa::path(patch, path = "/api/v1/organizations/{id}/members/{userId}", tag = "members", request_body = Role,
    params(("id" = String, Path, description = "id or name"), ("userId" = String, Path)), responses(
    (status = 200, description = "the member", body = Member),
    (status = 400, description = "no such role", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization or member", body = ErrorAnswer),
    (status = 409, description = "the owner or the last org_admin keeps the role", body = ErrorAnswer),
))]
pub(crate) async fn set_role(
    context: Data<Context>,
    caller: Identified,
    user: Last<UserId>,
    body: Body<Role>,
) -> Result<Json<Member>, Problem> {
    let (members, org) = (&context.services.members, caller.org()?);
    let found = async || Ok(members.get(org, user.0).await.map(drop)?);
    let role = body.after(found).await?.role;
    Ok(Json(members.set_role(org, user.0, role).await?))
}
