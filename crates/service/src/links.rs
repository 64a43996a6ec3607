//! What the hub tells of live agents, and what it gets for them.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tidegate_model::{
    AgentHandle, AgentId, AgentStatusUpdate, CommandAction, CommandId, SessionId, SessionState,
};
use tidegate_persistence::{
    AgentScope, AgentTx, Reason, agent,
    command::{self, NewCommand},
    quarantine,
    session::{self, Moved, Placed},
};
use tidegate_protocol::{CommandMessage, HeartbeatMessage, HelloMessage};

use crate::{
    AgentIdentity, Core, Error, Nudge, Nudges, Result,
    homes::settle_in,
    options::Options,
    reports::{self, Mismatch, Said, Strangers},
};

/// What the hub tells of live agents.
#[derive(Debug, Clone)]
pub struct Links(pub(crate) Arc<Core>);

/// One live connection of an agent. Its epoch is its fence: once a newer one was opened, it can change nothing.
#[derive(Debug)]
pub struct Link {
    scope: AgentScope,
    agent_id: AgentId,
    handle: AgentHandle,
    epoch: i64,
}

impl Link {
    /// The agent.
    pub fn agent_id(&self) -> AgentId {
        self.agent_id
    }

    /// Its name.
    pub fn handle(&self) -> &AgentHandle {
        &self.handle
    }

    /// The fence.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

/// A command to write to a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbound {
    /// Whose it is.
    pub agent_id: AgentId,
    /// The connection it was claimed for.
    pub epoch: i64,
    /// The command.
    pub command: CommandMessage,
}

/// One thing an agent said, with the connection it said it over.
#[derive(Debug, Clone)]
pub struct Report {
    /// The connection.
    pub link: Arc<Link>,
    /// What it said.
    pub kind: ReportKind,
}

/// What an agent said.
#[derive(Debug, Clone, PartialEq)]
pub enum ReportKind {
    /// A heartbeat.
    Heartbeat(HeartbeatMessage),
    /// A sign of life without more.
    Alive,
    /// It has a command.
    Ack(CommandId),
    /// It carried a command out.
    Complete {
        /// The command.
        command: CommandId,
        /// What came of it.
        result: Option<Map<String, Value>>,
    },
    /// It could not carry a command out.
    Failed {
        /// The command.
        command: CommandId,
        /// Why, for people.
        error: String,
    },
    /// A session changed.
    Status(AgentStatusUpdate),
    /// It runs something whose id cannot be one of ours.
    UnknownSession {
        /// The id it gave.
        session_id: String,
        /// The state it gave.
        state: SessionState,
    },
}

/// What a batch changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Reports that changed a row or repeated what is there.
    pub applied: usize,
    /// Reports of older connections, foreign commands and sessions, and repeats of final outcomes.
    pub ignored: usize,
}

/// What a batch did.
struct Written {
    applied: usize,
    moved: Vec<Moved>,
    /// Agents that were asked for something.
    stopped: Vec<AgentId>,
}

impl Links {
    /// Opens a connection: raises the fence. From here on nothing an older connection says counts.
    pub async fn open(&self, identity: &AgentIdentity, connection: &str) -> Result<Link> {
        let now = self.0.clock.now();
        let (scope, id) = (identity.scope.clone(), identity.id);
        let epoch = self
            .0
            .db
            .in_agents(&scope, async |tx| agent::connect(tx, id, &identity.key_hash, connection, now).await)
            .await?;
        self.0.nudges.change();
        Ok(Link { scope, agent_id: id, handle: identity.handle.clone(), epoch })
    }

    /// Takes an agent's inventory: it wins for what exists, the database for what is wanted.
    pub async fn hello(&self, link: &Link, hello: &HelloMessage) -> Result<()> {
        let core = &self.0;
        let boot: String = hello.boot_id.chars().filter(|c| !c.is_control()).take(100).collect();
        let (queued, moved) = core
            .db
            .in_agents(&link.scope, async |tx| {
                if !agent::set_boot(tx, link.agent_id, link.epoch, &boot).await? {
                    return Ok((0, Vec::new()));
                }
                self.reconcile_in(tx, link, hello).await
            })
            .await?;
        self.tell(&moved);
        if queued > 0 {
            core.nudges.send(Nudge::Commands(link.agent_id));
        }
        Ok(())
    }

