//! `POST /sessions/{id}/connect`: a single-use ticket for the page's stream. A cookie opens nothing of the API; with a
//! form of this very login it opens one stream, as the API's `connect` does.

use actix_web::{HttpRequest, HttpResponse, http::header::CACHE_CONTROL, web::Data};
use serde::Serialize;
use tidegate_model::{FieldErrors, SessionId, StreamKind, StreamMode};

use super::{Asked, find, logged_out};
use crate::http::{
    Context, Problem, browser::check_form, form::Parameters, sessions::connect::Connection, valid::Segment,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    kind: StreamKind,
    mode: StreamMode,
    #[serde(flatten)]
    way: Connection,
}

/// A ticket for the session's stream; wakes the session if it is asleep.
pub(crate) async fn connect_session(
    request: HttpRequest,
    context: Data<Context>,
    id: Segment<SessionId>,
    sent: Parameters,
) -> Result<HttpResponse, Problem> {
    let asked = Asked::of(&request);
    let seen = find(&request, &context, id.0, &asked).await?.ok_or_else(logged_out)?;
    check_form(&request, &context, &seen.caller, &sent)?;
    let mode = match sent.get("mode") {
        None => asked.mode,
        Some(mode) => {
            mode.parse().map_err(|_| Problem::invalid(FieldErrors::one("mode", "must be control or view")))?
        }
    };
    let kind = seen.session.protocol;
    let given = context.services.streams.connect(seen.org()?, id.0, kind, mode).await?;
    let answer = Answer { kind, mode, way: Connection::new(&request, &context, kind, given) };
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(answer))
}
