//! `sources/{handle}/grants` and `sources/{handle}/grants/{grantId}`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use serde_json::json;
use tidegate_model::{GrantSourceRequest, GroupId, SourceGrant, SourceGrantId, SourceRight, UserId};
use tidegate_service::Granted;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::{Body, Last, Segment},
};

/// A right that somebody is to have: exactly one of the five says who.
#[derive(Debug, ToSchema)]
#[schema(as = GrantSourceRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `GrantSourceRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// A member of the organization, by name in any case.
    username: Option<String>,
    /// A member of the organization.
    user_id: Option<UserId>,
    /// A group, by name; with it the groups below it.
    group: Option<String>,
    /// A group; with it the groups below it.
    group_id: Option<GroupId>,
    /// `true` for every member of the organization.
    everyone: Option<bool>,
    /// `read` its output and the pipes made at it, `write` to the pipes made at it, or `type` into its terminal.
    right: SourceRight,
}

/// Who may do what with a source; at most two hundred.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SourceGrants)]
pub(crate) struct Found {
    /// The oldest first.
    grants: Vec<SourceGrant>,
    /// How many there are.
    total: usize,
}

/// Gives a member, a group or everyone a right to a source; its inbox takes messages of every member without one, and is
/// its creator's alone to read. For whoever made it, and for those who manage sources.
#[utoipa::path(post, path = "/api/v1/sources/{handle}/grants", tag = "sources", request_body = New, params(
    ("handle" = String, Path),
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 200, description = "they had it", body = SourceGrant),
    (status = 201, description = "they have it now", body = SourceGrant),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's", body = ErrorAnswer),
    (status = 404, description = "no such source, member or group", body = ErrorAnswer),
    (status = 409, description = "it has two hundred grants already, or somebody could write to more than 256 pipes of its maker's (`E_TOO_MANY_GRANTS`)", body = ErrorAnswer),
))]
pub(crate) async fn grant(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    body: Body<GrantSourceRequest>,
) -> Result<HttpResponse, Problem> {
    let (sources, org) = (&context.services.sources, caller.org()?);
    // The source is part of what must be the same.
    let what = [handle.0.as_bytes(), b"\n", body.bytes().as_ref()].concat();
    let key = idempotency(&request, &caller, "POST sources/grants", &what)?;
    let wanted = body.after(async || Ok(sources.get(org, &handle.0).await.map(drop)?)).await?;
    let given = sources.grant(org, &handle.0, wanted, key.as_ref(), |grant| json!(grant)).await?;
    Ok(match given {
        Granted::New(grant) => HttpResponse::Created().json(grant),
        Granted::Known(grant) => HttpResponse::Ok().json(grant),
        Granted::Replay(replay) => again(replay),
    })
}

/// Who may do what with a source beside its creator. For whoever made it, and for those who manage sources.
#[utoipa::path(get, path = "/api/v1/sources/{handle}/grants", tag = "sources", params(("handle" = String, Path)), responses(
    (status = 200, description = "all of them, the oldest first", body = Found),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's", body = ErrorAnswer),
    (status = 404, description = "no such source", body = ErrorAnswer),
))]
pub(crate) async fn list_grants(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
) -> Result<Json<Found>, Problem> {
    let grants = context.services.sources.grants(caller.org()?, &handle.0).await?;
    Ok(Json(Found { total: grants.len(), grants }))
}

/// Takes a right away: whoever read by it alone reads no more, and their place in the pipes is gone. For whoever made the
/// source, and for those who manage sources.
#[utoipa::path(delete, path = "/api/v1/sources/{handle}/grants/{grantId}", tag = "sources",
    params(("handle" = String, Path), ("grantId" = String, Path)), responses(
    (status = 204, description = "taken away"),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's", body = ErrorAnswer),
    (status = 404, description = "no such source or grant", body = ErrorAnswer),
))]
pub(crate) async fn revoke_grant(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    grant: Last<SourceGrantId>,
) -> Result<HttpResponse, Problem> {
    context.services.sources.revoke_grant(caller.org()?, &handle.0, grant.0).await?;
    Ok(HttpResponse::NoContent().finish())
}