    async fn reconcile_in(
        &self,
        tx: &mut AgentTx,
        link: &Link,
        hello: &HelloMessage,
    ) -> Result<(usize, Vec<Moved>)> {
        let now = self.0.clock.now();
        let read = |text: &str| text.parse::<SessionId>().ok();
        let named: Vec<SessionId> =
            hello.sessions.iter().filter_map(|session| read(&session.session_id)).collect();
        let placed = session::placed(tx, link.agent_id, named).await?;
        let inventory = reports::Inventory::compare(&placed, hello);
        let mut moved = Vec::new();
        for round in reports::rounds(inventory.moves(link.agent_id, link.epoch)) {
            moved.extend(session::apply(tx, round, now).await?);
        }
        if !inventory.unknown.is_empty() {
            tracing::warn!(agent = %link.handle, count = inventory.unknown.len(), "agent runs sessions nobody knows: quarantined");
            quarantine::upsert(tx, link.agent_id, &inventory.unknown, now).await?;
        }
        self.ask_in(tx, link, &inventory.unwanted).await?;
        Ok((inventory.unwanted.len(), moved))
    }

    /// Asks an agent to stop or hibernate what runs and should not.
    async fn ask_in(
        &self,
        tx: &mut AgentTx,
        link: &Link,
        unwanted: &[(Placed, CommandAction)],
    ) -> Result<()> {
        let now = self.0.clock.now();
        for (placed, action) in unwanted {
            let new = NewCommand {
                id: CommandId::new(),
                agent_id: link.agent_id,
                agent_handle: link.handle.clone(),
                session_id: placed.id,
                generation: placed.generation,
                action: *action,
                payload: json!({"sessionId": placed.id, "generation": placed.generation}),
                sealed: None,
                deadline: now + Options::seconds(self.0.options.stop_deadline_seconds),
                now,
            };
            command::insert_for_agent(tx, placed.org_id, new).await?;
        }
        Ok(())
    }

    /// Closes a connection; the agent is offline only if no newer one was opened.
    pub async fn close(&self, link: &Link) -> Result<()> {
        let (id, epoch) = (link.agent_id, link.epoch);
        self.0.db.in_agents(&link.scope, async |tx| agent::disconnect(tx, id, epoch).await).await?;
        self.0.nudges.change();
        Ok(())
    }

    /// Claims, in one statement, the commands that these connections have not been written yet, in order.
    pub async fn claim(&self, links: &[Arc<Link>], limit: usize) -> Result<Vec<Outbound>> {
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let core = &self.0;
        let now = core.clock.now();
        let resend = now - Options::seconds(core.options.resend_seconds);
        let connections: Vec<(AgentId, i64)> = links.iter().map(|link| (link.agent_id, link.epoch)).collect();
        let scope = AgentScope::union(links.iter().map(|link| &link.scope));
        // A claim that a power cut takes back is a command that is still pending: it is sent again, and the
        // agent's journal answers the repeat.
        let claimed = core
            .db
            .in_agents_unflushed(&scope, async |tx| {
                command::claim(tx, &connections, limit, resend, now).await
            })
            .await?;
        let (mut outbound, mut broken) = (Vec::with_capacity(claimed.len()), Vec::new());
        for claimed in claimed {
            let (id, agent, epoch) = (claimed.id, claimed.agent_id, claimed.epoch);
            match self.outbound(claimed) {
                Ok(command) => outbound.push(command),
                Err(error) => {
                    tracing::error!(command = %id, error = %error, "a command cannot be sent and fails");
                    let reason =
                        "its environment cannot be opened: this is not the master key it was sealed with";
                    broken.push(command::Outcome { id, agent, epoch, result: Err(reason.to_owned()) });
                }
            }
        }
        self.fail(&scope, broken).await?;
        Ok(outbound)
    }

    /// Fails commands that cannot be sent, alone: the others of their batch go out.
    async fn fail(&self, scope: &AgentScope, broken: Vec<command::Outcome>) -> Result<()> {
        if broken.is_empty() {
            return Ok(());
        }
        let now = self.0.clock.now();
        let moved = self
            .0
            .db
            .in_agents(scope, async |tx| {
                let (_, finished) = command::settle(tx, &[], broken, now).await?;
                settle_in(tx, &finished).await?;
                let mut moved = Vec::new();
                for round in reports::rounds(finished.iter().filter_map(reports::move_of).collect()) {
                    moved.extend(session::apply(tx, round, now).await?);
                }
                Ok::<_, Error>(moved)
            })
            .await?;
        self.tell(&moved);
        Ok(())
    }

