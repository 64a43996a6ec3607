//! `POST organizations/{id}/invites`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use tidegate_model::{CreateInviteRequest, Invite, OrgRole};
use tidegate_service::Invited;
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::Body,
};

/// Whom to invite.
#[derive(Debug, ToSchema)]
#[schema(as = CreateInviteRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `CreateInviteRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// Username in any case; whether there is such a user is not said.
    username: String,
    /// The role of whoever accepts. Default `user`.
    role: Option<OrgRole>,
    /// How long it can be accepted, `1m` to `30d`. Default `7d`.
    #[schema(example = "7d")]
    expires_in: Option<String>,
}

/// Invites somebody into the organization.
#[utoipa::path(post, path = "/api/v1/organizations/{id}/invites", tag = "invites", request_body = New, params(
    ("id" = String, Path, description = "id or name"),
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "invited", body = Invite),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization, or not a member of it", body = ErrorAnswer),
    (status = 409, description = "a member already, or a pending invite exists", body = ErrorAnswer),
))]
pub(crate) async fn create(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<CreateInviteRequest>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST invites", body.bytes())?;
    let invites = &context.services.invites;
    let made = invites.create(caller.org()?, body.valid()?, key.as_ref(), |invite| json!(invite)).await?;
    Ok(match made {
        Invited::New(invite) => HttpResponse::Created().json(invite),
        Invited::Replay(replay) => again(replay),
    })
}
