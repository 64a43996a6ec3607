//! What operators order of agents: keys, drains, whom they serve, their end; and what the platform does when such an
//! order is due.

use chrono::{DateTime, Utc};
use serde_json::json;
use tidegate_model::{
    Agent, AgentHandle, AgentId, ApprovalStatus, DrainRequest, FieldErrors, OrgId, PatchField, Secret,
    UpdateAgentRequest,
};
use tidegate_persistence::{
    AgentScope, Operator, PlatformTx, Reason,
    agent::{self, Drain, Held, KeyChange, Overdue},
    audit,
};

use crate::{
    Agents, Error, Links, Nudge, Result,
    agents::{audit as audit_in, named, new_key},
    all_sessions::find_org_in,
    error::Named,
    options::Options,
    secrets::Purpose,
};

/// Longest time that an old key stays good beside a new one, in seconds.
pub const LONGEST_OVERLAP: u32 = 7 * 86_400;

impl Agents {
    /// Gives an agent a new key, shown once. The old one is good for `overlap` seconds more, and until when is said, too;
    /// without an overlap it ends at once, with what it opened.
    pub async fn rotate_key(
        &self,
        operator: &Operator,
        handle: &AgentHandle,
        overlap: u32,
    ) -> Result<(Secret<String>, Option<DateTime<Utc>>)> {
        if overlap > LONGEST_OVERLAP {
            let complaint = format!("must not be more than {LONGEST_OVERLAP}, which are 7 days");
            return Err(Error::Invalid(FieldErrors::one("overlapSeconds", complaint)));
        }
        let (key, now) = (new_key()?, self.0.clock.now());
        let hash = self.0.vault.digest(Purpose::AgentKey, key.expose());
        let old_until = (overlap > 0).then(|| now + Options::seconds(overlap));
        let agent = self
            .0
            .db
            .in_platform(operator, async |tx| {
                let agent = approved_in(tx, handle).await?;
                agent::set_key(tx, agent.id, KeyChange { hash, old_until, now }).await?;
                let detail = old_until.map_or_else(|| json!({}), |until| json!({"oldKeyUntil": until}));
                audit_in(tx, "agent.rotate_key", handle, detail, now).await?;
                Ok::<_, Error>(agent::find(tx, handle).await?)
            })
            .await?;
        if old_until.is_none() {
            self.0.nudges.send(Nudge::Revoked(agent.id));
        }
        Ok((key, agent.old_key_until))
    }

    /// Takes an agent's keys, the old one of a rotation too. Its connection and its tunnels are cut at once; it comes
    /// back with a key of [`Agents::rotate_key`]. Its sessions run on.
    pub async fn revoke_key(&self, operator: &Operator, handle: &AgentHandle) -> Result<Agent> {
        let now = self.0.clock.now();
        let agent = self
            .0
            .db
            .in_platform(operator, async |tx| {
                let agent = approved_in(tx, handle).await?;
                agent::revoke_key(tx, agent.id, now).await?;
                audit_in(tx, "agent.revoke_key", handle, json!({}), now).await?;
                Ok::<_, Error>(agent::find(tx, handle).await?)
            })
            .await?;
        self.0.nudges.send(Nudge::Revoked(agent.id));
        Ok(agent)
    }

    /// Stops placing sessions on an agent, and waking them there. At the deadline, if there is one, what still runs is
    /// hibernated where it has a home and terminated where it has none. A repeat says the whole wish anew.
    pub async fn drain(
        &self,
        operator: &Operator,
        handle: &AgentHandle,
        request: DrainRequest,
    ) -> Result<Agent> {
        let now = self.0.clock.now();
        let deadline = request.deadline.map(|deadline| deadline.resolve(now)).transpose();
        let deadline =
            deadline.map_err(|complaint| Error::Invalid(FieldErrors::one("deadline", complaint)))?;
        let drain = Drain { deadline, reason: request.reason, now };
        self.0
            .db
            .in_platform(operator, async |tx| {
                let before = agent::find(tx, handle).await.named(named(handle))?.drain;
                agent::drain(tx, handle, drain).await.named(named(handle))?;
                let after = agent::find(tx, handle).await?;
                let detail = json!({"before": {"drain": before}, "after": {"drain": after.drain}});
                audit_in(tx, "agent.drain", handle, detail, now).await?;
                Ok(after)
            })
            .await
    }

