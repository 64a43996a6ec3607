//! Sharing sessions: the owner lets members and groups watch or use one, for a while or as long as it lasts. Whoever may
//! look into a session is asked again at every request and, while they watch, every moment.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_model::{
    CreateShareRequest, FieldErrors, GroupId, SessionId, SessionShare, ShareId, ShareTarget, UserId,
};
use tidegate_persistence::{OrgScope, OrgTx, audit, group, membership, share};

use crate::{
    Core, Error, Idempotency, Nudge, Replay, Result,
    error::Named,
    members::Person,
    sessions::{Right, seen_in, visible_in},
};

/// Shares of sessions.
#[derive(Debug, Clone)]
pub struct Shares(pub(crate) Arc<Core>);

/// What sharing a session gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Shared {
    /// A new share.
    New(Box<SessionShare>),
    /// There was one with the same member or group, which is as it was asked for now.
    Changed(Box<SessionShare>),
    /// The kept answer to an earlier request with the same key.
    Replay(Replay),
}

/// Shares of one session at most.
const MOST: i64 = 100;

impl Shares {
    /// Shares a session of the caller's with a member or a group; a repeat gives the mode and the time.
    pub async fn create(
        &self,
        scope: &OrgScope,
        id: SessionId,
        request: CreateShareRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&SessionShare) -> Value + Send + Sync,
    ) -> Result<Shared> {
        let (core, now) = (&self.0, self.0.clock.now());
        let shared = core
            .db
            // Under the organization's lock, so that nobody is taken out of it or of a group meanwhile, and none is too many.
            .in_org_locked(scope, async |tx, locked| {
                locked.named("organization")?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(Shared::Replay(replay));
                }
                let (session, right) = seen_in(core, tx, scope, id).await?;
                if right != Right::Owner {
                    let owner = &session.user;
                    return Err(Error::Forbidden(format!(
                        "session {id} belongs to {owner}, who alone may share it"
                    )));
                }
                if session.state.is_final() {
                    return Err(Error::WrongState { id, state: session.state });
                }
                let mine = (scope.user_id(), "is you: the session is yours already");
                let (user_id, group_id) = target_in(tx, request.with, mine).await?;
                let expires_at = request.expires_in.map(|time| now + time);
                let new = share::NewShare {
                    id: ShareId::new(),
                    session_id: id,
                    user_id,
                    group_id,
                    mode: request.mode,
                    now,
                    expires_at,
                };
                let (share_id, is_new) = share::put(tx, new).await?;
                if is_new && share::count(tx, id).await? > MOST {
                    let message = format!(
                        "session {id} has {MOST} shares already: end some of them, or share it with a group"
                    );
                    return Err(Error::Conflict { code: "E_TOO_MANY_SHARES", message });
                }
                let made = share::find(tx, id, share_id, now).await?;
                audit_in(tx, "session.share", &made, "after", now).await?;
                if let Some(key) = idempotency {
                    key.keep_in(tx, if is_new { 201 } else { 200 }, answer(&made), now).await?;
                }
                let made = Box::new(made);
                Ok(if is_new { Shared::New(made) } else { Shared::Changed(made) })
            })
            .await?;
        // What was to control may be to view from now on.
        core.nudges.send(Nudge::Revalidate);
        Ok(shared)
    }

    /// The shares of a session that have not expired, for its owner and for those who manage sessions.
    pub async fn list(&self, scope: &OrgScope, id: SessionId) -> Result<Vec<SessionShare>> {
        let (core, now) = (&self.0, self.0.clock.now());
        core.db
            .in_org(scope, async |tx| {
                visible_in(core, tx, scope, id).await?;
                Ok(share::list(tx, id, now).await?)
            })
            .await
    }

    /// Ends a share: whoever watches by it is cut off at once. For the session's owner and for those who manage sessions.
    pub async fn revoke(&self, scope: &OrgScope, id: SessionId, share_id: ShareId) -> Result<()> {
        let (core, now) = (&self.0, self.0.clock.now());
        core.db
            .in_org(scope, async |tx| {
                visible_in(core, tx, scope, id).await?;
                let what = format!("share {share_id} of session {id}");
                let before = share::find(tx, id, share_id, now).await.named(&what)?;
                if !share::delete(tx, id, share_id).await? {
                    return Err(Error::not_found(what));
                }
                audit_in(tx, "session.unshare", &before, "before", now).await
            })
            .await?;
        core.nudges.send(Nudge::Revalidate);
        Ok(())
    }
}

/// Whom something is given to: a member, or a group. Refused with `complaint` where it is somebody who has it already.
pub(crate) async fn target_in(
    tx: &mut OrgTx,
    with: ShareTarget,
    (has_it, complaint): (UserId, &str),
) -> Result<(Option<UserId>, Option<GroupId>)> {
    let (user, field) = match with {
        ShareTarget::GroupId(id) => {
            group::find(tx, id).await.named(format_args!("group {id}"))?;
            return Ok((None, Some(id)));
        }
        ShareTarget::Group(name) => {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(50).collect();
            let id = group::find_named(tx, &name).await.named(format_args!("group {shown}"))?;
            return Ok((None, Some(id)));
        }
        ShareTarget::UserId(id) => {
            membership::find(tx, id).await.named(format_args!("member {id}"))?;
            (id, "userId")
        }
        ShareTarget::Username(name) => {
            (membership::find_named(tx, &name).await.named(Person::Named(name))?, "username")
        }
    };
    if user == has_it {
        return Err(Error::Invalid(FieldErrors::one(field, complaint)));
    }
    Ok((Some(user), None))
}

async fn audit_in(
    tx: &mut OrgTx,
    action: &'static str,
    share: &SessionShare,
    when: &'static str,
    at: chrono::DateTime<chrono::Utc>,
) -> Result<()> {
    let shown = json!({
        "shareId": share.id, "userId": share.user_id, "user": share.user, "groupId": share.group_id, "group": share.group,
        "mode": share.mode, "expiresAt": share.expires_at,
    });
    let (resource, detail) = (format!("session:{}", share.session_id), json!({when: shown}));
    Ok(audit::insert_org(tx, audit::Entry { action, resource, address: None, detail, at }).await?)
}
