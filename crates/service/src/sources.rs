//! Sources: handles that messages are sent to, and who may use them. Whoever made one says who reads, writes and types;
//! those who manage sources may say so too, and every change stands in the audit log with whose source it was.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    CreateSourceRequest, GrantSourceRequest, GrantTarget, GroupId, Operation, OrgRole, PipeOperationId,
    ShareTarget, Source, SourceGrant, SourceGrantId, SourceId, SourceRight, UserId,
};
use tidegate_persistence::{
    OrgScope, OrgTx, audit, pipe_operation, read_cursor,
    source::{self, Stored},
    source_grant::{self, Grantee, NewGrant},
};

use crate::{
    Core, Error, Idempotency, Listed, Made, Nudge, Paging, Result,
    broker::MOST_WRITABLE,
    error::Named,
    permissions::{may, require, standing},
    shares,
};

/// Sources of an organization.
#[derive(Debug, Clone)]
pub struct Sources(pub(crate) Arc<Core>);

/// What giving a right did.
#[derive(Debug, Clone, PartialEq)]
pub enum Granted {
    /// It is new.
    New(Box<SourceGrant>),
    /// It was given before.
    Known(Box<SourceGrant>),
    /// The kept answer to an earlier request with the same key.
    Replay(crate::Replay),
}

/// Sources of one organization at most.
pub(crate) const MOST: i64 = 100_000;
/// Grants of one source at most.
const MOST_GRANTS: i64 = 200;

