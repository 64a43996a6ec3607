//! `GET groups/{id}`.

use actix_web::web::{Data, Json};
use tidegate_model::{Group, GroupId};

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, valid::Segment};

/// One group, with its quota and what is used of it where one is set.
#[utoipa::path(get, path = "/api/v1/groups/{id}", tag = "groups", params(("id" = String, Path)), responses(
    (status = 200, description = "the group", body = Group),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such group", body = ErrorAnswer),
))]
pub(crate) async fn get(
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
) -> Result<Json<Group>, Problem> {
    Ok(Json(context.services.groups.get(caller.org()?, id.0).await?))
}
