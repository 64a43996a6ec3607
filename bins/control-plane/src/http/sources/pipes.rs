//! `sources/{handle}/pipes` and `sources/{handle}/pipes/{name}`.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use serde::Serialize;
use serde_json::json;
use tidegate_model::{CreatePipeRequest, ListedPipe, Pipe, Retention, UpdatePipeRequest};
use tidegate_service::{Error, Made, OrgScope, Services};
use utoipa::ToSchema;

use super::worded;
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::{Body, Last, Segment},
};

/// The pipes of a source; at most a hundred beside those of its kind.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pipes)]
pub(crate) struct Found {
    /// Those of the source's kind first, then those that were made, by name.
    pipes: Vec<ListedPipe>,
    /// How many there are.
    total: usize,
}

/// A pipe that was made, with what it keeps.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MadePipe)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pipe: Pipe,
    /// What it is to keep: what was asked for, and the default for the rest.
    retention: Retention,
    /// What the broker keeps; `null` before the pipe's first message or reader.
    in_force: Option<Retention>,
}

impl Kept {
    fn new(pipe: Pipe, in_force: Option<Retention>) -> Self {
        Self { retention: pipe.retention(), pipe, in_force }
    }
}

/// A pipe to make.
#[derive(Debug, ToSchema)]
#[schema(as = CreatePipeRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `CreatePipeRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// What it is called: as a handle is; the names of pipes that sources have by their kind are taken.
    #[schema(example = "results")]
    name: String,
    /// For how many seconds it keeps messages, 1 to 31 536 000. Default 86 400.
    ttl_seconds: Option<i64>,
    /// How many messages it keeps, 1 to 10 000 000. Default 5 000.
    max_msgs: Option<i64>,
    /// How many bytes it keeps, from 1 024 to what the organization may. Default 16 777 216.
    max_bytes: Option<i64>,
}

/// Makes a pipe at a source. Nothing is reserved for it before its first message or reader. For whoever made the source,
/// and for those who manage sources.
#[utoipa::path(post, path = "/api/v1/sources/{handle}/pipes", tag = "sources", request_body = New, params(
    ("handle" = String, Path),
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "made", body = Kept),
    (status = 400, description = "bad fields, each named: `E_INVALID_PIPE`, or else `E_INVALID`", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's source", body = ErrorAnswer),
    (status = 404, description = "no such source", body = ErrorAnswer),
    (status = 409, description = "the source has a pipe of this name (`E_PIPE_TAKEN`), or too many, or somebody could write to more than 256 of its maker's (`E_TOO_MANY_GRANTS`)", body = ErrorAnswer),
))]
pub(crate) async fn create_pipe(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    body: Body<CreatePipeRequest>,
) -> Result<HttpResponse, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    // The source is part of what must be the same.
    let what = [handle.0.as_bytes(), b"\n", body.bytes().as_ref()].concat();
    let key = idempotency(&request, &caller, "POST sources/pipes", &what)?;
    let found = async || Ok(services.sources.get(org, &handle.0).await.map(drop)?);
    let wanted = body.after(found).await.map_err(worded)?;
    let answer = |pipe: &Pipe| json!(Kept::new(pipe.clone(), None));
    let made = services.pipes.create(org, &handle.0, wanted, key.as_ref(), answer).await?;
    Ok(match made {
        Made::New(pipe) => HttpResponse::Created().json(Kept::new(pipe, None)),
        Made::Replay(replay) => again(replay),
    })
}

/// The pipes of a source, with what each is to keep and what the broker keeps.
#[utoipa::path(get, path = "/api/v1/sources/{handle}/pipes", tag = "sources", params(("handle" = String, Path)), responses(
    (status = 200, description = "all of them", body = Found),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 404, description = "no such source", body = ErrorAnswer),
))]
pub(crate) async fn list_pipes(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
) -> Result<Json<Found>, Problem> {
    let pipes = context.services.pipes.list(caller.org()?, &handle.0).await?;
    Ok(Json(Found { total: pipes.len(), pipes }))
}

/// What a pipe keeps from now on: what is absent stays, `null` is the default again.
#[derive(Debug, ToSchema)]
#[schema(as = UpdatePipeRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `UpdatePipeRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Change {
    /// For how many seconds it keeps messages, 1 to 31 536 000.
    ttl_seconds: Option<i64>,
    /// How many messages it keeps, 1 to 10 000 000.
    max_msgs: Option<i64>,
    /// How many bytes it keeps, from 1 024 to what the organization may.
    max_bytes: Option<i64>,
}

/// Changes what a pipe keeps: what is too old or too much from then on is gone at once. For whoever made the source, and
/// for those who manage sources.
#[utoipa::path(patch, path = "/api/v1/sources/{handle}/pipes/{name}", tag = "sources", request_body = Change,
    params(("handle" = String, Path), ("name" = String, Path)), responses(
    (status = 200, description = "the pipe, and what is in force", body = Kept),
    (status = 400, description = "bad fields, each named; `E_INVALID_PIPE` where the source has the pipe by its kind", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's source", body = ErrorAnswer),
    (status = 404, description = "no such source or pipe", body = ErrorAnswer),
    (status = 503, description = "changed, and the broker has not followed yet (`E_NOT_READY`) or does not answer: ask again", body = ErrorAnswer),
    (status = 507, description = "no room is left for what it is to keep; `fields` has the numbers", body = ErrorAnswer),
))]
pub(crate) async fn update_pipe(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    name: Last<String>,
    body: Body<UpdatePipeRequest>,
) -> Result<Json<Kept>, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let wanted = body.after(async || listed(services, org, &handle.0, &name.0).await.map(drop)).await?;
    let (pipe, operations) =
        services.pipes.update(org, &handle.0, &name.0, &wanted.retention).await.map_err(worded)?;
    services.messages.settled(org, &operations).await?;
    let now = listed(services, org, &handle.0, &name.0).await?;
    if now.in_force.is_some_and(|kept| kept != now.retention) {
        // Another process tried, and it was refused: a repeat says why.
        return Err(Error::NotReady(format!("what pipe {} is to keep", now.name)).into());
    }
    Ok(Json(Kept::new(pipe, now.in_force)))
}

/// Ends a pipe with its messages. For whoever made the source, and for those who manage sources.
#[utoipa::path(delete, path = "/api/v1/sources/{handle}/pipes/{name}", tag = "sources",
    params(("handle" = String, Path), ("name" = String, Path)), responses(
    (status = 204, description = "ended"),
    (status = 400, description = "`E_INVALID_PIPE`: the source has the pipe by its kind", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "somebody else's source", body = ErrorAnswer),
    (status = 404, description = "no such source or pipe", body = ErrorAnswer),
    (status = 503, description = "ended, and the broker has not followed yet (`E_NOT_READY`) or does not answer: ask again", body = ErrorAnswer),
))]
pub(crate) async fn delete_pipe(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    name: Last<String>,
) -> Result<HttpResponse, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let operations = services.pipes.delete(org, &handle.0, &name.0).await.map_err(worded)?;
    services.messages.settled(org, &operations).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A pipe as it stands.
async fn listed(
    services: &Services,
    org: &OrgScope,
    handle: &str,
    name: &str,
) -> Result<ListedPipe, Problem> {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(32).collect();
    let found = services.pipes.list(org, handle).await?.into_iter().find(|pipe| pipe.name == name);
    found.ok_or_else(|| Problem::not_found(format_args!("pipe {shown} of source {handle}")))
}
