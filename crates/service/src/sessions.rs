//! Sessions of an organization: each change writes its command in the same transaction.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    AgentId, CommandAction, CommandId, CreateSessionCommand, FieldErrors, Granted, NewSession, Operation,
    OrgStatus, Session, SessionEvent, SessionFilter, SessionId, SessionState, SharedWith, StreamMode, Usage,
};
use tidegate_persistence::{
    Constraint, Error as DbError, OrgScope, OrgTx, agent, audit,
    command::{self, NewCommand},
    organization::Locked,
    session::{self, Advance, NewRow, Options as SpecOptions, Page, Spec, Whose},
    share, terminal_source,
};

use crate::{
    Core, Error, Idempotency, Listed, Nudge, Paging, Plugins, Replay, Result,
    error::Named,
    launch::{self, Blueprint, Plan},
    limits::{self, GrantedLimits},
    options::Options,
    page::moment,
    permissions::{may, standing},
    placement, room,
};

/// Sessions of an organization.
#[derive(Debug, Clone)]
pub struct Sessions(pub(crate) Arc<Core>);

/// What a request changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// The session with the command that was queued for it.
    Queued(Session, CommandId),
    /// It was so already: nothing was queued.
    Already(Session),
    /// The kept answer to an earlier request with the same key.
    Replay(Replay),
}

/// Whether the plugins were asked that may keep a session from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    NotYet,
    Already,
}

