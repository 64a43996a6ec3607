//! Invites: made by `org_admin`s, answered by whom they are for, each once.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tidegate_model::{
    CreateInviteRequest, Invite, InviteId, InviteStatus, MailId, Operation, OrgId, OrgRole, UserId,
};
use tidegate_persistence::{
    Error as DbError, OrgScope, OrgTx, UserTx, audit,
    invite::{self, NewInvite},
    mail, membership, organization,
};

use crate::{
    Caller, Core, Error, Idempotency, Listed, Nudge, Paging, Replay, Result,
    error::Named,
    members::may_grant,
    organizations::conflict,
    page,
    permissions::{require, standing},
    users::held_in,
};

/// Invites into organizations.
#[derive(Debug, Clone)]
pub struct Invites(pub(crate) Arc<Core>);

/// What asking for an invite gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Invited {
    /// A new one.
    New(Invite),
    /// The kept answer to an earlier request with the same key.
    Replay(Replay),
}

/// An invite as whom it is for sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenInvite {
    /// The invite. The name of its organization is empty where it is over and the caller is no member.
    pub invite: Invite,
    /// What the organization calls itself, if the caller may see it and it is active.
    pub organization: Option<String>,
    /// What can be done about it.
    pub standing: InviteStanding,
}

/// What whom it is for can do about an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteStanding {
    /// Accept or decline it.
    Open,
    /// Nothing: they have accepted it.
    Accepted,
    /// Nothing: they have declined it.
    Declined,
    /// Nothing: the organization took it back.
    Revoked,
    /// Nothing: it is past its time.
    Expired,
    /// Nothing for now: the organization takes nobody.
    Closed,
}

impl InviteStanding {
    fn of(invite: &Invite, active: bool, now: DateTime<Utc>) -> Self {
        match invite.status {
            InviteStatus::Accepted => Self::Accepted,
            InviteStatus::Declined => Self::Declined,
            InviteStatus::Revoked => Self::Revoked,
            InviteStatus::Pending if invite.expires_at <= now => Self::Expired,
            InviteStatus::Pending if !active => Self::Closed,
            InviteStatus::Pending => Self::Open,
        }
    }
}

/// Most pending invites of one user that are listed.
const MINE: i64 = 100;

