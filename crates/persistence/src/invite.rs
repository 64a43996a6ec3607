//! Invites: each answer is one statement, and final.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{Invite, InviteId, InviteStatus, OrgId, OrgRole, UserId};

use crate::{Error, OrgTx, Result, UserTx, statement::statement};

type Columns =
    (Uuid, Uuid, Text, Text, Uuid, Text, Text, Text, Timestamptz, Timestamptz, Nullable<Timestamptz>);
type Row = (
    InviteId,
    OrgId,
    String,
    String,
    UserId,
    String,
    OrgRole,
    InviteStatus,
    DateTime<Utc>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
);

fn invite(row: Row) -> Invite {
    let (id, org_id, org_name, to, from_id, from, role, status, created_at, expires_at, decided_at) = row;
    Invite {
        id,
        org_id,
        org_name,
        invitee_username: to,
        inviter_user_id: from_id,
        inviter_username: from,
        role,
        status,
        created_at,
        expires_at,
        decided_at,
    }
}

/// An invite to insert.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// The id.
    pub id: InviteId,
    /// Whom it is for.
    pub invitee: String,
    /// Who makes it.
    pub inviter: (UserId, String),
    /// The role of whoever accepts it.
    pub role: OrgRole,
    /// Until when it can be accepted.
    pub expires_at: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Makes a pending invite. One that is past its time gives way; one that is not is a violation of the one pending invite.
