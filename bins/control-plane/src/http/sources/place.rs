//! `sources/{handle}/pipes/{name}/place`.

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_model::Confirmation;
use tidegate_service::{PipeUse, ReadPlace};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Last, Segment},
};

/// What the caller has done with.
#[derive(Debug, ToSchema)]
#[schema(as = Confirmation)]
#[expect(
    dead_code,
    reason = "the shape of `Confirmation`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Wanted {
    /// The sequence up to which one has everything: `last` of an answer.
    confirmed: u64,
    /// `incarnation` of that answer.
    incarnation: DateTime<Utc>,
}

/// Where the caller is in a pipe.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReadPlace)]
pub(crate) struct Place {
    /// The last message that counts as read; 0 before the first.
    sequence: u64,
    /// Which stream it is: where another one was confirmed, nothing moved.
    incarnation: Option<DateTime<Utc>>,
    /// How many messages are beyond it.
    unread: u64,
}

impl From<ReadPlace> for Place {
    fn from(place: ReadPlace) -> Self {
        let ReadPlace { sequence, incarnation, unread } = place;
        Self { sequence, incarnation, unread }
    }
}

/// Moves the caller's place in a pipe to what they have done with, for whoever reads with `confirmed` and ends. It never moves
/// back, and a repeat changes nothing.
#[utoipa::path(put, path = "/api/v1/sources/{handle}/pipes/{name}/place", tag = "sources", request_body = Wanted,
    params(("handle" = String, Path), ("name" = String, Path)), responses(
    (status = 200, description = "where the place is", body = Place),
    (status = 400, description = "bad fields, each named; `confirmed` where there is no such message yet", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not allowed to read it", body = ErrorAnswer),
    (status = 404, description = "no such source or pipe", body = ErrorAnswer),
    (status = 503, description = "the broker does not answer, or the pipe is being made: ask again", body = ErrorAnswer),
))]
pub(crate) async fn confirm(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    name: Last<String>,
    body: Body<Confirmation>,
) -> Result<Json<Place>, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let (handle, name) = (&handle.0, &name.0);
    let allowed = async || Ok(services.pipes.open(org, handle, name, PipeUse::Read).await.map(drop)?);
    let confirmation = body.after(allowed).await?;
    Ok(Json(services.messages.confirm(org, handle, name, confirmation).await?.into()))
}
