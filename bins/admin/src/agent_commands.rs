//! What operators tell agents, and what becomes of sessions that nobody knows.

use anyhow::Context;
use serde_json::json;
use tidegate_model::{AgentCommandRequest, AgentHandle, CommandAction, SessionId};
use tidegate_service::{Operator, QuarantineDecision, Quarantined, Services};

use crate::{args::QuarantineVerb, output};

/// Queues a command.
pub(crate) async fn order(
    services: &Services,
    operator: &Operator,
    agent: &AgentHandle,
    (action, session_id, payload): (CommandAction, Option<SessionId>, Option<String>),
    as_json: bool,
) -> anyhow::Result<()> {
    let read = |text: String| serde_json::from_str(&text).context("--payload must be a JSON object");
    let payload = payload.map(read).transpose()?;
    let request = AgentCommandRequest { action, session_id, payload };
    let command = services.agents.order(operator, agent, request).await?;
    let sentence = format!("agent {agent} is told to {action} as {}", command.command_id);
    output::said(as_json, &command, &sentence)
}

/// Lists the quarantine, or decides about one session in it.
pub(crate) async fn quarantine(
    services: &Services,
    operator: &Operator,
    verb: Option<QuarantineVerb>,
    as_json: bool,
) -> anyhow::Result<()> {
    let agents = &services.agents;
    match verb.unwrap_or(QuarantineVerb::List) {
        QuarantineVerb::List => {
            let list = agents.quarantined(operator).await?;
            let row = |session: &Quarantined| {
                vec![
                    session.agent_id.clone(),
                    session.session_id.clone(),
                    session.state.clone(),
                    session.last_seen.to_string(),
                ]
            };
            let rows = list.iter().map(row).collect();
            let headings = ["AGENT", "SESSION", "STATE", "LAST SEEN"];
            output::list(as_json, &json!({"sessions": list, "total": list.len()}), &headings, rows)
        }
        QuarantineVerb::Stop { agent, session } => {
            let decision = QuarantineDecision::Stop;
            let command = agents.decide_quarantined(operator, &agent, &session, decision).await?;
            let id = command.as_ref().map(|command| command.command_id.clone()).unwrap_or_default();
            let sentence = format!("agent {agent} is told to stop session {session} as {id}");
            output::said(as_json, &json!({"command": command}), &sentence)
        }
        QuarantineVerb::Forget { agent, session } => {
            let decision = QuarantineDecision::Forget;
            agents.decide_quarantined(operator, &agent, &session, decision).await?;
            let sentence = format!("session {session} of agent {agent} is not listed any more");
            output::said(as_json, &json!({"forgotten": session}), &sentence)
        }
    }
}
