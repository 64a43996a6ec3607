//! `GET admin/quarantine`.

use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_service::Quarantined;
use utoipa::ToSchema;

use crate::http::{Context, ErrorAnswer, Problem, gate::Identified};

/// A session that an agent runs and nobody here knows.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stranger {
    /// The agent that runs it.
    agent_id: String,
    /// The id the agent gave.
    session_id: String,
    /// The state the agent gave.
    state: String,
    /// First reported.
    first_seen: DateTime<Utc>,
    /// Last reported.
    last_seen: DateTime<Utc>,
}

impl From<Quarantined> for Stranger {
    fn from(from: Quarantined) -> Self {
        let Quarantined { agent_id, session_id, state, first_seen, last_seen } = from;
        Self { agent_id, session_id, state, first_seen, last_seen }
    }
}

/// Strangers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Strangers {
    /// The sessions.
    sessions: Vec<Stranger>,
    /// How many there are.
    total: usize,
}

/// Sessions that agents run and nobody here knows. They are left running until an operator decides.
#[utoipa::path(get, path = "/api/v1/admin/quarantine", tag = "admin", responses(
    (status = 200, description = "the sessions", body = Strangers),
    (status = 401, description = "not logged in", body = ErrorAnswer),
    (status = 403, description = "not an operator", body = ErrorAnswer),
))]
pub(crate) async fn quarantine(
    context: Data<Context>,
    caller: Identified,
) -> Result<Json<Strangers>, Problem> {
    let found = context.services.agents.quarantined(&caller.operator()?).await?;
    let sessions: Vec<Stranger> = found.into_iter().map(Stranger::from).collect();
    Ok(Json(Strangers { total: sessions.len(), sessions }))
}
