//! `POST organizations/{id}/members`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use tidegate_model::{Fields, FromFields, Member, OrgRole, UserId};
use tidegate_service::{Added, Person};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::Body,
};

/// Who is to be a member, by id or by name, and in which role.
#[derive(Debug, ToSchema)]
#[schema(as = NewMember, rename_all = "camelCase")]
#[expect(dead_code, reason = "the shape of `Wanted`, which is read field by field, for the OpenAPI document")]
pub(crate) struct New {
    /// The user; else `username`.
    user_id: Option<UserId>,
    /// The user's name in any case; else `userId`.
    username: Option<String>,
    /// Role in the organization. Default `user`.
    role: Option<OrgRole>,
}

/// A body of this route.
#[derive(Debug)]
pub(crate) struct Wanted {
    person: Person,
    role: OrgRole,
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let id: Option<UserId> = fields.optional("userId");
        let name: Option<String> = fields.optional("username");
        let role = fields.optional("role").unwrap_or(OrgRole::User);
        let person = match (id, name) {
            (Some(id), None) => Person::Id(id),
            (None, Some(name)) => Person::Named(name),
            _ => {
                fields.errors().add("userId", "give either userId or username");
                return None;
            }
        };
        Some(Self { person, role })
    }
}

/// Makes somebody a member; a repeat gives them the role. Nobody grants more than they hold.
#[utoipa::path(post, path = "/api/v1/organizations/{id}/members", tag = "members", request_body = New,
    params(
    ("id" = String, Path, description = "id or name"),
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 200, description = "was a member, and has the role now", body = Member),
    (status = 201, description = "is a member now", body = Member),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an org_admin", body = ErrorAnswer),
    (status = 404, description = "no such organization or user", body = ErrorAnswer),
    (status = 409, description = "the owner or the last org_admin keeps the role", body = ErrorAnswer),
))]
pub(crate) async fn add(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<Wanted>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST members", body.bytes())?;
    let (members, Wanted { person, role }) = (&context.services.members, body.valid()?);
    let answer = |member: &Member| json!(member);
    Ok(match members.add_keyed(caller.org()?, person, role, key.as_ref(), answer).await? {
        Added::New(member) => HttpResponse::Created().json(member),
        Added::Changed(member) => HttpResponse::Ok().json(member),
        Added::Replay(replay) => again(replay),
    })
}
