//! `PATCH sessions/{id}/tags`.

use actix_web::web::{Data, Json};
use tidegate_model::{Fields, FromFields, Session, SessionId};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Segment},
};

/// The tags that replace those the session has.
#[derive(Debug, ToSchema)]
pub(crate) struct Tags {
    /// At most 32 labels of 1–64 characters.
    tags: Vec<String>,
}

impl FromFields for Tags {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let tags: Vec<String> = fields.required("tags")?;
        let fits =
            |tag: &String| (1..=64).contains(&tag.chars().count()) && !tag.chars().any(char::is_control);
        if tags.len() > 32 || !tags.iter().all(fits) {
            fields.errors().add("tags", "must be at most 32 texts of 1 to 64 characters");
        }
        Some(Self { tags })
    }
}

/// Replaces a session's tags.
#[utoipa::path(patch, path = "/api/v1/sessions/{id}/tags", tag = "sessions", request_body = Tags,
    params(("id" = String, Path)), responses(
    (status = 200, description = "the session", body = Session),
    (status = 400, description = "bad tags", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such session", body = ErrorAnswer),
))]
pub(crate) async fn set_tags(
    context: Data<Context>,
    caller: Identified,
    id: Segment<SessionId>,
    body: Body<Tags>,
) -> Result<Json<Session>, Problem> {
    let (sessions, org) = (&context.services.sessions, caller.org()?);
    let found = async || Ok(sessions.get(org, id.0).await.map(drop)?);
    let tags = body.after(found).await?.tags;
    Ok(Json(sessions.set_tags(org, id.0, tags).await?))
}
