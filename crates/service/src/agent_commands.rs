//! What operators tell agents themselves: commands of any kind, and what becomes of sessions that nobody here knows.

use serde_json::{Map, Value, json};
use tidegate_model::{
    AgentCommand, AgentCommandRequest, AgentHandle, ApprovalStatus, CommandAction, CommandId,
};
use tidegate_persistence::{
    Operator, PlatformTx, agent, audit,
    command::{self, OperatorCommand},
    quarantine, session,
};

use crate::{Agents, Error, Nudge, Result, agents::named, error::Named, options::Options};

/// What an operator wants done to a session that nobody here knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineDecision {
    /// Its agent is told to stop it.
    Stop,
    /// It is taken off the list, and comes back when its agent reports it again.
    Forget,
}

impl Agents {
    /// Queues a command for an agent, which gets it when it is connected. The session's state follows the agent's
    /// reports, and what the platform wants of it stays as it is.
    pub async fn order(
        &self,
        operator: &Operator,
        handle: &AgentHandle,
        request: AgentCommandRequest,
    ) -> Result<AgentCommand> {
        let (id, work) = (CommandId::new(), self.0.db.clone());
        let (agent, command) = work
            .in_platform(operator, async |tx| {
                let agent = known(tx, handle).await?;
                let AgentCommandRequest { action, session_id, payload } = request;
                let mut payload = payload.unwrap_or_default();
                let session = match session_id {
                    None => None,
                    Some(id) => {
                        let what = format_args!("session {id} on agent {handle}");
                        let (org, generation) = session::placed_on(tx, agent, id).await.named(what)?;
                        payload.insert("sessionId".into(), json!(id));
                        payload.entry("generation").or_insert_with(|| json!(generation));
                        Some((org, id, generation))
                    }
                };
                let command = self.queue_in(tx, agent, handle, id, (action, session, payload)).await?;
                Ok::<_, Error>((agent, command))
            })
            .await?;
        self.0.nudges.send(Nudge::Commands(agent));
        Ok(command)
    }

    /// Decides what becomes of a session in quarantine. One that is to be stopped stays listed until its agent has done
    /// so; the command is given, the one that is on its way already when it is asked for again.
    pub async fn decide_quarantined(
        &self,
        operator: &Operator,
        handle: &AgentHandle,
        session_id: &str,
        decision: QuarantineDecision,
    ) -> Result<Option<AgentCommand>> {
        let now = self.0.clock.now();
        let (agent, command) = self
            .0
            .db
            .in_platform(operator, async |tx| {
                let agent = agent::find(tx, handle).await.named(named(handle))?.id;
                if !quarantine::hold(tx, agent, session_id).await? {
                    let shown: String = session_id.chars().filter(|c| !c.is_control()).take(128).collect();
                    return Err(Error::not_found(format_args!(
                        "session {shown} in the quarantine of agent {handle}"
                    )));
                }
                if decision == QuarantineDecision::Forget {
                    quarantine::forget(tx, agent, session_id).await?;
                    let detail = json!({"sessionId": session_id});
                    let resource = format!("agent:{handle}");
                    let action = "agent.quarantine.forget";
                    let entry = audit::Entry { action, resource, address: None, detail, at: now };
                    audit::insert_platform(tx, entry).await?;
                    return Ok((agent, None));
                }
                if let Some(open) = command::open_stop_of_stranger(tx, agent, session_id).await? {
                    return Ok((agent, Some(command::find(tx, open).await?)));
                }
                known(tx, handle).await?;
                let payload = Map::from_iter([("sessionId".to_owned(), json!(session_id))]);
                let stop = (CommandAction::StopSession, None, payload);
                let command = self.queue_in(tx, agent, handle, CommandId::new(), stop).await?;
                Ok((agent, Some(command)))
            })
            .await?;
        if command.is_some() {
            self.0.nudges.send(Nudge::Commands(agent));
        }
        Ok(command)
    }

    async fn queue_in(
        &self,
        tx: &mut PlatformTx,
        agent: tidegate_model::AgentId,
        handle: &AgentHandle,
        id: CommandId,
        (action, session, payload): (CommandAction, command::Bound, Map<String, Value>),
    ) -> Result<AgentCommand> {
        let (now, options) = (self.0.clock.now(), &self.0.options);
        let seconds = match action {
            CommandAction::StartSession | CommandAction::WakeSession => options.start_deadline_seconds,
            CommandAction::StopSession | CommandAction::HibernateSession => options.stop_deadline_seconds,
        };
        let about = payload.get("sessionId").cloned();
        let new = OperatorCommand {
            id,
            agent_id: agent,
            agent_handle: handle.clone(),
            session,
            action,
            payload: Value::Object(payload),
            deadline: now + Options::seconds(seconds),
            now,
        };
        command::insert_for_operator(tx, new).await?;
        let entry = audit::Entry {
            action: "agent.command",
            resource: format!("agent:{handle}"),
            address: None,
            detail: json!({"commandId": id.to_wire(), "action": action, "sessionId": about}),
            at: now,
        };
        match session {
            // In that organization's own log, too.
            Some((org, ..)) => audit::insert_platform_about(tx, org, entry).await?,
            None => audit::insert_platform(tx, entry).await?,
        }
        Ok(command::find(tx, id).await?)
    }
}

/// The agent of this name, which must be one that may connect: no other would ever get a command.
async fn known(tx: &mut PlatformTx, handle: &AgentHandle) -> Result<tidegate_model::AgentId> {
    let agent = agent::find(tx, handle).await.named(named(handle))?;
    if agent.approval_status == ApprovalStatus::Approved {
        return Ok(agent.id);
    }
    let message =
        format!("agent {handle} is {}, only an approved agent takes commands", agent.approval_status);
    Err(Error::Conflict { code: "E_WRONG_STATE", message })
}
