//! What the verbs about sessions and commands do.

use serde_json::json;
use tidegate_model::{AgentCommand, Session, SessionFilter};
use tidegate_service::{Operator, Paging, Services};

use crate::{
    agents::{or_never, time},
    args::{CommandVerb, SessionVerb},
    output,
};

pub(crate) async fn sessions(
    services: &Services,
    operator: &Operator,
    verb: SessionVerb,
    as_json: bool,
) -> anyhow::Result<()> {
    match verb {
        SessionVerb::List { organization, user, state, tag, agent, limit } => {
            let filter = SessionFilter { user, state, tag, agent, application: None, shared: false };
            list(services, operator, &filter, organization.as_deref(), limit, as_json).await
        }
        SessionVerb::Terminate { session, reason } => {
            let (session, asked) =
                services.all_sessions.terminate(operator, session, reason.as_deref()).await?;
            let sentence = if asked {
                format!("session {} is being ended", session.id)
            } else {
                format!("session {} is {} already", session.id, session.state)
            };
            output::said(as_json, &json!({"session": session, "asked": asked}), &sentence)
        }
    }
}

async fn list(
    services: &Services,
    operator: &Operator,
    filter: &SessionFilter,
    organization: Option<&str>,
    limit: usize,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut found: Vec<Session> = Vec::new();
    let mut paging = Paging { limit: 100, cursor: None };
    let total = loop {
        let page = services.all_sessions.list(operator, filter.clone(), organization, &paging).await?;
        found.extend(page.items);
        paging.cursor = page.next_cursor;
        if paging.cursor.is_none() || found.len() >= limit {
            break page.total;
        }
    };
    found.truncate(limit);
    let row = |session: &Session| {
        vec![
            session.id.to_string(),
            session.org_id.to_string(),
            session.user.clone(),
            session.template.clone(),
            session.agent_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            session.state.to_string(),
            time(session.created_at),
            session.state_reason.clone().unwrap_or_default(),
        ]
    };
    let headings = ["SESSION", "ORGANIZATION", "USER", "TEMPLATE", "AGENT", "STATE", "ASKED FOR", "WHY"];
    let rows = found.iter().map(row).collect();
    output::list(as_json, &json!({"sessions": found, "total": total}), &headings, rows)
}

pub(crate) async fn commands(
    services: &Services,
    operator: &Operator,
    verb: CommandVerb,
    as_json: bool,
) -> anyhow::Result<()> {
    match verb {
        CommandVerb::List { agent, limit } => {
            let list = services.agents.commands(operator, &agent, limit).await?;
            let row = |command: &AgentCommand| {
                vec![
                    command.command_id.clone(),
                    command.action.to_string(),
                    command.session_id.as_ref().map(ToString::to_string).unwrap_or_default(),
                    command.status.to_string(),
                    time(command.created_at),
                    command.error_message.clone().unwrap_or_default(),
                ]
            };
            let headings = ["COMMAND", "ACTION", "SESSION", "STATUS", "QUEUED", "ERROR"];
            let rows = list.iter().map(row).collect();
            output::list(as_json, &json!({"commands": list, "total": list.len()}), &headings, rows)
        }
        CommandVerb::Show { command } => {
            let command = services.agents.command(operator, command).await?;
            let session = command.session_id.as_ref().map(ToString::to_string).unwrap_or_default();
            let rows = [
                ("command", command.command_id.clone()),
                ("agent", command.agent_id.to_string()),
                ("action", command.action.to_string()),
                ("session", session),
                ("status", command.status.to_string()),
                ("queued", time(command.created_at)),
                ("sent", or_never(command.sent_at)),
                ("acknowledged", or_never(command.acknowledged_at)),
                ("finished", or_never(command.completed_at)),
                ("error", command.error_message.clone().unwrap_or_else(|| "none".into())),
            ];
            let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
            output::list(as_json, &command, &["", ""], rows)
        }
    }
}
