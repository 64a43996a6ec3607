//! The keys agents bring.

use actix_web::{
    HttpRequest,
    http::{StatusCode, header::HeaderMap},
};
use tidegate_model::{AgentHandle, Secret};
use tidegate_protocol::API_KEY_HEADER;
use tidegate_service::AgentIdentity;

use crate::{
    http::{Context, Problem, source::source},
    tls::PeerNames,
};

/// Digits of an agent's own key.
const DIGITS: usize = 64;

/// A secret header.
pub(crate) fn header(headers: &HeaderMap, name: &str) -> Option<Secret<String>> {
    let value = headers.get(name)?;
    // What is no text is no key, and is refused as a wrong one.
    Some(Secret::new(value.to_str().unwrap_or_default().to_owned()))
}

/// The agent's own key, as far as its form goes.
pub(crate) fn own_key(request: &HttpRequest) -> Result<Secret<String>, Problem> {
    let key = header(request.headers(), API_KEY_HEADER)
        .ok_or_else(|| Problem::unauthenticated("the header X-Agent-API-Key is missing"))?;
    let length = key.expose().chars().count();
    if length == DIGITS {
        return Ok(key);
    }
    Err(Problem::unauthenticated(format!("API key must be {DIGITS} characters (got {length})")))
}

/// Proves that the request is `handle`'s, whom an operator approved.
pub(crate) async fn prove(
    request: &HttpRequest,
    context: &Context,
    handle: &str,
) -> Result<AgentIdentity, Problem> {
    let key = own_key(request)?;
    // A name that no agent can have is a wrong pair like any other.
    let wrong = || Problem::unauthenticated("the agent id or its API key is wrong");
    let handle: AgentHandle = handle.parse().map_err(|_| wrong())?;
    let from = source(request, context);
    let identity = context.services.agents.authenticate(&handle, Some(&key), from).await?;
    certified(request, context, &handle)?;
    Ok(identity)
}

/// Where agents must bring a certificate: refuses one that is for somebody else, and none.
pub(crate) fn certified(
    request: &HttpRequest,
    context: &Context,
    agent: &AgentHandle,
) -> Result<(), Problem> {
    // To the letter, as agents' names are told apart.
    let named = |names: &PeerNames| names.0.iter().any(|name| name == agent.as_str());
    if !context.agent_certificates || request.conn_data::<PeerNames>().is_some_and(named) {
        return Ok(());
    }
    let message = format!(
        "this control plane asks agents for a certificate: bring one whose common name or DNS name is {agent} (--client-cert and --client-key)"
    );
    Err(Problem::new(StatusCode::FORBIDDEN, "E_AGENT_CERTIFICATE", message))
}
