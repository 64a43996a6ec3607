//! `POST groups`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use tidegate_model::{CreateGroupRequest, Group, GroupId, GroupType};
use tidegate_service::MadeGroup;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::Body,
};

/// A group to make.
#[derive(Debug, ToSchema)]
#[schema(as = CreateGroupRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `CreateGroupRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// Unique in the organization: 3–50 of `a-z 0-9 -`, no `-` at either end.
    name: String,
    /// For people, 3–100 characters.
    display_name: String,
    /// At most 500 characters.
    description: Option<String>,
    /// Team, department or project.
    r#type: GroupType,
    /// The group above it.
    parent_id: Option<GroupId>,
}

/// Makes a group: at the top for an `org_admin`, below a group for its admins and owners too.
#[utoipa::path(post, path = "/api/v1/groups", tag = "groups", request_body = New, params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "made", body = Group),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin nor an admin of the group above", body = ErrorAnswer),
    (status = 404, description = "no such group above", body = ErrorAnswer),
    (status = 409, description = "the name is taken, or the groups would stand too deep", body = ErrorAnswer),
))]
pub(crate) async fn create(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<CreateGroupRequest>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST groups", body.bytes())?;
    let groups = &context.services.groups;
    let made = groups.create(caller.org()?, body.valid()?, key.as_ref(), |group| json!(group)).await?;
    Ok(match made {
        MadeGroup::New(group) => HttpResponse::Created().json(group),
        MadeGroup::Replay(replay) => again(replay),
    })
}
