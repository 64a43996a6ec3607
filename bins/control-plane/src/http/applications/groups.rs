//! `applications/{id}/groups` and `applications/{id}/groups/{groupId}`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use serde_json::json;
use tidegate_model::{
    AccessLevel, AddGroupAccessRequest, ApplicationGroupAccess, ApplicationId, GroupId,
    UpdateGroupAccessRequest,
};
use tidegate_service::ChangedAccess;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::{Body, Last, Segment},
};

/// The groups that may do something with an application; at most a hundred.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApplicationGroups)]
pub(crate) struct Found {
    /// By name.
    groups: Vec<ApplicationGroupAccess>,
    /// How many there are.
    total: usize,
}

/// Which groups may do what with an application, by name.
#[utoipa::path(get, path = "/api/v1/applications/{id}/groups", tag = "applications", params(("id" = String, Path)), responses(
    (status = 200, description = "all of them", body = Found),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin or maintainer, and in no group with access `admin`", body = ErrorAnswer),
    (status = 404, description = "no such application, or not for the caller", body = ErrorAnswer),
))]
pub(crate) async fn list_groups(
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
) -> Result<Json<Found>, Problem> {
    let groups = context.services.applications.groups(caller.org()?, id.0).await?;
    Ok(Json(Found { total: groups.len(), groups }))
}

/// A group that is to have access.
#[derive(Debug, ToSchema)]
#[schema(as = AddGroupAccessRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `AddGroupAccessRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// The group; those below it get the access, too.
    group_id: GroupId,
    /// See it, start sessions of it, or change it. Default `launch`.
    access_level: Option<AccessLevel>,
}

/// Lets the members of a group do something with an application; a repeat gives the level.
#[utoipa::path(post, path = "/api/v1/applications/{id}/groups", tag = "applications", request_body = New, params(
    ("id" = String, Path),
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 200, description = "it had access, and has this now", body = ApplicationGroupAccess),
    (status = 201, description = "it has access now", body = ApplicationGroupAccess),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin or maintainer", body = ErrorAnswer),
    (status = 404, description = "no such application, or no such group", body = ErrorAnswer),
    (status = 409, description = "it has a hundred groups already", body = ErrorAnswer),
))]
pub(crate) async fn add_group(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
    body: Body<AddGroupAccessRequest>,
) -> Result<HttpResponse, Problem> {
    let (applications, org) = (&context.services.applications, caller.org()?);
    // The application is part of what must be the same.
    let what = [id.0.to_string().as_bytes(), body.bytes()].concat();
    let key = idempotency(&request, &caller, "POST applications/groups", &what)?;
    let wanted = body.after(async || Ok(applications.get(org, id.0).await.map(drop)?)).await?;
    let added = applications.add_group(org, id.0, wanted, key.as_ref(), |access| json!(access)).await?;
    Ok(match added {
        ChangedAccess::New(access) => HttpResponse::Created().json(access),
        ChangedAccess::Changed(access) => HttpResponse::Ok().json(access),
        ChangedAccess::Replay(replay) => again(replay),
    })
}

/// What a group may do with an application.
#[utoipa::path(get, path = "/api/v1/applications/{id}/groups/{groupId}", tag = "applications",
    params(("id" = String, Path), ("groupId" = String, Path)), responses(
    (status = 200, description = "its access", body = ApplicationGroupAccess),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin or maintainer, and in no group with access `admin`", body = ErrorAnswer),
    (status = 404, description = "no such application, or the group has no access", body = ErrorAnswer),
))]
pub(crate) async fn get_group(
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
    group: Last<GroupId>,
) -> Result<Json<ApplicationGroupAccess>, Problem> {
    Ok(Json(context.services.applications.group(caller.org()?, id.0, group.0).await?))
}

/// What a group may do from now on.
#[derive(Debug, ToSchema)]
#[schema(as = UpdateGroupAccessRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `UpdateGroupAccessRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Change {
    /// See it, start sessions of it, or change it.
    access_level: AccessLevel,
}

/// Gives a group that has access another level.
#[utoipa::path(patch, path = "/api/v1/applications/{id}/groups/{groupId}", tag = "applications", request_body = Change,
    params(("id" = String, Path), ("groupId" = String, Path)), responses(
    (status = 200, description = "its access", body = ApplicationGroupAccess),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin or maintainer", body = ErrorAnswer),
    (status = 404, description = "no such application, or the group has no access", body = ErrorAnswer),
))]
pub(crate) async fn set_group(
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
    group: Last<GroupId>,
    body: Body<UpdateGroupAccessRequest>,
) -> Result<Json<ApplicationGroupAccess>, Problem> {
    let (applications, org) = (&context.services.applications, caller.org()?);
    let found = async || Ok(applications.group(org, id.0, group.0).await.map(drop)?);
    let level = body.after(found).await?.access_level;
    Ok(Json(applications.set_group(org, id.0, group.0, level).await?))
}

/// Takes a group's access away: its members start nothing of it from then on.
#[utoipa::path(delete, path = "/api/v1/applications/{id}/groups/{groupId}", tag = "applications",
    params(("id" = String, Path), ("groupId" = String, Path)), responses(
    (status = 204, description = "it has no access any more"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin or maintainer", body = ErrorAnswer),
    (status = 404, description = "no such application, or the group has no access", body = ErrorAnswer),
))]
pub(crate) async fn remove_group(
    context: Data<Context>,
    caller: Identified,
    id: Segment<ApplicationId>,
    group: Last<GroupId>,
) -> Result<HttpResponse, Problem> {
    context.services.applications.remove_group(caller.org()?, id.0, group.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
