//! What the verbs about agents do.

use chrono::{DateTime, Utc};
use serde_json::json;
use tidegate_model::{Agent, DrainRequest, PatchField, Secret, UpdateAgentRequest};
use tidegate_service::{AgentFilter, Decision, Operator, Services};

use crate::{agent_commands, args::AgentVerb, output};

pub(crate) async fn agents(
    services: &Services,
    operator: &Operator,
    verb: AgentVerb,
    as_json: bool,
) -> anyhow::Result<()> {
    let agents = &services.agents;
    match verb {
        AgentVerb::List { platform, status, region, approval, organization } => {
            let filter = AgentFilter { platform, status, region, approval, organization };
            list(&agents.list(operator, filter).await?, as_json)
        }
        AgentVerb::Show { agent } => show(&agents.get(operator, &agent).await?, as_json),
        AgentVerb::Approve { agent, show_key } => {
            let (row, key) = agents.decide(operator, &agent, Decision::Approve, show_key).await?;
            let key = key.map(Secret::into_inner);
            let shown =
                key.as_ref().map(|key| format!("; its key, shown this once: {key}")).unwrap_or_default();
            let sentence = format!("agent {agent} may connect{shown}");
            output::said(as_json, &json!({"agent": row, "apiKey": key}), &sentence)
        }
        AgentVerb::Reject { agent } => {
            let (row, _) = agents.decide(operator, &agent, Decision::Reject, false).await?;
            output::said(as_json, &json!({"agent": row}), &format!("agent {agent} may not connect"))
        }
        AgentVerb::RotateKey { agent, overlap_seconds } => {
            let (key, until) = agents.rotate_key(operator, &agent, overlap_seconds).await?;
            let key = key.into_inner();
            let old = until.map_or_else(
                || "the old one is good for nothing any more".to_owned(),
                |until| format!("the old one is good until {}", time(until)),
            );
            let sentence = format!("the new key of agent {agent}, shown this once: {key}\n{old}");
            output::said(as_json, &json!({"apiKey": key, "oldKeyUntil": until}), &sentence)
        }
        AgentVerb::RevokeKey { agent } => {
            let row = agents.revoke_key(operator, &agent).await?;
            let sentence =
                format!("agent {agent} has no key and is cut off; `agents rotate-key` gives it one");
            output::said(as_json, &json!({"agent": row}), &sentence)
        }
        AgentVerb::Drain { agent, deadline, reason } => {
            let row = agents.drain(operator, &agent, DrainRequest { deadline, reason }).await?;
            let end = row.drain.as_ref().and_then(|drain| drain.deadline).map(|at| {
                format!("; what still runs at {} is hibernated, or terminated without a home", time(at))
            });
            let sentence = format!("agent {agent} gets no sessions{}", end.unwrap_or_default());
            output::said(as_json, &json!({"agent": row}), &sentence)
        }
        AgentVerb::Undrain { agent } => {
            let row = agents.undrain(operator, &agent).await?;
            output::said(as_json, &json!({"agent": row}), &format!("agent {agent} gets sessions again"))
        }
        AgentVerb::Assign { agent, organization, shared: _ } => {
            let organization = organization.map_or(PatchField::Clear, PatchField::Set);
            let change = UpdateAgentRequest { organization, ..UpdateAgentRequest::default() };
            let row = agents.update(operator, &agent, change).await?;
            let whom = row.organization.as_ref().map(|name| format!("organization {name} alone"));
            let sentence = format!("agent {agent} serves {}", whom.as_deref().unwrap_or("all organizations"));
            output::said(as_json, &json!({"agent": row}), &sentence)
        }
        AgentVerb::Remove { agent, force } => {
            agents.remove(operator, &agent, force).await?;
            output::said(as_json, &json!({"removed": agent}), &format!("agent {agent} is removed"))
        }
        AgentVerb::Command { agent, action, session, payload } => {
            agent_commands::order(services, operator, &agent, (action, session, payload), as_json).await
        }
        AgentVerb::Quarantine { verb } => agent_commands::quarantine(services, operator, verb, as_json).await,
    }
}

fn list(list: &[Agent], as_json: bool) -> anyhow::Result<()> {
    let row = |agent: &Agent| {
        let capacity = agent.capacity.as_ref().map_or(0, |capacity| capacity.max_sessions);
        vec![
            agent.agent_id.to_string(),
            agent.platform.to_string(),
            agent.region.clone().unwrap_or_default(),
            agent.organization.clone().unwrap_or_else(|| "all".into()),
            agent.approval_status.to_string(),
            agent.status.to_string(),
            format!("{} of {capacity}", agent.active_sessions),
            or_never(agent.last_heartbeat),
            or_never(agent.key_last_used_at),
        ]
    };
    let headings =
        ["AGENT", "PLATFORM", "REGION", "SERVES", "APPROVAL", "STATUS", "SESSIONS", "LAST HEARD", "KEY USED"];
    let rows = list.iter().map(row).collect();
    output::list(as_json, &json!({"agents": list, "total": list.len()}), &headings, rows)
}

fn show(agent: &Agent, as_json: bool) -> anyhow::Result<()> {
    let capacity = agent.capacity.clone().unwrap_or_default();
    let unknown = |text: String| if text.is_empty() { "unknown".to_owned() } else { text };
    let mut rows = vec![
        ("agent", agent.agent_id.to_string()),
        ("platform", agent.platform.to_string()),
        ("region", agent.region.clone().unwrap_or_else(|| "none".into())),
        ("serves", agent.organization.clone().unwrap_or_else(|| "all organizations".into())),
        ("approval", agent.approval_status.to_string()),
        ("status", agent.status.to_string()),
        ("sessions", format!("{} of {}", agent.active_sessions, capacity.max_sessions)),
        ("cpu", unknown(capacity.cpu)),
        ("memory", unknown(capacity.memory)),
        ("last heard", or_never(agent.last_heartbeat)),
        ("key made", or_never(agent.key_created_at)),
        ("key used", or_never(agent.key_last_used_at)),
    ];
    rows.extend(agent.old_key_until.map(|until| ("old key until", time(until))));
    if let Some(drain) = &agent.drain {
        rows.push(("drained since", or_never(drain.since)));
        rows.push(("drain ends", or_never(drain.deadline)));
        rows.push(("drained for", drain.reason.clone().unwrap_or_else(|| "no reason given".into())));
    }
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    output::list(as_json, agent, &["", ""], rows)
}

/// A time as people read it.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.format("%F %T UTC").to_string()
}

/// The same, or that it never was.
pub(crate) fn or_never(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "never".into(), time)
}
