//! Members of an organization. Changes take turns under the organization's lock, so that there is always somebody left
//! who may manage it.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_model::{Member, Operation, OrgRole, Scopes, Standing, SystemRole, UserId};
use tidegate_persistence::{
    Error as DbError, OrgScope, OrgTx, api_key, audit, bearer_token, credential, invite, membership,
    organization::Locked, session_end::EndOf,
};

use crate::{
    Core, Error, Idempotency, Listed, Nudge, Paging, Replay, Result,
    error::Named,
    organizations::{conflict, end_sessions_in},
    page,
    permissions::{require, standing},
};

/// Members of an organization.
#[derive(Debug, Clone)]
pub struct Members(pub(crate) Arc<Core>);

/// Who is to be made a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Person {
    /// The user of this id.
    Id(UserId),
    /// The user of this name, in any case.
    Named(String),
}

impl std::fmt::Display for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "user {id}"),
            Self::Named(name) => {
                write!(f, "user {}", name.chars().filter(|c| !c.is_control()).take(32).collect::<String>())
            }
        }
    }
}

/// What adding a member did.
#[derive(Debug, Clone, PartialEq)]
pub enum Added {
    /// They are new.
    New(Member),
    /// They were a member, and have the role now.
    Changed(Member),
    /// The kept answer to an earlier request with the same key.
    Replay(Replay),
}

impl Members {
    /// Members in joining order.
    pub async fn list(&self, scope: &OrgScope, paging: &Paging) -> Result<Listed<Member>> {
        require(Operation::ReadMembers, standing(scope, scope.role()))?;
        let (after, rows) = (paging.after_moment()?, paging.rows());
        let listed = self.0.db.in_org(scope, async |tx| membership::list(tx, after, rows).await);
        let (items, total) = listed.await?;
        Ok(paging.page(items, total, |member| page::moment(member.joined_at, member.user_id)))
    }

    /// One member.
    pub async fn get(&self, scope: &OrgScope, id: UserId) -> Result<Member> {
        let found = self.0.db.in_org(scope, async |tx| membership::find(tx, id).await);
        found.await.named(format_args!("member {id}"))
    }

    /// Makes somebody a member; a repeat gives them the role.
    ///
    /// Nobody is asked, as the contract wants it, so this answers whether a name is somebody's. Decided: a name that is
    /// nobody's, one that was deactivated and one that was deleted look the same; a name that is found becomes a member
    /// visibly, in the list, in the log and to themselves; and misses are counted for each caller, so that nobody goes
    /// through a list of names. Whoever wants to be asked first is invited instead, which says nothing of the name.
    pub async fn add(&self, scope: &OrgScope, person: Person, role: OrgRole) -> Result<Added> {
        self.add_keyed(scope, person, role, None, |_| Value::Null).await
    }