impl Sessions {
    /// Asks for a session: checks, places, and queues its start, all in one transaction.
    /// The answer's body, which repeats with the same key get again, is made by `answer`.
    pub async fn create(
        &self,
        scope: &OrgScope,
        new: NewSession,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&Session, CommandId) -> Value + Send + Sync,
    ) -> Result<Changed> {
        let mut made = self.try_create(scope, &new, idempotency, &answer, Asked::NotYet).await;
        if matches!(&made, Err(Error::AskPlugins)) {
            // With no transaction open: they take their time. A repeat is answered without them.
            Plugins(Arc::clone(&self.0)).may_start(scope, &new).await?;
            made = self.try_create(scope, &new, idempotency, &answer, Asked::Already).await;
        }
        // A racer with the same key won while this one worked: its answer is there now.
        if matches!(&made, Err(Error::Conflict { code: "E_IDEMPOTENCY_RUNNING", .. }))
            && let Some(key) = idempotency
        {
            let now = self.0.clock.now();
            let kept = self.0.db.in_org(scope, async |tx| key.find_in(tx, now).await).await?;
            return kept
                .map(Changed::Replay)
                .ok_or_else(|| DbError::Violation(Constraint::IdempotencyKey).into());
        }
        if let Ok(Changed::Queued(session, _)) = &made {
            tracing::info!(session = %session.id, org = %session.org_id, "session asked for");
        }
        made
    }

    async fn try_create(
        &self,
        scope: &OrgScope,
        new: &NewSession,
        idempotency: Option<&Idempotency>,
        answer: &(impl Fn(&Session, CommandId) -> Value + Send + Sync),
        plugins: Asked,
    ) -> Result<Changed> {
        let core = &self.0;
        let plan = match launch::plan(core, scope, new).await {
            Ok(plan) => plan,
            // The template may not be offered any more that the first request named.
            Err(error) => {
                return Idempotency::replay_or(idempotency, core, scope, error).await.map(Changed::Replay);
            }
        };
        let now = core.clock.now();
        let mut placed_on = None;
        let placed = &mut placed_on;
        let changed = core
            .db
            .in_org_bounded(scope, room::default_bounds(core), async |tx, opened| {
                let (locked, bounds) = opened.named("organization")?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(Changed::Replay(replay));
                }
                may_start(scope, &locked)?;
                if locked.asks_plugins && plugins == Asked::NotYet {
                    return Err(Error::AskPlugins);
                }
                // Under the organization's lock: who may launch an application, and whether it is there, is as it is now.
                let blueprint = match &plan {
                    Plan::Ready(blueprint) => blueprint.as_ref().clone(),
                    Plan::Of(id) => launch::of_application_in(tx, scope, &locked, *id, new).await?,
                };
                let wanted = blueprint.resources;
                let limits = limits::grant(core, &locked, new, blueprint.suggested)?;
                let bounds = room::resolve(core, bounds);
                let room = room::find_in(tx, &bounds, scope.user_id(), Usage::of_session(wanted)).await?;
                let (platform, region) = (blueprint.platform, new.region.as_deref());
                let place = placement::wanted(core, platform, region, wanted, now);
                let agent = match room {
                    room::Room::Anywhere => placement::place_in(tx, &place).await?,
                    room::Room::At(homes) => placement::place_at(tx, &homes, &place).await?,
                };
                let row = new_row(scope, new, &blueprint, &agent, limits, now);
                let session = row.session()?;
                let spec = self.spec(&session, blueprint)?;
                let start = Some((&spec, &locked));
                let command = self.command(&session, agent.id, CommandAction::StartSession, start, now)?;
                let id = command.id;
                let line = line("session.start", session.id, json!({"after": shown(&session)}), now);
                session::start(tx, &row, &spec, command, line).await?;
                if let Some(key) = idempotency {
                    key.keep_in(tx, 202, answer(&session, id), now).await?;
                }
                *placed = Some(agent.id);
                Ok::<_, Error>(Changed::Queued(session, id))
            })
            .await?;
        if let Some(agent) = placed_on {
            core.nudges.send(Nudge::Commands(agent));
        }
        Ok(changed)
    }

    /// One session that the caller may see: their own, one that is shared with them, and any for those who manage
    /// sessions.
    pub async fn get(&self, scope: &OrgScope, id: SessionId) -> Result<Session> {
        self.0.db.in_org(scope, async |tx| Ok(seen_in(&self.0, tx, scope, id).await?.0)).await
    }

    /// Sessions the caller may see: the organization's for its managers, else their own and those shared with them. Where
    /// the filter says so, those that are shared with them alone.
    pub async fn list(
        &self,
        scope: &OrgScope,
        filter: SessionFilter,
        paging: &Paging,
    ) -> Result<Listed<Session>> {
        let (user, now) = (scope.user_id(), self.0.clock.now());
        let whose = match filter.shared {
            true => Whose::SharedWith(user, now),
            false if may(scope, Operation::ManageSessions) => Whose::Everybodys,
            false => Whose::OfAndSharedWith(user, now),
        };
        let (limit, before) = (paging.rows(), paging.after_moment()?);
        let page = Page { filter, whose, limit, before };
        let (sessions, total) = self
            .0
            .db
            .in_org(scope, async |tx| {
                let (mut sessions, total) = session::list(tx, &page).await?;
                mark_shared_in(&self.0, tx, scope, &mut sessions).await?;
                mark_recorded_in(tx, &mut sessions).await?;
                Ok::<_, Error>((sessions, total))
            })
            .await?;
        Ok(paging.page(sessions, total, newest))
    }

    /// A session's history, oldest first.
    pub async fn history(&self, scope: &OrgScope, id: SessionId) -> Result<Vec<SessionEvent>> {
        self.0
            .db
            .in_org(scope, async |tx| {
                seen_in(&self.0, tx, scope, id).await?;
                Ok(session::history(tx, id).await?)
            })
            .await
    }

    /// Stops the processes and keeps the home.
    pub async fn hibernate(&self, scope: &OrgScope, id: SessionId) -> Result<Changed> {
        self.change(
            scope,
            id,
            SessionState::Hibernating,
            SessionState::Hibernated,
            CommandAction::HibernateSession,
        )
        .await
    }

    /// Starts a hibernated session again, if its agent has room.
    pub async fn wake(&self, scope: &OrgScope, id: SessionId) -> Result<Changed> {
        self.change(scope, id, SessionState::Waking, SessionState::Running, CommandAction::WakeSession).await
    }

    /// Ends a session. Legal in every state; a failed one is cleaned up and not shown any more.
    pub async fn terminate(&self, scope: &OrgScope, id: SessionId) -> Result<Changed> {
        self.change(
            scope,
            id,
            SessionState::Terminating,
            SessionState::Terminated,
            CommandAction::StopSession,
        )
        .await
    }

    /// Replaces a session's tags.
    pub async fn set_tags(&self, scope: &OrgScope, id: SessionId, tags: Vec<String>) -> Result<Session> {
        let fits =
            |tag: &String| (1..=64).contains(&tag.chars().count()) && !tag.chars().any(char::is_control);
        if tags.len() > 32 || !tags.iter().all(fits) {
            return Err(Error::Invalid(FieldErrors::one(
                "tags",
                "must be at most 32 texts of 1 to 64 characters",
            )));
        }
        let now = self.0.clock.now();
        self.0
            .db
            .in_org(scope, async |tx| {
                let before = visible_in(&self.0, tx, scope, id).await?;
                session::set_tags(tx, id, tags).await?;
                let after = session::find(tx, id).await?;
                let detail = json!({"before": {"tags": before.tags}, "after": {"tags": after.tags}});
                audit::insert_org(tx, line("session.tags", id, detail, now)).await?;
                Ok(after)
            })
            .await
    }

    async fn change(
        &self,
        scope: &OrgScope,
        id: SessionId,
        to: SessionState,
        done: SessionState,
        action: CommandAction,
    ) -> Result<Changed> {
        let core = &self.0;
        let now = core.clock.now();
        let mut nudge = None;
        let nudged = &mut nudge;
        let changed = core
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                let mut session = changeable_in(core, tx, scope, id, to).await?;
                let agent = session::placement(tx, id).await?;
                let starts = to == SessionState::Waking;
                let reason = Some(format!("asked for by {}", scope.username()));
                let advance = Advance { id, to, reason, starts, now };
                let mut moved = None;
                // An agent's report may come in between, and make legal what was not a moment ago.
                for again in [true, false] {
                    if session.state.may_become(to) {
                        if starts {
                            may_start(scope, &locked)?;
                            room::to_wake_in(core, tx, &session).await?;
                            if let Some(agent) = agent {
                                let place =
                                    placement::wanted(core, session.platform, None, session.resources, now);
                                placement::wake_at(tx, agent, &place).await?;
                            }
                        }
                        moved = session::advance(tx, advance.clone()).await?;
                    }
                    if moved.is_some() || !again {
                        break;
                    }
                    session = changeable_in(core, tx, scope, id, to).await?;
                }
                let Some(moved) = moved else { return self.not_moved_in(tx, scope, id, to, done).await };
                let spec = if starts { Some(session::find_spec(tx, id).await?) } else { None };
                let with = spec.as_ref().map(|spec| (spec, &locked));
                let change = (session.state, &moved);
                let (command, agent) = self.queue_in(tx, change, agent, action, with, now).await?;
                *nudged = Some(agent);
                let Session { shared, terminal_source, .. } = session;
                let moved = Session { shared, terminal_source, ..moved };
                Ok::<_, Error>(Changed::Queued(moved, command))
            })
            .await?;
        if let Some(agent) = nudge {
            core.nudges.send(Nudge::Commands(agent));
        }
        Ok(changed)
    }

    /// Queues what a session that was moved on needs, with a line in the log: whoever moved it, a person or its limits.
    pub(crate) async fn queue_in(
        &self,
        tx: &mut OrgTx,
        (before, moved): (SessionState, &Session),
        agent: Option<AgentId>,
        action: CommandAction,
        start: Option<(&Spec, &Locked)>,
        now: DateTime<Utc>,
    ) -> Result<(CommandId, AgentId)> {
        audit_in(tx, (before, moved), action, now).await?;
        let agent = agent.ok_or_else(|| Error::internal("a live session has no agent"))?;
        let command = self.command(moved, agent, action, start, now)?;
        let id = command.id;
        command::insert(tx, command).await?;
        Ok((id, agent))
    }

    /// Why a session did not move: it is so already, is being cleaned up, or is in a state that does not allow it.
    async fn not_moved_in(
        &self,
        tx: &mut OrgTx,
        scope: &OrgScope,
        id: SessionId,
        to: SessionState,
        done: SessionState,
    ) -> Result<Changed> {
        let session = changeable_in(&self.0, tx, scope, id, to).await?;
        if session.state == to || session.state == done {
            return Ok(Changed::Already(session));
        }
        if to == SessionState::Terminating && session.state == SessionState::Failed {
            let now = self.0.clock.now();
            if session::hide(tx, id, now).await? {
                let detail = json!({"before": {"state": session.state}});
                audit::insert_org(tx, line("session.clean_up", id, detail, now)).await?;
            }
            return Ok(Changed::Already(session));
        }
        Err(Error::WrongState { id, state: session.state })
    }

    /// Seals what a start needs beyond the row.
    fn spec(&self, session: &Session, blueprint: Blueprint) -> Result<Spec> {
        let environment = if blueprint.environment.is_empty() {
            None
        } else {
            let plain = serde_json::to_vec(&blueprint.environment).map_err(Error::internal)?;
            Some(self.0.vault.seal(session.id.as_uuid().as_bytes(), &plain)?)
        };
        let options = SpecOptions { port: blueprint.port, hibernation: blueprint.hibernation };
        Ok(Spec { command: blueprint.command, environment, options, manifest: blueprint.manifest })
    }

    /// The command that a change of state needs.
    fn command(
        &self,
        session: &Session,
        agent_id: AgentId,
        action: CommandAction,
        start: Option<(&Spec, &Locked)>,
        now: DateTime<Utc>,
    ) -> Result<NewCommand> {
        let options = &self.0.options;
        let (payload, seconds) = match start {
            Some((spec, locked)) => {
                let fetches = session.image.is_some();
                let seconds =
                    if fetches { options.image_deadline_seconds } else { options.start_deadline_seconds };
                (start_payload(session, spec, locked)?, seconds)
            }
            None => (
                json!({"sessionId": session.id, "generation": session.generation}),
                options.stop_deadline_seconds,
            ),
        };
        Ok(NewCommand {
            id: CommandId::new(),
            agent_id,
            agent_handle: session
                .agent_id
                .clone()
                .ok_or_else(|| Error::internal("a placed session has no agent"))?,
            session_id: session.id,
            generation: session.generation,
            action,
            payload,
            sealed: start.and_then(|(spec, _)| spec.environment.clone()),
            deadline: now + Options::seconds(seconds),
            now,
        })
    }
}

