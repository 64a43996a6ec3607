//! `GET agents/tunnels/{id}`, upgraded to a WebSocket: the agent's end of a tunnel it was asked for.

use actix_web::{
    HttpRequest, HttpResponse, rt,
    web::{Data, Payload},
};
use tidegate_hub::relay;
use tidegate_service::AgentIdentity;

use super::{
    connect::agent_id,
    key::{certified, own_key, prove},
};
use crate::http::{
    Context, ErrorAnswer, Problem,
    socket::{TUNNEL_FRAME, upgrade},
    source::source,
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

/// Who dials: the agent that is named, else whoever has the key.
async fn dialler(request: &HttpRequest, context: &Context) -> Result<AgentIdentity, Problem> {
    let named = agent_id(request);
    if !named.is_empty() {
        return prove(request, context, &named).await;
    }
    let key = own_key(request)?;
    let identity = context.services.agents.authenticate_by_key(Some(&key), source(request, context)).await?;
    certified(request, context, identity.handle())?;
    Ok(identity)
}