    /// Places sessions on a drained agent again. What was hibernated or ended for the drain stays so.
    pub async fn undrain(&self, operator: &Operator, handle: &AgentHandle) -> Result<Agent> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_platform(operator, async |tx| {
                let before = agent::find(tx, handle).await.named(named(handle))?.drain;
                agent::undrain(tx, handle, now).await.named(named(handle))?;
                audit_in(tx, "agent.undrain", handle, json!({"before": {"drain": before}}), now).await?;
                Ok(agent::find(tx, handle).await?)
            })
            .await
    }

    /// Changes where an agent stands and whom it serves. It is not given to an organization while it holds sessions of
    /// others.
    pub async fn update(
        &self,
        operator: &Operator,
        handle: &AgentHandle,
        change: UpdateAgentRequest,
    ) -> Result<Agent> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_platform(operator, async |tx| {
                // Locked as whoever places a session does: what is counted below stays so.
                let id = agent::lock_any(tx, handle).await.named(named(handle))?;
                let before = agent::find(tx, handle).await?;
                match change.region {
                    PatchField::Absent => {}
                    PatchField::Clear => agent::set_region(tx, id, None, now).await?,
                    PatchField::Set(region) => agent::set_region(tx, id, Some(region), now).await?,
                }
                match change.organization {
                    PatchField::Absent => {}
                    PatchField::Clear => agent::assign(tx, id, None, now).await?,
                    PatchField::Set(wanted) => assign_in(tx, handle, id, &wanted, now).await?,
                }
                let after = agent::find(tx, handle).await?;
                let shown =
                    |agent: &Agent| json!({"region": agent.region, "organization": agent.organization});
                let detail = json!({"before": shown(&before), "after": shown(&after)});
                audit_in(tx, "agent.update", handle, detail, now).await?;
                Ok::<_, Error>(after)
            })
            .await
    }

    /// Removes an agent: its keys and what they opened end at once, and its name is free. While it holds sessions that is
    /// refused, unless by `force`: then they are terminated in the books, and its organizations' logs say so.
    pub async fn remove(&self, operator: &Operator, handle: &AgentHandle, force: bool) -> Result<()> {
        let now = self.0.clock.now();
        let id = self
            .0
            .db
            .in_platform(operator, async |tx| {
                let id = agent::lock_any(tx, handle).await.named(named(handle))?;
                let held = agent::held(tx, id, None).await?;
                if !force && held != (Held { active: 0, asleep: 0 }) {
                    return Err(busy(format!(
                        "agent {handle} holds {}: drain it and let them end, or remove it by force",
                        in_words(held)
                    )));
                }
                let reason = format!("agent {handle} was removed by an operator");
                let ended = agent::remove(tx, id, &reason, now).await?;
                let count: i64 = ended.iter().map(|(_, count)| count).sum();
                audit_in(tx, "agent.remove", handle, json!({"force": force, "sessionsEnded": count}), now)
                    .await?;
                for (org, count) in ended {
                    let detail = json!({"agent": handle, "sessionsEnded": count});
                    audit_about(tx, org, handle, detail, now).await?;
                }
                Ok::<_, Error>(id)
            })
            .await?;
        self.0.nudges.send(Nudge::Revoked(id));
        // What a crash would leave to the sweeper.
        Links(std::sync::Arc::clone(&self.0)).orders().await
    }
}

impl Links {
    /// Carries out what operators ordered and is due now: the end of drains, of overlaps of keys, of what removed agents
    /// held. Each step does nothing where another replica was faster.
    pub(crate) async fn orders(&self) -> Result<()> {
        let now = self.0.clock.now();
        let due = self.0.db.as_system(Reason::DueOrders, now).await?;
        for scope in due.each() {
            for id in scope.agents() {
                self.order(&scope, *id, now).await?;
            }
        }
        Ok(())
    }

    async fn order(&self, scope: &AgentScope, id: AgentId, now: DateTime<Utc>) -> Result<()> {
        let core = &self.0;
        let deadline = now + Options::seconds(core.options.stop_deadline_seconds);
        let (cut, asked, ended) = core
            .db
            .in_agents(scope, async |tx| {
                let cut = agent::end_overlap(tx, id, now).await?;
                let asked = agent::overrun(tx, Overdue { agent: id, deadline, now }).await?;
                let ended = agent::end_removed(tx, id, now).await?;
                Ok::<_, Error>((cut, asked, ended))
            })
            .await?;
        if cut {
            core.nudges.send(Nudge::Revoked(id));
        }
        if asked > 0 {
            tracing::info!(agent = %id, sessions = asked, "a drain is over: what still runs is hibernated or ended");
            core.nudges.send(Nudge::Commands(id));
        }
        for session in ended {
            core.nudges.send(Nudge::SessionEnded(session));
        }
        Ok(())
    }
}

async fn approved_in(tx: &mut PlatformTx, handle: &AgentHandle) -> Result<Agent> {
    let agent = agent::find(tx, handle).await.named(named(handle))?;
    if agent.approval_status == ApprovalStatus::Approved {
        return Ok(agent);
    }
    let message = format!("agent {handle} is {}, only an approved agent has a key", agent.approval_status);
    Err(Error::Conflict { code: "E_WRONG_STATE", message })
}

async fn assign_in(
    tx: &mut PlatformTx,
    handle: &AgentHandle,
    id: AgentId,
    wanted: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    let org = find_org_in(tx, wanted).await?;
    let held = agent::held(tx, id, Some(org)).await?;
    if held != (Held { active: 0, asleep: 0 }) {
        let held = in_words(held);
        return Err(busy(format!(
            "agent {handle} holds {held} of other organizations: drain it and let them end"
        )));
    }
    Ok(agent::assign(tx, id, Some(org), now).await?)
}

async fn audit_about(
    tx: &mut PlatformTx,
    org: OrgId,
    handle: &AgentHandle,
    detail: serde_json::Value,
    at: DateTime<Utc>,
) -> Result<()> {
    let resource = format!("agent:{handle}");
    let entry = audit::Entry { action: "agent.remove", resource, address: None, detail, at };
    Ok(audit::insert_platform_about(tx, org, entry).await?)
}

fn in_words(held: Held) -> String {
    let sessions = |count: i64| if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") };
    match held {
        Held { active, asleep: 0 } => sessions(active),
        Held { active, asleep } => format!("{}, {asleep} of them hibernated", sessions(active + asleep)),
    }
}

fn busy(message: String) -> Error {
    Error::Conflict { code: "E_AGENT_BUSY", message }
}
