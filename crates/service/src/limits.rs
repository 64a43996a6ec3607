//! Idle timeouts and longest durations: what holds for a session and why, extensions, and the sweep that warns,
//! hibernates and terminates. The moments are worked out from the row, by the database's clock, so that a restart, another
//! replica and an activity that comes at the last moment are all the same to it.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use metrics::counter;
use serde_json::json;
use tidegate_model::{
    ActivityKind, CommandAction, Due, EffectiveLimit, EffectivePolicy, ExtensionBounds, FieldErrors, Granted,
    LimitAction, LimitOwners, LimitPolicy, LimitRules, LimitSource, NewSession, Operation, OrganizationLimit,
    OrganizationSessionPolicy, Session, SessionId, SessionState, SetSessionPolicyRequest, TimeLimit,
};
use tidegate_persistence::{
    DueSession, Error as DbError, OrgScope, OrgTx, SystemScope, audit,
    organization::{self, Locked},
    session,
    session_limit::{self, Enforce, Extend},
};

use crate::{
    Core, Error, Nudge, Result, Sessions,
    error::Named,
    options::Options,
    organizations::entry,
    permissions::{require, standing},
    sessions::{seen_in, visible_in},
};

/// Idle timeouts and longest durations of sessions.
#[derive(Debug, Clone)]
pub struct Limits(pub(crate) Arc<Core>);

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Warnings that were given.
    pub warned: usize,
    /// Sessions that were told to hibernate.
    pub hibernated: usize,
    /// Sessions that were told to end.
    pub terminated: usize,
}

/// Due sessions read by one statement at most.
const BITE: i32 = 200;
/// Bites of one sweep at most; the next sweep goes on.
const BITES: usize = 50;

/// The two limits that a session is granted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GrantedLimits {
    pub(crate) idle: Granted,
    pub(crate) duration: Granted,
}

/// What a request gets of both limits, under what its organization says at this moment; names each that is too much. What
/// its template suggests holds where the request is silent, and gives way where it would be too much.
pub(crate) fn grant(
    core: &Core,
    locked: &Locked,
    new: &NewSession,
    (idle_suggested, duration_suggested): (Option<TimeLimit>, Option<TimeLimit>),
) -> Result<GrantedLimits> {
    let (idle, duration) = policies(core, locked.limits);
    let granted = |policy: LimitPolicy, asked: Option<TimeLimit>, suggested: Option<TimeLimit>| match asked {
        Some(_) => policy.grant(asked),
        None => policy.grant(suggested).or_else(|_| policy.grant(None)),
    };
    let mut errors = FieldErrors::new();
    let idle = errors.check("idleTimeout", granted(idle, new.idle_timeout, idle_suggested));
    let duration =
        errors.check("maxSessionDuration", granted(duration, new.max_session_duration, duration_suggested));
    match idle.zip(duration) {
        Some((idle, duration)) => Ok(GrantedLimits { idle, duration }),
        None => Err(Error::Invalid(errors)),
    }
}

/// What organization and platform say of idle timeouts and of longest durations.
fn policies(core: &Core, organization: LimitRules) -> (LimitPolicy, LimitPolicy) {
    let platform = core.options.session_policy;
    let idle = LimitPolicy { organization: organization.idle_timeout, platform: platform.idle_timeout };
    let duration = LimitPolicy {
        organization: organization.max_session_duration,
        platform: platform.max_session_duration,
    };
    (idle, duration)
}

impl Limits {
    /// What ends or hibernates a session by itself, and who says so. For whoever may see the session.
    pub async fn policy(&self, scope: &OrgScope, id: SessionId) -> Result<EffectivePolicy> {
        let core = &self.0;
        core.db
            .in_org(scope, async |tx| {
                let (session, _) = seen_in(core, tx, scope, id).await?;
                let limits = session_limit::find(tx, id).await?;
                let organization = organization::find(tx).await.named("organization")?.name;
                let (idle, duration) = policies(core, organization::session_limits(tx).await?);
                let owners = LimitOwners {
                    request: session.user.clone(),
                    organization,
                    platform: "platform".to_owned(),
                };
                let shown = |policy: LimitPolicy, value, source, at| EffectiveLimit {
                    value,
                    source,
                    owner: match source {
                        LimitSource::Request => owners.request.clone(),
                        LimitSource::OrganizationDefault | LimitSource::OrganizationMaximum => {
                            owners.organization.clone()
                        }
                        LimitSource::PlatformDefault | LimitSource::PlatformMaximum => {
                            owners.platform.clone()
                        }
                    },
                    at,
                    bounds: policy.bounds(Granted { limit: value, source }, &owners),
                };
                let extended = limits.marks.extended_seconds;
                Ok(EffectivePolicy {
                    session_id: id,
                    idle_timeout: shown(idle, session.idle_timeout, limits.idle_source, session.idle_at),
                    max_session_duration: shown(
                        duration,
                        session.max_session_duration,
                        limits.max_source,
                        session.ends_at,
                    ),
                    extended_by: if extended == 0 { TimeLimit::Never } else { TimeLimit::Seconds(extended) },
                    kept_until: limits.marks.kept_until,
                    warning: session.warning,
                })
            })
            .await
    }