    fn outbound(&self, claimed: command::Claimed) -> Result<Outbound> {
        let mut payload = match claimed.payload {
            Value::Object(payload) => payload,
            _ => Map::new(),
        };
        if let Some((sealed, session)) = claimed.sealed.zip(claimed.session_id) {
            let plain = self.0.vault.open(session.as_uuid().as_bytes(), &sealed)?;
            payload.insert("environment".into(), serde_json::from_slice(&plain).map_err(Error::internal)?);
        }
        let command = CommandMessage { command_id: claimed.id.to_wire(), action: claimed.action, payload };
        Ok(Outbound { agent_id: claimed.agent_id, epoch: claimed.epoch, command })
    }

    /// Takes a batch of reports in one transaction. The order of one agent's reports is kept.
    pub async fn ingest(&self, batch: Vec<Report>) -> Result<Ingested> {
        if batch.is_empty() {
            return Ok(Ingested::default());
        }
        let core = &self.0;
        let (now, total) = (core.clock.now(), batch.len());
        let scope = AgentScope::union(batch.iter().map(|report| &report.link.scope));
        let sorted = reports::Sorted::new(batch);
        let stamps = sorted.is_stamps();
        let written = if stamps {
            core.db.in_agents_unflushed(&scope, async |tx| self.write_in(tx, sorted, now).await).await
        } else {
            core.db.in_agents(&scope, async |tx| self.write_in(tx, sorted, now).await).await
        };
        let Written { applied, moved, stopped } = written?;
        self.tell(&moved);
        if !stamps {
            core.nudges.change();
        }
        for agent in stopped {
            core.nudges.send(Nudge::Commands(agent));
        }
        Ok(Ingested { applied: applied.min(total), ignored: total.saturating_sub(applied) })
    }

    async fn write_in(
        &self,
        tx: &mut AgentTx,
        sorted: reports::Sorted,
        now: DateTime<Utc>,
    ) -> Result<Written> {
        let mut applied = sorted.merged;
        applied += agent::heartbeats(tx, sorted.heartbeats, now).await?;
        let (acknowledged, finished) = command::settle(tx, &sorted.acks, sorted.outcomes, now).await?;
        settle_in(tx, &finished).await?;
        applied += acknowledged + finished.len();
        let (mut moved, mut seen) = (Vec::new(), HashSet::new());
        // Together, so that the first round locks every session of the batch, in one order.
        let asked = finished.iter().filter_map(reports::move_of).chain(sorted.moves).collect();
        for round in reports::rounds(asked) {
            // What a command means for its session needs no fence: the rest was said in statuses.
            let said: HashSet<SessionId> =
                round.iter().filter(|change| change.epoch.is_some()).map(|change| change.id).collect();
            let changed = session::apply(tx, round, now).await?;
            seen.extend(changed.iter().map(|moved| moved.id).filter(|id| said.contains(id)));
            moved.extend(changed);
        }
        applied += sorted.statuses.iter().filter(|said| seen.contains(&said.id)).count();
        let mut strangers = sorted.unknown;
        let stopped = self.question_in(tx, &sorted.statuses, &seen, &mut strangers).await?;
        for (agent, unknown) in strangers {
            let (ended, live): (Vec<_>, Vec<_>) =
                unknown.into_iter().partition(|(_, state)| state.is_final());
            if !live.is_empty() {
                quarantine::upsert(tx, agent, &live, now).await?;
            }
            if !ended.is_empty() {
                quarantine::ended(tx, agent, ended.into_iter().map(|(id, _)| id).collect()).await?;
            }
        }
        let of_strangers = finished.iter().filter(|done| done.has_stopped() && done.session_id.is_none());
        let of_strangers: Vec<CommandId> = of_strangers.map(|done| done.id).collect();
        if !of_strangers.is_empty() {
            quarantine::stopped(tx, of_strangers).await?;
        }
        Ok(Written { applied, moved, stopped })
    }