    /// The same for a request that may be a repeat.
    pub async fn add_keyed(
        &self,
        scope: &OrgScope,
        person: Person,
        role: OrgRole,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&Member) -> Value + Send + Sync,
    ) -> Result<Added> {
        if let Person::Named(name) = &person
            && tidegate_model::validate_username(name).is_err()
        {
            // Nobody can have such a name.
            return Err(Error::not_found(person));
        }
        let now = self.0.clock.now();
        self.0.throttle.allows_lookup(scope.user_id(), now)?;
        let added = self
            .0
            .db
            .in_org_locked(scope, async |tx, locked| {
                may_manage(scope, &locked.named("organization")?, role)?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(Added::Replay(replay));
                }
                let (id, name) = match &person {
                    Person::Id(id) => membership::person(tx, Some(*id), None).await,
                    Person::Named(name) => membership::person(tx, None, Some(name.clone())).await,
                }
                .named(&person)?;
                // Whoever is deleted meanwhile is asked for again once that is over, and not found.
                credential::keep(tx, id).await?;
                membership::person(tx, Some(id), None).await.named(&person)?;
                match membership::find(tx, id).await {
                    Ok(_) => {
                        let member = self.change_in(tx, scope, id, role).await?;
                        if let Some(key) = idempotency {
                            key.keep_in(tx, 200, answer(&member), now).await?;
                        }
                        return Ok(Added::Changed(member));
                    }
                    Err(DbError::NotFound) => {}
                    Err(error) => return Err(error.into()),
                }
                invite::revoke_for(tx, &name, now).await?;
                membership::put(tx, id, role, now).await?;
                let detail = json!({"after": {"role": role, "username": name}});
                self.audit_in(tx, "member.add", id, detail).await?;
                let member = membership::find(tx, id).await?;
                if let Some(key) = idempotency {
                    key.keep_in(tx, 201, answer(&member), now).await?;
                }
                Ok(Added::New(member))
            })
            .await;
        if matches!(&added, Err(Error::NotFound(_))) {
            self.0.throttle.lookup_failed(scope.user_id(), now);
        }
        let added = added?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(added)
    }

    /// Changes a member's role.
    pub async fn set_role(&self, scope: &OrgScope, id: UserId, role: OrgRole) -> Result<Member> {
        let member = self
            .0
            .db
            .in_org_locked(scope, async |tx, locked| {
                may_manage(scope, &locked.named("organization")?, role)?;
                self.change_in(tx, scope, id, role).await
            })
            .await?;
        self.0.nudges.send(Nudge::Revalidate);
        Ok(member)
    }

    /// Ends a membership and what hangs on it: sessions, invites that were sent, open streams. Anybody may leave.
    pub async fn remove(&self, scope: &OrgScope, id: UserId) -> Result<()> {
        let core = &self.0;
        let now = core.clock.now();
        let agents = core
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                if id != scope.user_id() {
                    require(Operation::ManageMembers, standing(scope, locked.role))?;
                }
                let before = membership::find(tx, id).await.named(format_args!("member {id}"))?;
                if before.owner {
                    return Err(owner_stays("be removed"));
                }
                somebody_else_manages_in(tx, &before).await?;
                // First, so that an invite of theirs that is being accepted is decided before the membership is.
                invite::revoke_for(tx, &before.username, now).await?;
                let agents =
                    end_sessions_in(core, tx, EndOf::Member(id), "the owner is no member any more", now)
                        .await?;
                invite::revoke_of(tx, id, now).await?;
                api_key::revoke_of_member(tx, id, now).await?;
                bearer_token::revoke_of_member(tx, id, now).await?;
                membership::remove(tx, id).await?;
                let detail = json!({"before": {"role": before.role, "username": before.username}});
                self.audit_in(tx, "member.remove", id, detail).await?;
                Ok::<_, Error>(agents)
            })
            .await?;
        core.ended(agents);
        Ok(())
    }

    /// Gives a member another role, as far as owner and last `org_admin` allow.
    async fn change_in(&self, tx: &mut OrgTx, scope: &OrgScope, id: UserId, role: OrgRole) -> Result<Member> {
        let before = membership::find(tx, id).await.named(format_args!("member {id}"))?;
        if before.role == role {
            return Ok(before);
        }
        if before.owner {
            return Err(owner_stays("lose the role org_admin"));
        }
        let now = self.0.clock.now();
        if role != OrgRole::Admin {
            somebody_else_manages_in(tx, &before).await?;
        }
        let rights = Standing { owner: false, ..standing(scope, role) };
        if !Operation::ManageInvites.allows(rights) {
            invite::revoke_of(tx, id, now).await?;
        }
        membership::put(tx, id, role, now).await?;
        let detail = json!({"before": {"role": before.role}, "after": {"role": role}});
        self.audit_in(tx, "member.set_role", id, detail).await?;
        Ok(Member { role, ..before })
    }

    async fn audit_in(
        &self,
        tx: &mut OrgTx,
        action: &'static str,
        id: UserId,
        detail: serde_json::Value,
    ) -> Result<()> {
        let (resource, at) = (format!("user:{id}"), self.0.clock.now());
        Ok(audit::insert_org(tx, audit::Entry { action, resource, address: None, detail, at }).await?)
    }
}

/// Whether the caller may give this role to anybody, by the role they have at this moment.
fn may_manage(scope: &OrgScope, locked: &Locked, role: OrgRole) -> Result<()> {
    require(Operation::ManageMembers, standing(scope, locked.role))?;
    may_grant(scope, locked.role, role)
}

/// Nobody grants more than they hold: neither their role nor, where a key acts, what it may be used for. Whoever is let
/// in logs in without the key's bounds.
pub(crate) fn may_grant(scope: &OrgScope, own: OrgRole, role: OrgRole) -> Result<()> {
    if !scope.scopes().cover(Scopes::of_role(role, SystemRole::User)) {
        return Err(Error::Forbidden(format!(
            "this API key cannot give the role {role} to anybody: it may do less than that role"
        )));
    }
    if own.may_grant(role) {
        return Ok(());
    }
    Err(Error::Forbidden(format!("the role {own} cannot give the role {role} to anybody")))
}

async fn somebody_else_manages_in(tx: &mut OrgTx, member: &Member) -> Result<()> {
    if member.role != OrgRole::Admin || membership::another_admin(tx, member.user_id).await? {
        return Ok(());
    }
    Err(conflict("E_LAST_ADMIN", "this is the last org_admin: give somebody else the role org_admin first"))
}

fn owner_stays(what: &str) -> Error {
    conflict(
        "E_OWNER",
        &format!("the owner of the organization cannot {what}: transfer the organization first"),
    )
}