impl Sources {
    /// Makes a source of the caller's own. Nothing is reserved on NATS before somebody uses it.
    pub async fn create(
        &self,
        scope: &OrgScope,
        request: CreateSourceRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&Source) -> Value + Send + Sync,
    ) -> Result<Made<Source>> {
        let (id, now) = (SourceId::new(), self.0.clock.now());
        self.0
            .db
            // Under the organization's lock, so that the caller is a member and there are not too many.
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(Made::Replay(replay));
                }
                require(Operation::MakeSources, standing(scope, locked.role))?;
                let (all, _) = source::counts(tx).await?;
                if all >= MOST {
                    let message = format!(
                        "the organization has {MOST} sources, which is the most: delete some of them"
                    );
                    return Err(Error::Conflict { code: "E_TOO_MANY_SOURCES", message });
                }
                let handle = request.handle.to_string();
                source::insert(tx, id, request.handle, request.kind, now).await?;
                let shown = json!({"id": id, "kind": request.kind});
                audit_in(tx, "source.create", &handle, json!({"after": shown}), now).await?;
                let made = source::find_by_handle(tx, &handle).await?.source;
                if let Some(key) = idempotency {
                    key.keep_in(tx, 201, answer(&made), now).await?;
                }
                Ok(Made::New(made))
            })
            .await
    }

    /// The organization's sources by handle. The last message of each is shown to those who may read it.
    pub async fn list(&self, scope: &OrgScope, paging: &Paging) -> Result<Listed<Source>> {
        require(Operation::ReadSources, standing(scope, scope.role()))?;
        let (after, rows) = (paging.after()?.unwrap_or_default(), paging.rows());
        let work = self.0.db.in_org(scope, async |tx| {
            let (stored, total) = source::list(tx, &after, rows).await?;
            Ok::<_, Error>((shown_in(tx, scope, stored).await?, total))
        });
        let (items, total) = work.await?;
        Ok(paging.page(items, total, |source| source.handle.to_string()))
    }

    /// One source.
    pub async fn get(&self, scope: &OrgScope, handle: &str) -> Result<Source> {
        require(Operation::ReadSources, standing(scope, scope.role()))?;
        let work = self.0.db.in_org(scope, async |tx| {
            let stored = found_in(tx, handle).await?;
            let name = stored.source.handle.to_string();
            let mut shown = shown_in(tx, scope, vec![stored]).await?;
            shown.pop().ok_or_else(|| Error::not_found(format_args!("source {name}")))
        });
        work.await
    }

    /// Ends a source with its pipes, their messages and who may use it: for whoever made it, and for those who manage
    /// sources. A source of the same handle that comes later starts empty. Gives the operations that have to be done for
    /// its streams to be gone.
    pub async fn delete(&self, scope: &OrgScope, handle: &str) -> Result<Vec<PipeOperationId>> {
        let now = self.0.clock.now();
        let deleted = self
            .0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                let Stored { source, .. } = changeable_in(tx, scope, role, handle).await?;
                source::delete(tx, handle).await?;
                let shown = json!({"id": source.id, "kind": source.kind, "createdBy": source.created_by});
                audit_in(tx, "source.delete", handle, json!({"before": shown}), now).await?;
                Ok(pipe_operation::deletions(tx, source.id).await?)
            })
            .await;
        self.told(deleted)
    }

    /// NATS is to follow at once, and whoever holds a token for what is gone gets another one.
    fn told<T>(&self, changed: Result<T>) -> Result<T> {
        let done = changed?;
        self.0.nudges.send(Nudge::Revalidate);
        self.0.broker.wake();
        Ok(done)
    }

    /// Gives a member, a group or everyone a right to a source: for whoever made it, and for those who manage sources.
    pub async fn grant(
        &self,
        scope: &OrgScope,
        handle: &str,
        request: GrantSourceRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&SourceGrant) -> Value + Send + Sync,
    ) -> Result<Granted> {
        let now = self.0.clock.now();
        self.0
            .db
            // Under the organization's lock, so that nobody is taken out of it or of a group meanwhile, and none is too many.
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(Granted::Replay(replay));
                }
                let Stored { source, .. } = changeable_in(tx, scope, role, handle).await?;
                let (user_id, group_id) = target_in(tx, &source, request.to).await?;
                let new = NewGrant {
                    id: SourceGrantId::new(),
                    source_id: source.id,
                    user_id,
                    group_id,
                    right: request.right,
                    now,
                };
                let is_new = source_grant::insert(tx, new).await?;
                if is_new && request.right != SourceRight::Read {
                    let grantee = match (user_id, group_id) {
                        (Some(user), _) => Grantee::User(user),
                        (None, Some(group)) => Grantee::Group(group),
                        (None, None) => Grantee::Everyone,
                    };
                    not_too_many_in(tx, &source, [grantee]).await?;
                }
                let all = source_grant::list(tx, source.id, MOST_GRANTS + 1).await?;
                if i64::try_from(all.len()).is_ok_and(|count| count > MOST_GRANTS) {
                    let message = format!(
                        "source {handle} has {MOST_GRANTS} grants already: end some of them, or give the right to a group"
                    );
                    return Err(Error::Conflict { code: "E_TOO_MANY_GRANTS", message });
                }
                let same = |grant: &SourceGrant| {
                    (grant.user_id, grant.group_id, grant.right) == (user_id, group_id, request.right)
                };
                let made = all.into_iter().find(same).ok_or_else(|| Error::not_found("the grant"))?;
                if is_new {
                    audit_in(tx, "source.grant", handle, json!({"after": shown_grant(&source, &made)}), now).await?;
                }
                if let Some(key) = idempotency {
                    key.keep_in(tx, if is_new { 201 } else { 200 }, answer(&made), now).await?;
                }
                let made = Box::new(made);
                Ok(if is_new { Granted::New(made) } else { Granted::Known(made) })
            })
            .await
    }

    /// Who may do what with a source, the oldest grant first: for whoever made it, and for those who manage sources.
    pub async fn grants(&self, scope: &OrgScope, handle: &str) -> Result<Vec<SourceGrant>> {
        let work = self.0.db.in_org(scope, async |tx| {
            let Stored { source, .. } = found_in(tx, handle).await?;
            if source.created_by != scope.user_id() && !may(scope, Operation::ManageSources) {
                return Err(not_yours(&source));
            }
            Ok(source_grant::list(tx, source.id, MOST_GRANTS).await?)
        });
        work.await
    }

    /// Takes a right away: whoever read by it alone reads no more, their place in the pipes is gone.
    pub async fn revoke_grant(&self, scope: &OrgScope, handle: &str, id: SourceGrantId) -> Result<()> {
        let now = self.0.clock.now();
        let revoked = self
            .0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                let Stored { source, .. } = changeable_in(tx, scope, role, handle).await?;
                let all = source_grant::list(tx, source.id, MOST_GRANTS).await?;
                let before = all
                    .into_iter()
                    .find(|grant| grant.id == id)
                    .ok_or_else(|| Error::not_found(format_args!("grant {id} of source {handle}")))?;
                source_grant::delete(tx, source.id, id).await?;
                let ended = read_cursor::end_unreadable(tx, Some(source.id)).await?;
                let detail = json!({"before": shown_grant(&source, &before), "readersEnded": ended});
                audit_in(tx, "source.revoke", handle, detail, now).await
            })
            .await;
        self.told(revoked)
    }
}

/// The source of this handle; what can be no handle is none.
pub(crate) async fn found_in(tx: &mut OrgTx, handle: &str) -> Result<Stored> {
    let shown = handle_of(handle)?;
    source::find_by_handle(tx, handle).await.named(format_args!("source {shown}"))
}

/// A handle as it is shown; what can be none is not found.
pub(crate) fn handle_of(handle: &str) -> Result<String> {
    let shown: String = handle.chars().filter(|c| !c.is_control()).take(32).collect();
    match handle.parse::<tidegate_model::Handle>() {
        Ok(_) => Ok(shown),
        Err(_) => Err(Error::not_found(format_args!("source {shown}"))),
    }
}

