//! `GET agents/tunnels/{id}`, upgraded to a WebSocket: the agent's end of a tunnel it was asked for.

use actix_web::{
    HttpRequest, HttpResponse, rt,
    web::{Data, Payload},
};
use tidegate_hub::relay;
use tidegate_service::{AgentIdentity, Error};

use super::{
    connect::agent_id,
    key::{own_key, prove},
};
use crate::http::{
    Context, ErrorAnswer, Problem,
    socket::{TUNNEL_FRAME, upgrade},
    valid::Segment,
};

/// A tunnel that the control plane asked for with `tunnel_open`. Its id is good for one dial of that agent.
#[utoipa::path(get, path = "/api/v1/agents/tunnels/{id}", tag = "agents", security(("agentKey" = [])), params(
    ("id" = String, Path),
    ("agent_id" = Option<String>, Query, description = "the agent's name; without it the key alone says who dials"),
), responses(
    (status = 101, description = "the tunnel"),
    (status = 400, description = "no WebSocket", body = ErrorAnswer),
    (status = 401, description = "no key, or not this agent's", body = ErrorAnswer),
    (status = 403, description = "not approved", body = ErrorAnswer),
    (status = 404, description = "unknown, used, late, or another agent's", body = ErrorAnswer),
))]
pub(crate) async fn tunnel(
    request: HttpRequest,
    payload: Payload,
    context: Data<Context>,
    id: Segment<String>,
) -> Result<HttpResponse, Problem> {
    let identity = dialler(&request, &context).await?;
    let (response, inbound, outbound) = upgrade(&request, payload, &[], TUNNEL_FRAME)?;
    let end = context.hub.accept_tunnel(&identity, &id.0).ok_or_else(|| Problem::not_found("this tunnel"))?;
    rt::spawn(context.tasks.track_future(async move {
        relay(inbound, outbound, end).await;
    }));
    Ok(response)
}

/// Who dials. Agents that do not name themselves are known by their key among those that were asked to dial.
async fn dialler(request: &HttpRequest, context: &Context) -> Result<AgentIdentity, Problem> {
    let key = own_key(request)?;
    let named = agent_id(request);
    if !named.is_empty() {
        return prove(request, context, &named).await;
    }
    for agent in context.dialling.agents() {
        // A key that is another's is no failed attempt here, so no source is named.
        match context.services.agents.authenticate(&agent, Some(&key), None).await {
            Err(Error::Unauthenticated(_)) => {}
            proved => return Ok(proved?),
        }
    }
    Err(Problem::unauthenticated("no agent with this API key was asked for a tunnel"))
}
