//! What the verbs that change a session answer.

use actix_web::HttpResponse;
use serde::Serialize;
use tidegate_model::Session;
use tidegate_service::Changed;
use utoipa::ToSchema;

use crate::http::idempotency::again;

/// A session, with the command that was queued for it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    /// The session as it now stands.
    pub(crate) session: Session,
    /// The command, `cmd-…`; absent where nothing was left to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command_id: Option<String>,
}

/// 202 for what was queued, 200 for what was so already, and the first answer again for a repeat.
pub(crate) fn changed(changed: Changed) -> HttpResponse {
    match changed {
        Changed::Queued(session, command) => {
            let command_id = Some(command.to_wire());
            HttpResponse::Accepted().json(Accepted { session, command_id })
        }
        Changed::Already(session) => HttpResponse::Ok().json(Accepted { session, command_id: None }),
        Changed::Replay(replay) => again(replay),
    }
}
