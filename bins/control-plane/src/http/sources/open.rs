//! `sources/{handle}/pipes/{name}/open`.

use actix_web::{HttpResponse, http::header::CACHE_CONTROL, web::Data};
use serde::Serialize;
use tidegate_model::{OpenPipeRequest, PipeUse};
use tidegate_service::{Error, PipeRoute};
use utoipa::ToSchema;

use crate::http::{
    Context, ErrorAnswer, Problem,
    gate::Identified,
    valid::{Body, Last, Segment},
};

/// What a client of NATS wants with a pipe.
#[derive(Debug, ToSchema)]
#[schema(as = OpenPipeRequest, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `OpenPipeRequest`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct Wanted {
    /// Read it or write to it.
    r#use: PipeUse,
    /// Whether nothing of before is to be read: the caller's place moves behind it. Default `false`.
    anew: Option<bool>,
}

/// How a client of NATS uses a pipe.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PipeRoute)]
pub(crate) struct Route {
    /// What it publishes to.
    subject: String,
    /// The pipe's stream.
    stream: String,
    /// Its reader there, which is asked with `$JS.API.CONSUMER.MSG.NEXT.<stream>.<reader>`; `null` for writing.
    reader: Option<String>,
    /// The prefix that its inboxes must have.
    inbox_prefix: String,
}

impl From<PipeRoute> for Route {
    fn from(route: PipeRoute) -> Self {
        let PipeRoute { subject, stream, reader, inbox_prefix } = route;
        Self { subject, stream, reader, inbox_prefix }
    }
}

/// Opens a pipe for the caller's own client of NATS, which connects with what `POST auth/exchange` gives: its stream is there
/// when this answers, and the caller's reader where it is to be read, where it was or at the oldest message. A repeat changes
/// nothing, but for `anew`, which moves the reader behind what is there at that time.
#[utoipa::path(post, path = "/api/v1/sources/{handle}/pipes/{name}/open", tag = "sources", request_body = Wanted,
    params(("handle" = String, Path), ("name" = String, Path)), responses(
    (status = 200, description = "how it is used", body = Route),
    (status = 400, description = "bad fields, each named", body = ErrorAnswer),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not allowed to use it so", body = ErrorAnswer),
    (status = 404, description = "no such source or pipe", body = ErrorAnswer),
    (status = 409, description = "it may be written to, and the caller's token for NATS has no room for it (`E_TOO_MANY_GRANTS`): send over HTTP", body = ErrorAnswer),
    (status = 503, description = "the broker does not answer, or the pipe is being made: ask again", body = ErrorAnswer),
    (status = 507, description = "no room is left for the pipe; `fields` has the numbers", body = ErrorAnswer),
))]
pub(crate) async fn open(
    context: Data<Context>,
    caller: Identified,
    handle: Segment<String>,
    name: Last<String>,
    body: Body<OpenPipeRequest>,
) -> Result<HttpResponse, Problem> {
    let (services, org) = (&context.services, caller.org()?);
    let (handle, name) = (&handle.0, &name.0);
    let wanted = body.after(async || Ok(services.sources.get(org, handle).await.map(drop)?)).await?;
    match services.messages.route(org, handle, name, wanted).await {
        Ok(route) => {
            Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(Route::from(route)))
        }
        // What is not there, or not allowed, is so whether or not the broker answers.
        Err(error @ Error::BrokerUnavailable(_)) => {
            services.pipes.open(org, handle, name, wanted.to).await?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}
