//! What the platform changes of users, and their end: in every organization at once, and in one transaction.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tidegate_model::{AgentId, OrgId, OrgRole, PlatformUser, SessionState, SystemRole, UserId};

use crate::{
    Error, Operator, OrgTx, PlatformTx, Result, UserScope, UserTx, api_key, bearer_token, credential,
    scope::Stewardship, statement::statement, user,
};

/// Users take their own affairs in hand as nobody but themselves.
pub fn on_own(scope: &UserScope) -> Operator {
    Operator { author: scope.author(), role: scope.role, steward: None }
}

/// What an `org_admin` of the transaction's organization acts as on a member whose home it is: the account is the
/// organization's own. None where it is not, where the member has a role on the platform, or owns the organization.
pub async fn steward(tx: &mut OrgTx, id: UserId) -> Result<Option<Operator>> {
    let (org, user) = (tx.org_id(), tx.user_id()?);
    let rows: Vec<(OrgRole, bool)> = statement::<(Text, Bool)>(
        "SELECT own.role, u.home_org_id IS NOT DISTINCT FROM m.org_id AND u.role = 'user' AND o.owner_user_id IS DISTINCT FROM u.id
         FROM memberships m JOIN users u ON u.id = m.user_id JOIN organizations o ON o.id = m.org_id
         JOIN memberships own ON own.org_id = m.org_id AND own.user_id = ?
         WHERE m.org_id = ? AND m.user_id = ?",
    )
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    let (own, theirs) = rows.into_iter().next().ok_or(Error::NotFound)?;
    let stewardship = Stewardship { org, user };
    let steward = Operator { author: tx.author.clone(), role: SystemRole::User, steward: Some(stewardship) };
    Ok((own == OrgRole::Admin && theirs).then_some(steward))
}

/// Whether what made somebody a steward still holds, under the locks of [`lock`]: it was proved in a transaction of
/// before. Operators of the platform need no such proof.
pub async fn still_may_act(tx: &mut PlatformTx, operator: &Operator, id: UserId) -> Result<bool> {
    let Some(Stewardship { org, user }) = operator.steward else { return Ok(true) };
    let rows: Vec<bool> = statement::<Bool>(
        "SELECT EXISTS (
             SELECT 1 FROM memberships own JOIN users actor ON actor.id = own.user_id AND actor.active
             JOIN organizations o ON o.id = own.org_id AND o.status = 'active'
             JOIN memberships m ON m.org_id = own.org_id
             JOIN users u ON u.id = m.user_id AND u.home_org_id = own.org_id AND u.role = 'user'
             WHERE own.org_id = ? AND own.user_id = ? AND own.role = 'org_admin' AND m.user_id = ?
               AND o.owner_user_id IS DISTINCT FROM u.id)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    Ok(rows == [true])
}

/// A user, locked with their organizations in the lock order: what runs in these waits, and then finds what became of
/// the user.
pub async fn lock(tx: &mut PlatformTx, id: UserId) -> Result<PlatformUser> {
    let conn = tx.conn()?;
    statement::<()>(
        "SELECT 1 FROM organizations WHERE id IN (SELECT m.org_id FROM memberships m WHERE m.user_id = ?)
         ORDER BY id FOR NO KEY UPDATE",
    )
    .bind::<Uuid, _>(id)
    .execute(conn)
    .await?;
    let found = statement::<()>("SELECT 1 FROM users WHERE id = ? AND deleted_at IS NULL FOR NO KEY UPDATE");
    if found.bind::<Uuid, _>(id).execute(conn).await? == 0 {
        return Err(Error::NotFound);
    }
    user::find(tx, id).await
}

/// Whether the transaction's user may still act, and keeps them from being deactivated or deleted until it ends: for
/// what must not be left behind by somebody who is gone. The first lock of whoever asks.
pub async fn hold_own(tx: &mut UserTx) -> Result<bool> {
    let user = tx.user_id;
    active_held(tx.conn()?, user).await
}

/// The same of any user.
pub async fn hold(tx: &mut PlatformTx, id: UserId) -> Result<bool> {
    active_held(tx.conn()?, id).await
}

async fn active_held(conn: &mut AsyncPgConnection, id: UserId) -> Result<bool> {
    let held = statement::<()>("SELECT 1 FROM users WHERE id = ? AND active FOR SHARE");
    Ok(held.bind::<Uuid, _>(id).execute(conn).await? == 1)
}