impl Invites {
    /// Invites somebody by username, whether or not there is such a user.
    pub async fn create(
        &self,
        scope: &OrgScope,
        request: CreateInviteRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&Invite) -> Value + Send + Sync,
    ) -> Result<Invited> {
        let (id, now) = (InviteId::new(), self.0.clock.now());
        let invited = self
            .0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                require(Operation::ManageInvites, standing(scope, locked.role))?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(Invited::Replay(replay));
                }
                may_grant(scope, locked.role, request.role)?;
                if membership::is_member(tx, &request.username).await? {
                    return Err(conflict("E_ALREADY_MEMBER", "this user is a member already"));
                }
                let detail = json!({"after": {"username": request.username, "role": request.role}});
                let new = NewInvite {
                    id,
                    invitee: request.username,
                    inviter: inviter_in(tx, scope).await?,
                    role: request.role,
                    expires_at: now + request.expires_in,
                    now,
                };
                invite::insert(tx, new).await?;
                // For everybody, whether or not they have an address or are there at all: that shows at the sending.
                mail::insert(tx, MailId::new(), id, now).await?;
                audit::insert_org(tx, entry("invite.create", id, detail, now)).await?;
                let made = invite::find(tx, id).await?;
                if let Some(key) = idempotency {
                    key.keep_in(tx, 201, answer(&made), now).await?;
                }
                Ok::<_, Error>(Invited::New(made))
            })
            .await?;
        if matches!(invited, Invited::New(_)) {
            self.0.nudges.send(Nudge::Mail);
        }
        Ok(invited)
    }

    /// The organization's invites, the newest first.
    pub async fn list(&self, scope: &OrgScope, paging: &Paging) -> Result<Listed<Invite>> {
        require(Operation::ManageInvites, standing(scope, scope.role()))?;
        let (before, rows) = (paging.after_moment()?, paging.rows());
        let listed = self.0.db.in_org(scope, async |tx| invite::list(tx, before, rows).await);
        let (items, total) = listed.await?;
        Ok(paging.page(items, total, |invite| page::moment(invite.created_at, invite.id)))
    }

    /// Takes a pending invite back.
    pub async fn revoke(&self, scope: &OrgScope, id: InviteId) -> Result<Invite> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                require(Operation::ManageInvites, standing(scope, locked.role))?;
                let revoked = invite::revoke(tx, id, now).await?;
                let after = invite::find(tx, id).await.named(format_args!("invite {id}"))?;
                if !revoked {
                    return Err(not_pending());
                }
                let detail = json!({
                    "before": {"username": after.invitee_username, "role": after.role, "status": InviteStatus::Pending},
                    "after": {"status": after.status},
                });
                audit::insert_org(tx, entry("invite.revoke", id, detail, now)).await?;
                Ok::<_, Error>(after)
            })
            .await
    }

    /// The pending invites for the caller.
    pub async fn mine(&self, caller: &Caller) -> Result<Vec<Invite>> {
        let now = self.0.clock.now();
        let listed = self.0.db.in_user(&caller.user, async |tx| invite::list_for_me(tx, now, MINE).await);
        Ok(listed.await?)
    }

    /// An invite for the caller, however it stands. Somebody else's is not found.
    pub async fn look(&self, caller: &Caller, id: InviteId) -> Result<SeenInvite> {
        let now = self.0.clock.now();
        let found = self.0.db.in_user(&caller.user, async |tx| invite::find_for_me(tx, id).await);
        let (invite, organization) = found.await.named(format_args!("invite {id}"))?;
        Ok(SeenInvite {
            standing: InviteStanding::of(&invite, organization.is_some(), now),
            invite,
            organization,
        })
    }

    /// Accepts an invite: of several at the same time exactly one does. Gives the organization and the role in it.
    pub async fn accept(&self, caller: &Caller, id: InviteId) -> Result<(OrgId, OrgRole)> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_user(&caller.user, async |tx| {
                held_in(tx).await?;
                mine_in(tx, id).await?;
                let (org, role) = invite::accept(tx, id, now).await?.ok_or_else(not_pending)?;
                // Whoever was made a member meanwhile stays what they are.
                membership::join(tx, org, role, now).await?;
                let (before, after) = (InviteStatus::Pending, InviteStatus::Accepted);
                let detail = json!({"before": {"status": before}, "after": {"status": after, "role": role}});
                audit::insert_user(tx, Some(org), entry("invite.accept", id, detail, now)).await?;
                Ok::<_, Error>((org, role))
            })
            .await
    }

    /// Declines an invite.
    pub async fn decline(&self, caller: &Caller, id: InviteId) -> Result<()> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_user(&caller.user, async |tx| {
                mine_in(tx, id).await?;
                let org = invite::decline(tx, id, now).await?.ok_or_else(not_pending)?;
                let (before, after) = (InviteStatus::Pending, InviteStatus::Declined);
                let detail = json!({"before": {"status": before}, "after": {"status": after}});
                audit::insert_user(tx, Some(org), entry("invite.decline", id, detail, now)).await?;
                Ok::<_, Error>(())
            })
            .await
    }
}

/// In whose name somebody is invited: one's own. The console has none, and takes the owner's.
async fn inviter_in(tx: &mut OrgTx, scope: &OrgScope) -> Result<(UserId, String)> {
    if !scope.as_user().is_console() {
        return Ok((scope.user_id(), scope.username().to_owned()));
    }
    let Some(owner) = organization::find(tx).await?.owner_user_id else {
        let message = "the organization is nobody's, so there is nobody who invites: make them a member instead, or transfer it first";
        return Err(conflict("E_NO_OWNER", message));
    };
    let owner = membership::find(tx, owner).await.named(format_args!("member {owner}"))?;
    Ok((owner.user_id, owner.username))
}

/// Whose an invite is comes before how it stands: nobody learns the state of an invite that is not theirs.
async fn mine_in(tx: &mut UserTx, id: InviteId) -> Result<()> {
    match invite::is_for_me(tx, id).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Forbidden("this invite is for somebody else".into())),
        Err(DbError::NotFound) => Err(Error::not_found(format_args!("invite {id}"))),
        Err(error) => Err(error.into()),
    }
}

fn not_pending() -> Error {
    conflict("E_INVITE_NOT_PENDING", "this invite was answered, taken back or has expired: ask for a new one")
}

fn entry(action: &'static str, id: InviteId, detail: Value, at: DateTime<Utc>) -> audit::Entry {
    audit::Entry { action, resource: format!("invite:{id}"), address: None, detail, at }
}