    /// Looks at reports of sessions that did not fit: what runs and should not is stopped or hibernated, what sleeps
    /// already is taken note of, what nobody knows is quarantined. Returns the agents that were asked for something.
    async fn question_in(
        &self,
        tx: &mut AgentTx,
        statuses: &[Said],
        seen: &HashSet<SessionId>,
        strangers: &mut Strangers,
    ) -> Result<Vec<AgentId>> {
        let now = self.0.clock.now();
        let mut asked = Vec::new();
        for said in statuses.iter().filter(|said| !said.state.is_final() && !seen.contains(&said.id)) {
            let link = &said.link;
            // An older connection may not even ask for a stop.
            if agent::current(tx, &[(link.agent_id, link.epoch)]).await?.is_empty() {
                continue;
            }
            let placed = session::placed(tx, link.agent_id, vec![said.id]).await?;
            let Some(placed) = placed.into_iter().find(|placed| placed.id == said.id) else {
                strangers.entry(link.agent_id).or_default().insert(said.id.to_string(), said.state);
                continue;
            };
            match said.mismatch(&placed) {
                Mismatch::Ask(action) => {
                    self.ask_in(tx, link, &[(placed, action)]).await?;
                    asked.push(link.agent_id);
                }
                Mismatch::Asleep => {
                    for step in reports::asleep(link.agent_id, link.epoch, &placed) {
                        session::apply(tx, vec![step], now).await?;
                    }
                }
                Mismatch::None => {}
            }
        }
        Ok(asked)
    }

    /// Of these connections, those that can change nothing any more: superseded, or their agent not approved.
    pub async fn stale(&self, links: &[Arc<Link>]) -> Result<Vec<(AgentId, i64)>> {
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let connections: Vec<(AgentId, i64)> = links.iter().map(|link| (link.agent_id, link.epoch)).collect();
        let scope = AgentScope::union(links.iter().map(|link| &link.scope));
        let current: HashSet<(AgentId, i64)> = self
            .0
            .db
            .in_agents(&scope, async |tx| agent::current(tx, &connections).await)
            .await?
            .into_iter()
            .collect();
        Ok(connections.into_iter().filter(|connection| !current.contains(connection)).collect())
    }

    /// What must happen without anybody asking: silent agents are offline, overdue commands fail, operators' orders that
    /// are due are carried out, stuck sessions heal.
    pub async fn sweep(&self) -> Result<()> {
        let core = &self.0;
        let now = core.clock.now();
        let heard_before = now - core.options.silence();
        let silent = core.db.as_system(Reason::SilentAgents, heard_before).await?;
        for scope in silent.each() {
            for agent in scope.agents() {
                core.db.in_agents(&scope, async |tx| agent::expire(tx, *agent, heard_before).await).await?;
            }
        }
        let overdue = core.db.as_system(Reason::OverdueCommands, now).await?;
        if !overdue.agents().is_empty() {
            let moved = core
                .db
                .in_agents(&overdue, async |tx| {
                    let failed = command::expire(tx, overdue.agents(), now).await?;
                    tracing::warn!(count = failed.len(), "commands failed at their deadline");
                    settle_in(tx, &failed).await?;
                    let mut moved = Vec::new();
                    for round in reports::rounds(failed.iter().filter_map(reports::move_of).collect()) {
                        moved.extend(
                            session::apply(tx, round.into_iter().map(reports::by_platform).collect(), now)
                                .await?,
                        );
                    }
                    Ok::<_, Error>(moved)
                })
                .await?;
            self.tell(&moved);
        }
        self.orders().await?;
        self.heal().await
    }

    async fn heal(&self) -> Result<()> {
        let core = &self.0;
        let now = core.clock.now();
        let before = now - Options::seconds(core.options.heal_seconds);
        let scope = core.db.as_system(Reason::StuckSessions, before).await?;
        if scope.agents().is_empty() {
            return Ok(());
        }
        let moved = core
            .db
            .in_agents(&scope, async |tx| {
                let stuck = session::stuck(tx, scope.agents(), before).await?;
                session::apply(tx, stuck.into_iter().map(reports::heal).collect(), now).await
            })
            .await?;
        if !moved.is_empty() {
            tracing::warn!(count = moved.len(), "sessions that waited for no command any more were healed");
        }
        self.tell(&moved);
        Ok(())
    }

    /// After-commit hints.
    pub fn nudges(&self) -> tokio::sync::broadcast::Receiver<Nudge> {
        let nudges: &Nudges = &self.0.nudges;
        nudges.subscribe()
    }

    fn tell(&self, moved: &[Moved]) {
        if !moved.is_empty() {
            self.0.nudges.change();
        }
        for moved in moved.iter().filter(|moved| moved.state.is_final()) {
            self.0.nudges.send(Nudge::SessionEnded(moved.id));
        }
    }
}