/// The source of this handle for somebody who changes it, and nobody deletes it meanwhile.
pub(crate) async fn changeable_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    role: OrgRole,
    handle: &str,
) -> Result<Stored> {
    // Found first: what is not there is not found, whatever one may do.
    let shown = handle_of(handle)?;
    let stored = source::lock_by_handle(tx, handle).await.named(format_args!("source {shown}"))?;
    may_change(scope, role, &stored.source)?;
    Ok(stored)
}

/// Refuses whoever neither made a source nor manages sources.
pub(crate) fn may_change(scope: &OrgScope, role: OrgRole, source: &Source) -> Result<()> {
    let standing = standing(scope, role);
    if Operation::ManageSources.allows(standing) {
        return Ok(());
    }
    require(Operation::MakeSources, standing)?;
    if source.created_by == scope.user_id() { Ok(()) } else { Err(not_yours(source)) }
}

fn not_yours(source: &Source) -> Error {
    let owner = source.created_by_username.as_deref().unwrap_or("somebody who left");
    let who = Operation::ManageSources.who();
    Error::Forbidden(format!("source {} was made by {owner}: this is for them and for {who}", source.handle))
}

/// Sources as the caller may see them: what was last sent through a pipe they may not read is left out.
async fn shown_in(tx: &mut OrgTx, scope: &OrgScope, stored: Vec<Stored>) -> Result<Vec<Source>> {
    let me = scope.user_id();
    let others: Vec<SourceId> =
        stored.iter().filter(|one| one.source.created_by != me).map(|one| one.source.id).collect();
    let rights: BTreeSet<(SourceId, SourceRight)> = if others.is_empty() {
        BTreeSet::new()
    } else {
        source_grant::rights(tx, me, others).await?.into_iter().collect()
    };
    let shown = |Stored { mut source, last_pipe }| {
        let needed = last_pipe.as_deref().and_then(SourceRight::to_read);
        let readable =
            source.created_by == me || needed.is_some_and(|right| rights.contains(&(source.id, right)));
        if !readable {
            source.last_message = None;
        }
        source
    };
    Ok(stored.into_iter().map(shown).collect())
}

/// Whom a right is given to: neither a member nor a group is everyone.
async fn target_in(
    tx: &mut OrgTx,
    source: &Source,
    to: GrantTarget,
) -> Result<(Option<UserId>, Option<GroupId>)> {
    let with = match to {
        GrantTarget::Everyone => return Ok((None, None)),
        GrantTarget::GroupId(id) => ShareTarget::GroupId(id),
        GrantTarget::Group(name) => ShareTarget::Group(name),
        GrantTarget::UserId(id) => ShareTarget::UserId(id),
        GrantTarget::Username(name) => ShareTarget::Username(name),
    };
    let creator = (source.created_by, "made the source, and may do everything with it");
    shares::target_in(tx, with, creator).await
}

/// Refuses what would let somebody write to more pipes of one creator's than a token for NATS has room for. Each creator's
/// sources are counted apart, so that nobody has to ask what others gave, or can keep them from giving.
pub(crate) async fn not_too_many_in(
    tx: &mut OrgTx,
    source: &Source,
    grantees: impl IntoIterator<Item = Grantee>,
) -> Result<()> {
    let (creator, enough) = (source.created_by, MOST_WRITABLE + 1);
    // Nearly always all that is asked.
    if source_grant::count_writable(tx, creator, enough).await? < enough {
        return Ok(());
    }
    for grantee in grantees {
        if source_grant::count_writable_by(tx, creator, grantee, enough).await? == enough {
            let whom = match grantee {
                Grantee::Everyone => "everyone",
                Grantee::Group(_) => "the group",
                Grantee::User(_) => "the member",
            };
            let owner = source.created_by_username.as_deref().unwrap_or("somebody who left");
            let message = format!(
                "{whom} could write to more than {MOST_WRITABLE} pipes of {owner}'s, which is the most: end rights to other sources of {owner}'s, or delete some of their pipes"
            );
            return Err(Error::Conflict { code: "E_TOO_MANY_GRANTS", message });
        }
    }
    Ok(())
}

fn shown_grant(source: &Source, grant: &SourceGrant) -> Value {
    json!({
        "sourceId": source.id, "createdBy": source.created_by, "grantId": grant.id, "userId": grant.user_id, "user": grant.user,
        "groupId": grant.group_id, "group": grant.group, "everyone": grant.everyone, "right": grant.right,
    })
}

pub(crate) async fn audit_in(
    tx: &mut OrgTx,
    action: &'static str,
    handle: &str,
    detail: Value,
    at: DateTime<Utc>,
) -> Result<()> {
    Ok(audit::insert_org(tx, entry(action, handle, detail, at)).await?)
}

/// What is written down of a change of a source.
pub(crate) fn entry(action: &'static str, handle: &str, detail: Value, at: DateTime<Utc>) -> audit::Entry {
    audit::Entry { action, resource: format!("source:{handle}"), address: None, detail, at }
}