fn may_start(scope: &OrgScope, locked: &Locked) -> Result<()> {
    if locked.status != OrgStatus::Active {
        return Err(Error::Forbidden("the organization is suspended: no session can be started".into()));
    }
    if !Operation::StartSessions.allows(standing(scope, locked.role)) {
        return Err(Error::Forbidden(
            "a viewer cannot start sessions: ask an org_admin for the role user".into(),
        ));
    }
    Ok(())
}

/// By what right somebody sees a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// It is theirs.
    Owner,
    /// They manage the organization's sessions.
    Manager,
    /// It is shared with them, and no more.
    Shared(StreamMode),
}

/// A session that the caller may see, and by what right; else it is not found. It says what of it is shared with them.
pub(crate) async fn seen_in(
    core: &Core,
    tx: &mut OrgTx,
    scope: &OrgScope,
    id: SessionId,
) -> Result<(Session, Right)> {
    let what = || format!("session {id}");
    let mut session = session::find(tx, id).await.named(what())?;
    if session.user_id == scope.user_id() {
        return Ok((session, Right::Owner));
    }
    session.shared = share::with(tx, id, scope.user_id(), core.clock.now()).await?;
    let right = match session.shared {
        _ if may(scope, Operation::ManageSessions) => Right::Manager,
        Some(shared) => Right::Shared(shared.mode),
        None => return Err(Error::not_found(what())),
    };
    Ok((session, right))
}

