//! `PATCH groups/{id}`.

use actix_web::web::{Data, Json};
use tidegate_model::{Group, GroupId, GroupType, UpdateGroupRequest};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// What changes; what is absent stays.
#[derive(Debug, ToSchema)]
#[schema(as = UpdateGroupRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `UpdateGroupRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Change {
    /// For people, 3–100 characters.
    display_name: Option<String>,
    /// At most 500 characters; `null` clears it.
    description: Option<String>,
    /// Team, department or project.
    r#type: Option<GroupType>,
    /// The group above it; `null` moves it to the top.
    parent_id: Option<GroupId>,
}

/// Changes a group. Moving it takes rights over the place that it leaves and the one that it comes to.
#[utoipa::path(patch, path = "/api/v1/groups/{id}", tag = "groups", request_body = Change,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the group", body = Group),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the group nor an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such group, or no such group above", body = ErrorAnswer),
    (status = 409, description = "it would stand above itself, or too deep", body = ErrorAnswer),
))]
pub(crate) async fn update(
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
    body: Body<UpdateGroupRequest>,
) -> Result<Json<Group>, Problem> {
    let (groups, org) = (&context.services.groups, caller.org()?);
    let change = body.after(async || Ok(groups.get(org, id.0).await.map(drop)?)).await?;
    Ok(Json(groups.update(org, id.0, change).await?))
}