    /// Puts a session's end off, and keeps it from being idle for as long, within what organization and platform allow.
    pub async fn extend(&self, scope: &OrgScope, id: SessionId, by: u32) -> Result<Session> {
        let (core, now) = (&self.0, self.0.clock.now());
        core.db
            .in_org(scope, async |tx| {
                let (idle, duration) = policies(core, organization::session_limits(tx).await?);
                // Somebody else may extend it, or end it, in between.
                for _ in 0..2 {
                    let session = visible_in(core, tx, scope, id).await?;
                    if session.state.is_final() || session.state == SessionState::Terminating {
                        return Err(Error::WrongState { id, state: session.state });
                    }
                    let marks = session_limit::find(tx, id).await?.marks;
                    let bounds = ExtensionBounds::of(idle, duration, session.max_session_duration);
                    if let Some(complaint) = bounds.complaint(&session, marks, by) {
                        return Err(Error::Invalid(FieldErrors::one("by", complaint)));
                    }
                    if session_limit::extend(tx, Extend { id, by, most: bounds.duration.0, now }).await? {
                        core.declared_in(tx, id, scope.user_id(), ActivityKind::Extend).await?;
                        let after = session::find(tx, id).await?;
                        let shown = |it: &Session| json!({"idleAt": it.idle_at, "endsAt": it.ends_at});
                        let detail =
                            json!({"before": shown(&session), "after": shown(&after), "by": TimeLimit::Seconds(by)});
                        audit_in(tx, "session.extend", id, detail, now).await?;
                        return Ok(after);
                    }
                }
                let message = "the session is being extended by somebody else: try again".to_owned();
                Err(Error::Conflict { code: "E_CONFLICT", message })
            })
            .await
    }

    /// What the organization says of its sessions' limits, and what the platform leaves it. For every member.
    pub async fn of_organization(&self, scope: &OrgScope) -> Result<OrganizationSessionPolicy> {
        require(Operation::ReadOrganization, standing(scope, scope.role()))?;
        let rules = self.0.db.in_org(scope, async |tx| organization::session_limits(tx).await).await;
        Ok(self.shown(scope, rules.named("organization")?))
    }