/// A session that the caller may change: their own, or anybody's in the organization for those who manage sessions.
pub(crate) async fn visible_in(
    core: &Core,
    tx: &mut OrgTx,
    scope: &OrgScope,
    id: SessionId,
) -> Result<Session> {
    match seen_in(core, tx, scope, id).await? {
        (session, Right::Owner | Right::Manager) => Ok(session),
        (session, Right::Shared(_)) => Err(of_its_owner(&session)),
    }
}

/// The same for a change of state: whoever a session is shared with to control may wake it, and no more.
async fn changeable_in(
    core: &Core,
    tx: &mut OrgTx,
    scope: &OrgScope,
    id: SessionId,
    to: SessionState,
) -> Result<Session> {
    match seen_in(core, tx, scope, id).await? {
        (session, Right::Owner | Right::Manager) => Ok(session),
        (session, Right::Shared(StreamMode::Control)) if to == SessionState::Waking => Ok(session),
        (session, Right::Shared(_)) => Err(of_its_owner(&session)),
    }
}

fn of_its_owner(session: &Session) -> Error {
    let (id, owner, mode) = (session.id, &session.user, session.shared.map(|shared| shared.mode));
    let may = match mode {
        Some(StreamMode::Control) => "use it and wake it",
        Some(StreamMode::View) | None => "watch it",
    };
    Error::Forbidden(format!("session {id} belongs to {owner} and is shared with you to {may}, no more"))
}

/// Says of sessions of others what of them is shared with the caller.
async fn mark_shared_in(
    core: &Core,
    tx: &mut OrgTx,
    scope: &OrgScope,
    sessions: &mut [Session],
) -> Result<()> {
    let others: Vec<SessionId> =
        sessions.iter().filter(|it| it.user_id != scope.user_id()).map(|it| it.id).collect();
    if others.is_empty() {
        return Ok(());
    }
    let shared: BTreeMap<SessionId, SharedWith> =
        share::with_many(tx, others, scope.user_id(), core.clock.now()).await?.into_iter().collect();
    for session in sessions {
        session.shared = shared.get(&session.id).copied();
    }
    Ok(())
}

/// Says of sessions where their terminals are recorded.
async fn mark_recorded_in(tx: &mut OrgTx, sessions: &mut [Session]) -> Result<()> {
    let ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let mut recorded: BTreeMap<_, _> = terminal_source::of_sessions(tx, ids).await?.into_iter().collect();
    for session in sessions {
        session.terminal_source = recorded.remove(&session.id);
    }
    Ok(())
}

