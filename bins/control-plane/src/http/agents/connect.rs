//! `GET agents/connect`, upgraded to a WebSocket: an agent's control connection.

use actix_web::{
    HttpRequest, HttpResponse, rt,
    web::{Data, Payload, Query},
};

use super::key::{own_key, prove};
use crate::http::{
    Context, ErrorAnswer, Problem,
    socket::{AGENT_FRAME, upgrade},
};

/// The control connection of an approved agent. Text frames, one JSON message each.
#[utoipa::path(get, path = "/api/v1/agents/connect", tag = "agents", security(("agentKey" = [])),
    params(("agent_id" = String, Query, description = "the agent's name")), responses(
    (status = 101, description = "the connection"),
    (status = 400, description = "no WebSocket", body = ErrorAnswer),
    (status = 401, description = "no key, or not this agent's", body = ErrorAnswer),
    (status = 403, description = "not approved", body = ErrorAnswer),
    (status = 429, description = "too many attempts", body = ErrorAnswer),
))]
pub(crate) async fn connect(
    request: HttpRequest,
    payload: Payload,
    context: Data<Context>,
) -> Result<HttpResponse, Problem> {
    own_key(&request)?;
    let identity = prove(&request, &context, &agent_id(&request)).await?;
    let (response, inbound, outbound) = upgrade(&request, payload, &[], AGENT_FRAME)?;
    let hub = context.hub.clone();
    rt::spawn(context.tasks.track_future(async move {
        // The hub logs why it ended.
        hub.serve_agent(identity, inbound, outbound).await;
    }));
    Ok(response)
}

/// The name in the query; nothing where there is none, which is no agent's name.
pub(super) fn agent_id(request: &HttpRequest) -> String {
    let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string());
    let pairs = pairs.map(Query::into_inner).unwrap_or_default();
    pairs.into_iter().find_map(|(name, value)| (name == "agent_id").then_some(value)).unwrap_or_default()
}