    /// Sets what the organization says, as far as it is given and within what the platform allows. It holds for sessions
    /// asked for from then on, and for how far those that run are extended.
    pub async fn set_organization(
        &self,
        scope: &OrgScope,
        request: SetSessionPolicyRequest,
    ) -> Result<OrganizationSessionPolicy> {
        let (core, now) = (&self.0, self.0.clock.now());
        let rules = core
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                require(Operation::UpdateOrganization, standing(scope, locked.role))?;
                let after = request.over(locked.limits);
                after.check(core.options.session_policy).map_err(Error::Invalid)?;
                if after != locked.limits {
                    organization::set_session_limits(tx, after, now).await?;
                    let name = organization::find(tx).await?.name;
                    let detail = json!({"before": locked.limits, "after": after});
                    audit::insert_org(tx, entry("organization.session_policy", &name, detail, now)).await?;
                }
                Ok::<_, Error>(after)
            })
            .await?;
        Ok(self.shown(scope, rules))
    }

    fn shown(&self, scope: &OrgScope, rules: LimitRules) -> OrganizationSessionPolicy {
        let (idle, duration) = policies(&self.0, rules);
        OrganizationSessionPolicy {
            org_id: scope.org_id(),
            idle_timeout: OrganizationLimit::of(idle),
            max_session_duration: OrganizationLimit::of(duration),
        }
    }

    /// Warns, hibernates and terminates what is due, in bites, the longest due first; called every second by every
    /// control plane, of which one wins each session. What fails keeps nothing else from being done, and is told at the
    /// end.
    pub async fn sweep(&self) -> Result<Swept> {
        let (core, now) = (&self.0, self.0.clock.now());
        let (mut swept, mut after, mut first) = (Swept::default(), None, None);
        for _ in 0..BITES {
            let due = core.db.due_sessions(after, now, BITE).await?;
            for DueSession { scope, place } in &due {
                match self.act(scope, place.id, now).await {
                    Ok(done) => swept.count(done),
                    Err(error) if error.is_unavailable() => return Err(error),
                    Err(error) => {
                        tracing::warn!(session = %place.id, %error, "a session's limits could not be kept");
                        first.get_or_insert(error);
                    }
                }
            }
            after = due.last().map(|last| last.place);
            if i32::try_from(due.len()).is_ok_and(|read| read < BITE) {
                break;
            }
        }
        first.map_or(Ok(swept), Err)
    }

    /// Does what is due to one session, if it still is.
    async fn act(&self, scope: &SystemScope, id: SessionId, now: DateTime<Utc>) -> Result<Option<Did>> {
        let core = &self.0;
        let done = core
            .db
            .in_org_as_system(scope, async |tx| {
                let session = match session::find(tx, id).await {
                    Ok(session) => session,
                    Err(DbError::NotFound) => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                let marks = session_limit::find(tx, id).await?.marks;
                match session.due(marks) {
                    Some(due) if due.due_at > now => Ok(None),
                    Some(due) if due.warned => self.enforce_in(tx, session, due, now).await,
                    Some(due) => {
                        let warned = session_limit::warn(tx, id, &ahead(&session, due), now).await?;
                        Ok(warned.then_some(Did { action: None, agent: None }))
                    }
                    None => Ok(None),
                }
            })
            .await?;
        if let Some(agent) = done.and_then(|done| done.agent) {
            core.nudges.send(Nudge::Commands(agent));
        }
        Ok(done)
    }

    /// Begins what was warned of, the way a person's request does it.
    async fn enforce_in(
        &self,
        tx: &mut OrgTx,
        mut session: Session,
        due: Due,
        now: DateTime<Utc>,
    ) -> Result<Option<Did>> {
        let (id, action) = (session.id, due.action);
        let (command, reason, to) = match action {
            LimitAction::Hibernate => {
                let reason = format!("idle for {}", session.idle_timeout);
                (CommandAction::HibernateSession, reason, SessionState::Hibernating)
            }
            LimitAction::Terminate => {
                let reason = format!("its longest duration of {} is over", session.max_session_duration);
                (CommandAction::StopSession, reason, SessionState::Terminating)
            }
        };
        let grace = self.grace();
        if !session_limit::enforce(tx, Enforce { id, action, reason: reason.clone(), grace, now }).await? {
            return Ok(None);
        }
        let agent = session::placement(tx, id).await?;
        let before = session.state;
        (session.state, session.state_reason) = (to, Some(reason));
        let sessions = Sessions(Arc::clone(&self.0));
        let (_, agent) = sessions.queue_in(tx, (before, &session), agent, command, None, now).await?;
        Ok(Some(Did { action: Some(action), agent: Some(agent) }))
    }

    /// How long something that was typed may be on its way to the database: it is written down every period, and a
    /// heartbeat within the same period is not written at all.
    fn grace(&self) -> TimeDelta {
        Options::seconds(self.0.options.activity_seconds) * 2
    }
}

/// What was done to a session.
#[derive(Debug, Clone, Copy)]
struct Did {
    /// None for a warning.
    action: Option<LimitAction>,
    agent: Option<tidegate_model::AgentId>,
}

impl Swept {
    fn count(&mut self, done: Option<Did>) {
        let (which, name) = match done {
            None => return,
            Some(Did { action: None, .. }) => (&mut self.warned, "warn"),
            Some(Did { action: Some(LimitAction::Hibernate), .. }) => (&mut self.hibernated, "hibernate"),
            Some(Did { action: Some(LimitAction::Terminate), .. }) => (&mut self.terminated, "terminate"),
        };
        *which += 1;
        counter!("tidegate_session_limits_total", "action" => name).increment(1);
    }
}

/// A warning as the history says it.
fn ahead(session: &Session, due: Due) -> String {
    let at = due.at.format("%Y-%m-%d %H:%M:%S UTC");
    match due.action {
        LimitAction::Hibernate => {
            format!("warning: idle, hibernates at {at} unless somebody is active before")
        }
        LimitAction::Terminate => format!(
            "warning: its longest duration of {} ends at {at}, when it is terminated",
            session.max_session_duration
        ),
    }
}

async fn audit_in(
    tx: &mut OrgTx,
    action: &'static str,
    id: SessionId,
    detail: serde_json::Value,
    at: DateTime<Utc>,
) -> Result<()> {
    let resource = format!("session:{id}");
    Ok(audit::insert_org(tx, audit::Entry { action, resource, address: None, detail, at }).await?)
}
