//! `GET me/permissions`.

use actix_web::web::{Data, Json};
use serde::Serialize;
use tidegate_model::{Operation, OrgId, OrgRole, Scopes, SystemRole};
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified};

/// What the caller may do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Permissions)]
pub(crate) struct Mine {
    /// The organization of the request; `null` for a user without one.
    org_id: Option<OrgId>,
    /// Its name.
    organization: Option<String>,
    /// The caller's role in it.
    org_role: Option<OrgRole>,
    /// Whether it is theirs.
    owner: bool,
    /// The caller's role on the platform.
    role: SystemRole,
    /// Everything that these roles allow, as far as an API key's scopes reach.
    permissions: Vec<Operation>,
    /// What the API key of the request may be used for; absent for a login, which is held to its roles alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Scopes>,
}

/// What the caller may do in the organization of the request, and on the platform.
#[utoipa::path(get, path = "/api/v1/me/permissions", tag = "users", responses(
    (status = 200, description = "what is allowed", body = Mine),
    (status = 401, description = "not logged in", body = ErrorAnswer),
))]
pub(crate) async fn permissions(context: Data<Context>, caller: Identified) -> Result<Json<Mine>, Problem> {
    let found = context.services.organizations.permissions(&caller.0).await?;
    let (org_id, organization) = found.organization.unzip();
    Ok(Json(Mine {
        org_id,
        organization,
        org_role: found.standing.org,
        owner: found.standing.owner,
        role: found.standing.system,
        permissions: found.operations,
        scopes: found.scopes,
    }))
}
