//! `groups/{id}/members` and `groups/{id}/members/{userId}`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use serde_json::json;
use tidegate_model::{
    AddGroupMemberRequest, Fields, FromFields, GroupId, GroupMembership, GroupRole, UserId,
};
use tidegate_service::GroupAdded;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    page::Page,
    valid::{Body, Last, Query, Segment},
};

/// A page of who is in a group.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = GroupMembers)]
pub(crate) struct Found {
    /// In joining order.
    members: Vec<GroupMembership>,
    /// How many there are on all pages.
    total: i64,
    /// `false` where there are more than `total`, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_is_exact: Option<bool>,
    /// Asks for the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Who is in a group, in joining order; members of groups below it stand there.
#[utoipa::path(get, path = "/api/v1/groups/{id}/members", tag = "groups", params(
    ("id" = String, Path),
    ("limit" = Option<u32>, Query, description = "1 to 100, default 50"),
    ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
), responses(
    (status = 200, description = "a page", body = Found),
    (status = 400, description = "bad query", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such group", body = ErrorAnswer),
))]
pub(crate) async fn list_members(
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
    page: Query<Page>,
) -> Result<Json<Found>, Problem> {
    let listed = context.services.groups.members(caller.org()?, id.0, &page.0.0).await?;
    Ok(Json(Found {
        members: listed.items,
        total: listed.total,
        total_is_exact: (!listed.total_is_exact).then_some(false),
        next_cursor: listed.next_cursor,
    }))
}

/// Who is to be in a group.
#[derive(Debug, ToSchema)]
#[schema(as = AddGroupMemberRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `AddGroupMemberRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// A member of the organization.
    user_id: UserId,
    /// Role in the group. Default `member`.
    role: Option<GroupRole>,
}

/// Puts a member of the organization into a group; a repeat gives them the role. Nobody grants more than they hold.
#[utoipa::path(post, path = "/api/v1/groups/{id}/members", tag = "groups", request_body = New, params(
    ("id" = String, Path),
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 200, description = "was in it, and has the role now", body = GroupMembership),
    (status = 201, description = "is in it now", body = GroupMembership),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the group, or a role above the own", body = ErrorAnswer),
    (status = 404, description = "no such group, or no such member of the organization", body = ErrorAnswer),
))]
pub(crate) async fn add_member(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
    body: Body<AddGroupMemberRequest>,
) -> Result<HttpResponse, Problem> {
    let (groups, org) = (&context.services.groups, caller.org()?);
    // The group is part of what must be the same.
    let what = [id.0.to_string().as_bytes(), body.bytes()].concat();
    let key = idempotency(&request, &caller, "POST groups/members", &what)?;
    let wanted = body.after(async || Ok(groups.get(org, id.0).await.map(drop)?)).await?;
    Ok(match groups.add_keyed(org, id.0, wanted, key.as_ref(), |member| json!(member)).await? {
        GroupAdded::New(member) => HttpResponse::Created().json(member),
        GroupAdded::Changed(member) => HttpResponse::Ok().json(member),
        GroupAdded::Replay(replay) => again(replay),
    })
}

/// The role somebody has in a group from now on.
#[derive(Debug, ToSchema)]
#[schema(as = GroupMemberRole)]
pub(crate) struct Role {
    /// Role in the group.
    role: GroupRole,
}

impl FromFields for Role {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { role: fields.required("role")? })
    }
}

/// Gives somebody in a group another role.
#[utoipa::path(patch, path = "/api/v1/groups/{id}/members/{userId}", tag = "groups", request_body = Role,
    params(("id" = String, Path), ("userId" = String, Path)), responses(
    (status = 200, description = "who is in the group", body = GroupMembership),
    (status = 400, description = "no such role", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the group, or a role above the own", body = ErrorAnswer),
    (status = 404, description = "no such group, or not in it", body = ErrorAnswer),
))]
pub(crate) async fn set_member_role(
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
    user: Last<UserId>,
    body: Body<Role>,
) -> Result<Json<GroupMembership>, Problem> {
    let (groups, org) = (&context.services.groups, caller.org()?);
    let role = body.after(async || Ok(groups.member(org, id.0, user.0).await.map(drop)?)).await?.role;
    Ok(Json(groups.set_role(org, id.0, user.0, role).await?))
}

/// Takes somebody out of a group.
#[utoipa::path(delete, path = "/api/v1/groups/{id}/members/{userId}", tag = "groups",
    params(("id" = String, Path), ("userId" = String, Path)), responses(
    (status = 204, description = "in the group no more"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an admin of the group, or a role above the own", body = ErrorAnswer),
    (status = 404, description = "no such group, or not in it", body = ErrorAnswer),
))]
pub(crate) async fn remove_member(
    context: Data<Context>,
    caller: Identified,
    id: Segment<GroupId>,
    user: Last<UserId>,
) -> Result<HttpResponse, Problem> {
    context.services.groups.remove(caller.org()?, id.0, user.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
