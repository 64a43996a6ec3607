//! `POST sources`.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use tidegate_model::{CreateSourceRequest, Source, SourceKind};
use tidegate_service::Made;
use utoipa::ToSchema;

use super::worded;
use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    idempotency::{again, idempotency},
    valid::Body,
};

/// A source to make.
#[derive(Debug, ToSchema)]
#[schema(as = CreateSourceRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `CreateSourceRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// What it is called: 1 to 32 of a-z, 0-9 and `-`, with no `-` at either end; `broadcast`, `inbox`, `stdin`, `stdout`,
    /// `stdctrl`, `heartbeat`, `system` and `db` are taken.
    #[schema(example = "build-7")]
    handle: String,
    /// `message`, which has the pipe `inbox`, or `pty`, which has `stdin`, `stdout` and `stdctrl` too. Default `message`.
    kind: Option<SourceKind>,
}

/// Makes a source of the caller's own. Its inbox takes messages of every member at once, and is the caller's to read.
#[utoipa::path(post, path = "/api/v1/sources", tag = "sources", request_body = New, params(
    ("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer"),
), responses(
    (status = 201, description = "made", body = Source),
    (status = 400, description = "bad fields, each named: `E_INVALID_HANDLE`, `E_INVALID_KIND`, or else `E_INVALID`", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "a viewer", body = ErrorAnswer),
    (status = 404, description = "not a member of the organization", body = ErrorAnswer),
    (status = 409, description = "the handle is taken (`E_SOURCE_TAKEN`), or there are too many sources", body = ErrorAnswer),
))]
pub(crate) async fn create(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<CreateSourceRequest>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST sources", body.bytes())?;
    let (sources, wanted) = (&context.services.sources, body.valid().map_err(worded)?);
    let made = sources.create(caller.org()?, wanted, key.as_ref(), |made| json!(made)).await?;
    Ok(match made {
        Made::New(source) => HttpResponse::Created().json(source),
        Made::Replay(replay) => again(replay),
    })
}