async fn audit_in(
    tx: &mut OrgTx,
    (before, session): (SessionState, &Session),
    action: CommandAction,
    at: DateTime<Utc>,
) -> Result<()> {
    let action = match action {
        CommandAction::StartSession => "session.start",
        CommandAction::StopSession => "session.stop",
        CommandAction::HibernateSession => "session.hibernate",
        CommandAction::WakeSession => "session.wake",
    };
    let detail = json!({"before": {"state": before}, "after": {"state": session.state}, "reason": session.state_reason});
    Ok(audit::insert_org(tx, line(action, session.id, detail, at)).await?)
}

pub(crate) fn line(action: &'static str, id: SessionId, detail: Value, at: DateTime<Utc>) -> audit::Entry {
    audit::Entry { action, resource: format!("session:{id}"), address: None, detail, at }
}

/// What the audit log says of a session that is started.
fn shown(session: &Session) -> Value {
    json!({
        "state": session.state, "name": session.name, "template": session.template, "applicationId": session.application_id,
        "agentId": session.agent_id,
        "resources": session.resources, "persistentHome": session.persistent_home,
    })
}

fn new_row(
    scope: &OrgScope,
    new: &NewSession,
    blueprint: &Blueprint,
    agent: &agent::Candidate,
    limits: GrantedLimits,
    now: DateTime<Utc>,
) -> NewRow {
    let id = SessionId::new();
    let Blueprint { template, resources, .. } = blueprint;
    let seconds = |granted: Granted| i32::try_from(granted.limit.as_seconds()).unwrap_or(i32::MAX);
    let signed = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(i64::MAX);
    let suffix = id.as_uuid().simple().to_string().split_off(24);
    NewRow {
        id,
        org_id: scope.org_id(),
        user_id: scope.user_id(),
        username: scope.username().to_owned(),
        name: new.name.clone().unwrap_or_else(|| made_up(template, &suffix)),
        template: template.clone(),
        application_id: blueprint.application,
        agent_id: agent.id,
        agent_handle: agent.handle.to_string(),
        image: blueprint.image.clone(),
        protocol: blueprint.protocol,
        platform: blueprint.platform,
        region: agent.region.clone(),
        state: SessionState::Pending,
        state_since: now,
        generation: 1,
        cpu_millis: signed(resources.cpu.as_millis()),
        memory_bytes: signed(resources.memory.as_units()),
        storage_bytes: signed(resources.storage.as_units()),
        persistent_home: new.persistent_home,
        idle_seconds: seconds(limits.idle),
        max_seconds: seconds(limits.duration),
        idle_source: limits.idle.source,
        max_source: limits.duration.source,
        tags: blueprint.tags.clone(),
        created_at: now,
    }
}

/// A name of at most a hundred characters.
fn made_up(template: &str, suffix: &str) -> String {
    let beginning: String = template.chars().take(90).collect();
    format!("{beginning}-{suffix}")
}

/// The payload of a start or wake, nested and flat as existing agents read it; the environment travels sealed.
fn start_payload(session: &Session, spec: &Spec, locked: &Locked) -> Result<Value> {
    let (cpu, memory) = (session.resources.cpu.to_cpu_string(), session.resources.memory.to_string());
    let mut resources = BTreeMap::from([("cpu".into(), cpu.clone()), ("memory".into(), memory.clone())]);
    if session.persistent_home {
        resources.insert("storage".into(), session.resources.storage.to_string());
    }
    let payload = CreateSessionCommand {
        session_id: session.id.to_string(),
        user: session.user.clone(),
        user_id: Some(session.user_id.to_string()),
        org_id: Some(session.org_id.to_string()),
        generation: Some(session.generation),
        template: session.template.clone(),
        template_manifest: spec.manifest.clone(),
        command: spec.command.clone(),
        image: session.image.clone(),
        port: spec.options.port,
        protocol: Some(session.protocol),
        hibernation: spec.options.hibernation,
        resources,
        cpu: Some(cpu),
        memory: Some(memory),
        persistent_home: session.persistent_home,
        environment: BTreeMap::new(),
        namespace: Some(locked.k8s_namespace.clone()),
        idle_timeout: Some(session.idle_timeout.to_string()),
        max_session_duration: Some(session.max_session_duration.to_string()),
        tags: session.tags.clone(),
    };
    serde_json::to_value(payload).map_err(Error::internal)
}

/// Where a session stands in a list.
pub(crate) fn newest(session: &Session) -> String {
    moment(session.created_at, session.id)
}
