//! `GET /sessions/{id}/state`: how a session stands, for the page that shows it. Asking is no activity.

use actix_web::{HttpRequest, HttpResponse, http::header::CACHE_CONTROL, web::Data};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use tidegate_model::{Session, SessionId, SessionState, StreamKind, StreamMode};

use super::{Asked, find};
use crate::http::{Context, Problem, valid::Segment};

/// Longest word of an agent's on how far it is, in characters.
const LONGEST: usize = 300;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    id: SessionId,
    name: &'a str,
    template: &'a str,
    state: SessionState,
    reason: Option<&'a str>,
    since: DateTime<Utc>,
    progress: Option<String>,
    protocol: StreamKind,
    mode: StreamMode,
    streaming_ready: bool,
    exit_code: Option<i32>,
}

/// How the session stands.
pub(crate) async fn session_state(
    request: HttpRequest,
    context: Data<Context>,
    id: Segment<SessionId>,
) -> Result<HttpResponse, Problem> {
    let asked = Asked::of(&request);
    let seen = find(&request, &context, id.0, &asked).await?.ok_or_else(super::logged_out)?;
    let session = &seen.session;
    let answer = Answer {
        id: session.id,
        name: &session.name,
        template: &session.template,
        state: session.state,
        reason: session.state_reason.as_deref(),
        since: session.state_since,
        progress: progress(session),
        protocol: session.protocol,
        mode: asked.mode,
        streaming_ready: session.streaming_ready,
        exit_code: session.exit_code(),
    };
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(answer))
}

/// How far the agent is, in its words.
fn progress(session: &Session) -> Option<String> {
    let said = session.platform_metadata.get("progress").and_then(Value::as_str)?;
    let said: String = said.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    (!said.trim().is_empty()).then_some(said)
}