pub async fn insert(tx: &mut OrgTx, new: NewInvite) -> Result<()> {
    let org = tx.org_id();
    let conn = tx.conn()?;
    statement::<()>(
        "UPDATE invites SET status = 'revoked', decided_at = expires_at
         WHERE org_id = ? AND lower(invitee_username) = lower(?) AND status = 'pending' AND expires_at <= ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(new.invitee.clone())
    .bind::<Timestamptz, _>(new.now)
    .execute(conn)
    .await?;
    statement::<()>(
        "INSERT INTO invites (id, org_id, invitee_username, inviter_user_id, inviter_username, role, status, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, 'pending', ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(new.invitee)
    .bind::<Uuid, _>(new.inviter.0)
    .bind::<Text, _>(new.inviter.1)
    .bind::<Text, _>(new.role)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Timestamptz, _>(new.expires_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// An invite of the organization.
pub async fn find(tx: &mut OrgTx, id: InviteId) -> Result<Invite> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT i.id, i.org_id, o.name, i.invitee_username, i.inviter_user_id, i.inviter_username, i.role, i.status, i.created_at, i.expires_at, i.decided_at
         FROM invites i JOIN organizations o ON o.id = i.org_id WHERE i.org_id = ? AND i.id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(invite).ok_or(Error::NotFound)
}

/// The organization's invites, the newest first, from the one before `before` on, with how many there are on all pages.
pub async fn list(
    tx: &mut OrgTx,
    before: Option<(DateTime<Utc>, InviteId)>,
    limit: i64,
) -> Result<(Vec<Invite>, i64)> {
    let org = tx.org_id();
    let (at, id) = before.unzip();
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT i.id, i.org_id, o.name, i.invitee_username, i.inviter_user_id, i.inviter_username, i.role, i.status, i.created_at, i.expires_at, i.decided_at
         FROM invites i JOIN organizations o ON o.id = i.org_id
         WHERE i.org_id = ? AND (i.created_at, i.id) < (COALESCE(?, 'infinity'), COALESCE(?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
         ORDER BY i.created_at DESC, i.id DESC LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Timestamptz>, _>(at)
    .bind::<Nullable<Uuid>, _>(id)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> =
        statement::<BigInt>("SELECT count(*) FROM (SELECT 1 FROM invites WHERE org_id = ? LIMIT 10001) i")
            .bind::<Uuid, _>(org)
            .load(conn)
            .await?;
    Ok((rows.into_iter().map(invite).collect(), total.into_iter().next().unwrap_or(0)))
}

/// The pending invites for the user of the transaction, the newest first; at most `limit`.
pub async fn list_for_me(tx: &mut UserTx, now: DateTime<Utc>, limit: i64) -> Result<Vec<Invite>> {
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT i.id, i.org_id, o.name, i.invitee_username, i.inviter_user_id, i.inviter_username, i.role, i.status, i.created_at, i.expires_at, i.decided_at
         FROM invites i JOIN organizations o ON o.id = i.org_id
         WHERE i.status = 'pending' AND i.expires_at > ? AND o.status = 'active'
           AND lower(i.invitee_username) = (SELECT lower(u.username) FROM users u WHERE u.id = ?)
         ORDER BY i.created_at DESC, i.id DESC LIMIT ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(tx.user_id)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(invite).collect())
}

/// An invite for the user of the transaction, however it stands, and what its organization calls itself if that is active;
/// its name is empty where the user may not see it any more. Not found where it is for somebody else.
pub async fn find_for_me(tx: &mut UserTx, id: InviteId) -> Result<(Invite, Option<String>)> {
    let rows: Vec<(Row, Option<String>)> = statement::<(Columns, Nullable<Text>)>(
        "SELECT i.id, i.org_id, COALESCE(o.name, ''), i.invitee_username, i.inviter_user_id, i.inviter_username, i.role, i.status, i.created_at, i.expires_at, i.decided_at,
           CASE WHEN o.status = 'active' THEN o.display_name END
         FROM invites i LEFT JOIN organizations o ON o.id = i.org_id
         WHERE i.id = ? AND lower(i.invitee_username) = (SELECT lower(u.username) FROM users u WHERE u.id = ?)",
    )
    .bind::<Uuid, _>(id)
    .bind::<Uuid, _>(tx.user_id)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(|(row, shown)| (invite(row), shown)).ok_or(Error::NotFound)
}

/// Whether an invite is for the user of the transaction; not found where there is none at all.
pub async fn is_for_me(tx: &mut UserTx, id: InviteId) -> Result<bool> {
    let rows: Vec<bool> = statement::<Bool>("SELECT mine FROM invite_is_for_me(?)")
        .bind::<Uuid, _>(id)
        .load(tx.conn()?)
        .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Accepts a pending invite of the user's that is not past its time: exactly one racer gets organization and role.
pub async fn accept(tx: &mut UserTx, id: InviteId, now: DateTime<Utc>) -> Result<Option<(OrgId, OrgRole)>> {
    let user = tx.user_id;
    let rows: Vec<(OrgId, OrgRole)> = statement::<(Uuid, Text)>(
        "UPDATE invites SET status = 'accepted', decided_at = ?, accepted_by = ?
         WHERE id = ? AND status = 'pending' AND expires_at > ?
           AND org_id IN (SELECT o.id FROM organizations o WHERE o.status = 'active') RETURNING org_id, role",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(id)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next())
}

/// Declines a pending invite of the user's.
pub async fn decline(tx: &mut UserTx, id: InviteId, now: DateTime<Utc>) -> Result<Option<OrgId>> {
    let rows: Vec<OrgId> = statement::<Uuid>(
        "UPDATE invites SET status = 'declined', decided_at = ? WHERE id = ? AND status = 'pending' RETURNING org_id",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next())
}

/// Takes a pending invite of the organization back; false when it is not pending any more.
pub async fn revoke(tx: &mut OrgTx, id: InviteId, now: DateTime<Utc>) -> Result<bool> {
    let org = tx.org_id();
    let changed = statement::<()>(
        "UPDATE invites SET status = 'revoked', decided_at = ? WHERE org_id = ? AND id = ? AND status = 'pending'",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Takes back what somebody who may not invite any more has sent.
pub async fn revoke_of(tx: &mut OrgTx, inviter: UserId, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    statement::<()>(
        "UPDATE invites SET status = 'revoked', decided_at = ? WHERE org_id = ? AND inviter_user_id = ? AND status = 'pending'",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(inviter)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Revokes the pending invite for somebody who is let in or out another way: it must not bring them back later.
pub async fn revoke_for(tx: &mut OrgTx, invitee: &str, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    statement::<()>(
        "UPDATE invites SET status = 'revoked', decided_at = ? WHERE org_id = ? AND lower(invitee_username) = lower(?) AND status = 'pending'",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(invitee.to_owned())
    .execute(tx.conn()?)
    .await?;
    Ok(())
}
