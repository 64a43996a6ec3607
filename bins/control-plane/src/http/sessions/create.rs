//! `POST sessions`.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::{Value, json};
use tidegate_model::NewSession;
use utoipa::ToSchema;

use super::answer::{Accepted, changed};
use crate::http::{Context, ErrorAnswer, Problem, gate::Identified, idempotency::idempotency, valid::Body};

/// What is asked for; all but the template, or an application in its place, may be left out.
#[derive(Debug, ToSchema)]
#[schema(as = NewSession, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the shape of `NewSession`, which is read field by field, for the OpenAPI document"
)]
pub(crate) struct New {
    /// Name of a built-in template (`shell`, `command`, `desktop`, `web`) or of one of the catalog, as `repository/name` where
    /// several repositories have it. A template of the catalog says itself what runs: `command`, `image`, `platform` and `port`
    /// are no part of such a request.
    #[schema(example = "shell")]
    template: Option<String>,
    /// The installed application that it is of, instead of a template. Later ones win: its template, its configuration, this
    /// request.
    application_id: Option<tidegate_model::ApplicationId>,
    /// For people, 1–100 characters; made up when absent.
    name: Option<String>,
    /// Program and arguments, for template `command`.
    command: Option<Vec<String>>,
    /// What it needs; what is absent comes from the template.
    resources: Option<NewResources>,
    /// Whether the home outlives the session. Default false.
    persistent_home: Option<bool>,
    /// Hibernates after so long without activity, `0` is never.
    #[schema(example = "30m")]
    idle_timeout: Option<String>,
    /// Ends after so long, `0` is never.
    #[schema(example = "8h")]
    max_session_duration: Option<String>,
    /// Environment variables; never shown again.
    environment: Option<BTreeMap<String, String>>,
    /// At most 32 labels of 1–64 characters.
    tags: Option<Vec<String>>,
    /// Only agents of this region.
    region: Option<String>,
}

/// Kubernetes quantities.
#[derive(Debug, ToSchema)]
#[schema(as = ResourceRequest)]
#[expect(dead_code, reason = "the shape of `ResourceRequest` for the OpenAPI document")]
pub(crate) struct NewResources {
    /// 100m to 64000m.
    #[schema(example = "1000m")]
    cpu: Option<String>,
    /// 128Mi to 512Gi.
    #[schema(example = "2Gi")]
    memory: Option<String>,
    /// 1Mi to 64Ti; of the persistent home.
    #[schema(example = "10Gi")]
    storage: Option<String>,
}

/// Asks for a session: it is placed on an agent with room, and its start is queued.
#[utoipa::path(post, path = "/api/v1/sessions", tag = "sessions", request_body = New,
    params(("Idempotency-Key" = Option<String>, Header, description = "a repeat with the same key and body gets the first answer")),
    responses(
        (status = 202, description = "asked for", body = Accepted),
        (status = 400, description = "bad fields, each named", body = ErrorAnswer),
        (status = 401, description = "not logged in", body = ErrorAnswer),
        (status = 403, description = "the role or the organization's state does not allow it", body = ErrorAnswer),
        (status = 404, description = "no such template, application or organization", body = ErrorAnswer),
        (status = 409, description = "the application is disabled or not installed, several repositories have the template, the key was used with another body, or its first request still runs", body = ErrorAnswer),
        (status = 413, description = "the body is too large", body = ErrorAnswer),
        (status = 503, description = "no agent has room, with a reason per agent", body = ErrorAnswer),
    ))]
pub(crate) async fn create(
    request: HttpRequest,
    context: Data<Context>,
    caller: Identified,
    body: Body<NewSession>,
) -> Result<HttpResponse, Problem> {
    let key = idempotency(&request, &caller, "POST sessions", body.bytes())?;
    let new = body.valid()?;
    let answer = |session: &_, command: tidegate_model::CommandId| -> Value {
        json!({"session": session, "commandId": command.to_wire()})
    };
    let created = context.services.sessions.create(caller.org()?, new, key.as_ref(), answer).await?;
    Ok(changed(created))
}