/// Whether an active admin is left without this one. Whoever takes an admin away takes turns here.
pub async fn another_admin(tx: &mut PlatformTx, id: UserId) -> Result<bool> {
    let conn = tx.conn()?;
    conn.batch_execute("SELECT pg_advisory_xact_lock(7526411283028599909)").await?;
    let rows: Vec<bool> =
        statement::<Bool>("SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin' AND active AND id <> ?)")
            .bind::<Uuid, _>(id)
            .load(conn)
            .await?;
    Ok(rows == [true])
}

/// What changes of a user; what is none stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// E-mail address.
    pub email: Option<String>,
    /// Display name.
    pub full_name: Option<String>,
    /// Role on the platform.
    pub role: Option<SystemRole>,
    /// Whether the user may log in.
    pub active: Option<bool>,
    /// The organization that is home from now on, or none.
    pub home: Option<Option<OrgId>>,
}

/// Changes a user.
pub async fn update(tx: &mut PlatformTx, id: UserId, change: Change, now: DateTime<Utc>) -> Result<()> {
    let changed = statement::<()>(
        "UPDATE users SET email = COALESCE(?, email), full_name = COALESCE(?, full_name), role = COALESCE(?, role),
                active = COALESCE(?, active), home_org_id = CASE WHEN ? THEN ? ELSE home_org_id END, updated_at = ?
         WHERE id = ? AND deleted_at IS NULL",
    )
    .bind::<Nullable<Text>, _>(change.email)
    .bind::<Nullable<Text>, _>(change.full_name)
    .bind::<Nullable<Text>, _>(change.role)
    .bind::<Nullable<Bool>, _>(change.active)
    .bind::<Bool, _>(change.home.is_some())
    .bind::<Nullable<Uuid>, _>(change.home.flatten())
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Makes an organization the home of a user who has none.
pub async fn settle(tx: &mut PlatformTx, id: UserId, home: OrgId) -> Result<()> {
    statement::<()>("UPDATE users SET home_org_id = ? WHERE id = ? AND home_org_id IS NULL")
        .bind::<Uuid, _>(home)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Ends every login, key and bearer token of a user, and their tickets for streams; after the user's row was written.
pub async fn end_credentials(tx: &mut PlatformTx, id: UserId, now: DateTime<Utc>) -> Result<()> {
    end(tx, id, Keys::End, now).await
}

/// The same but for the API keys, which act for programs: for users who have forgotten their password.
pub async fn end_logins(tx: &mut PlatformTx, id: UserId, now: DateTime<Utc>) -> Result<()> {
    end(tx, id, Keys::Keep, now).await
}

/// What becomes of API keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    End,
    Keep,
}

async fn end(tx: &mut PlatformTx, id: UserId, keys: Keys, now: DateTime<Utc>) -> Result<()> {
    credential::end_of_user(tx, id).await?;
    statement::<()>("UPDATE login_sessions SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL")
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    if keys == Keys::End {
        api_key::revoke_of_user(tx, id, now).await?;
    }
    bearer_token::end_all_of_user(tx, id, now).await?;
    statement::<()>("DELETE FROM stream_tickets WHERE user_id = ? AND consumed_at IS NULL")
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Begins the end of every session of a user, with a stop for each, and takes the invites back that they sent. Gives
/// the agents that have work by it.
pub async fn end_work(
    tx: &mut PlatformTx,
    id: UserId,
    reason: &str,
    deadline: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<AgentId>> {
    let conn = tx.conn()?;
    statement::<()>(
        "UPDATE invites SET status = 'revoked', decided_at = ? WHERE inviter_user_id = ? AND status = 'pending'",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(conn)
    .await?;
    let agents: Vec<AgentId> = statement::<Uuid>(
        // Locked in the order of the ids, as agents' reports lock them.
        "WITH held AS MATERIALIZED (
             SELECT h.id FROM sessions h
             WHERE h.user_id = ? AND h.agent_id IS NOT NULL AND h.hidden_at IS NULL
               AND h.state NOT IN ('terminated', 'failed') AND h.state = ANY(?)
             ORDER BY h.id FOR NO KEY UPDATE),
         moved AS (
             UPDATE sessions s SET state = 'terminating', state_reason = ?, state_since = ?, streaming_ready = false
             FROM held WHERE s.id = held.id AND s.hidden_at IS NULL AND s.state = ANY(?)
             RETURNING s.id, s.org_id, s.agent_id, s.agent_handle, s.generation),
         queued AS (
             INSERT INTO commands (id, org_id, agent_id, agent_handle, session_id, generation, action, payload, status, deadline, created_at)
             SELECT tidegate_uuid_v7(?), m.org_id, m.agent_id, m.agent_handle, m.id, m.generation, 'stop_session',
                    jsonb_build_object('sessionId', m.id, 'generation', m.generation), 'pending', ?, ? FROM moved m
             RETURNING agent_id)
         SELECT DISTINCT agent_id FROM queued",
    )
    .bind::<Uuid, _>(id)
    .bind::<Array<Text>, _>(SessionState::Terminating.predecessors().to_vec())
    .bind::<Text, _>(reason.to_owned())
    .bind::<Timestamptz, _>(now)
    .bind::<Array<Text>, _>(SessionState::Terminating.predecessors().to_vec())
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(deadline)
    .bind::<Timestamptz, _>(now)
    .load(conn)
    .await?;
    Ok(agents)
}

/// The organizations that a user owns and that have not ended; the first five by name.
pub async fn owned(tx: &mut PlatformTx, id: UserId) -> Result<Vec<String>> {
    let owned = statement::<Text>(
        "SELECT name FROM organizations WHERE owner_user_id = ? AND status <> 'deleted' ORDER BY name LIMIT 5",
    );
    Ok(owned.bind::<Uuid, _>(id).load(tx.conn()?).await?)
}

/// Whether a user owns or manages an organization that has not ended.
pub async fn manages(tx: &mut PlatformTx, id: UserId) -> Result<bool> {
    let rows: Vec<bool> = statement::<Bool>(
        "SELECT EXISTS (SELECT 1 FROM organizations WHERE owner_user_id = ? AND status <> 'deleted')
             OR EXISTS (SELECT 1 FROM memberships m JOIN organizations o ON o.id = m.org_id AND o.status <> 'deleted'
                        WHERE m.user_id = ? AND m.role IN ('org_admin', 'maintainer'))",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    Ok(rows == [true])
}

/// Whether a user is a member of an organization that has not ended, other than the one that the operator acts for.
pub async fn reaches_elsewhere(tx: &mut PlatformTx, operator: &Operator, id: UserId) -> Result<bool> {
    let Some(Stewardship { org, .. }) = operator.steward else { return Ok(false) };
    Ok(organizations(tx, id).await?.into_iter().any(|other| other != org))
}

/// The organizations that a user is a member of and that have not ended.
pub async fn organizations(tx: &mut PlatformTx, id: UserId) -> Result<Vec<OrgId>> {
    let of_user = statement::<Uuid>(
        "SELECT o.id FROM memberships m JOIN organizations o ON o.id = m.org_id
         WHERE m.user_id = ? AND o.status <> 'deleted' ORDER BY o.id",
    );
    Ok(of_user.bind::<Uuid, _>(id).load(tx.conn()?).await?)
}

/// The organizations that nobody else could manage without a user: the first five by name.
pub async fn managed_alone(tx: &mut PlatformTx, id: UserId) -> Result<Vec<String>> {
    let alone = statement::<Text>(
        "SELECT o.name FROM memberships m JOIN organizations o ON o.id = m.org_id
         WHERE m.user_id = ? AND m.role = 'org_admin' AND o.status <> 'deleted' AND NOT EXISTS (
             SELECT 1 FROM memberships other JOIN users u ON u.id = other.user_id AND u.active
             WHERE other.org_id = o.id AND other.role = 'org_admin' AND other.user_id <> m.user_id)
         ORDER BY o.name LIMIT 5",
    );
    Ok(alone.bind::<Uuid, _>(id).load(tx.conn()?).await?)
}

/// Deletes a user: memberships, what is personal and what somebody could come in with. The row stays, and with it the
/// name, so that what it did is never taken for somebody else's doing; e-mail address and whoever vouched for the user
/// are free again.
pub async fn delete(tx: &mut PlatformTx, id: UserId, now: DateTime<Utc>) -> Result<()> {
    const OF_USER: [&str; 3] = [
        "UPDATE invites SET accepted_by = NULL WHERE accepted_by = ?",
        "DELETE FROM memberships WHERE user_id = ?",
        "DELETE FROM identities WHERE user_id = ?",
    ];
    let conn = tx.conn()?;
    for sql in OF_USER {
        statement::<()>(sql).bind::<Uuid, _>(id).execute(conn).await?;
    }
    statement::<()>(
        "UPDATE invites SET status = 'revoked', decided_at = ?
         WHERE status = 'pending' AND lower(invitee_username) = (SELECT lower(u.username) FROM users u WHERE u.id = ?)",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(conn)
    .await?;
    let gone = statement::<()>(
        "UPDATE users SET active = false, role = 'user', email = NULL, full_name = username, password_hash = NULL,
                github_id = NULL, avatar_url = NULL, home_org_id = NULL, updated_at = ?, deleted_at = ?
         WHERE id = ? AND deleted_at IS NULL",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(conn)
    .await?;
    if gone == 1 { Ok(()) } else { Err(Error::NotFound) }
}
