//! Mails that wait to be sent: rows in the transaction of what they are about, claimed with a lease by whoever sends.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{InviteId, MailId, MailStatus, OrgRole};

use crate::{OrgTx, PlatformTx, Result, statement::statement};

type Columns =
    (Uuid, Integer, Timestamptz, Uuid, Text, Text, Text, Text, Text, Text, Timestamptz, Bool, Nullable<Text>);
type Row = (
    MailId,
    i32,
    DateTime<Utc>,
    InviteId,
    String,
    String,
    String,
    String,
    String,
    OrgRole,
    DateTime<Utc>,
    bool,
    Option<String>,
);

/// A mail that was claimed, with what it says as it stands at this moment.
#[derive(Debug, Clone)]
pub struct DueMail {
    /// The mail.
    pub id: MailId,
    /// Which try this is, from 1 on: the fence of whoever claimed it.
    pub attempt: i32,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// The invite that it is about.
    pub invite_id: InviteId,
    /// The organization's name, and what it calls itself.
    pub organization: (String, String),
    /// The inviter's username, and their full name.
    pub inviter: (String, String),
    /// Whom the invite is for, as it was written.
    pub invitee: String,
    /// The role of whoever accepts it.
    pub role: OrgRole,
    /// Until when it can be accepted.
    pub expires_at: DateTime<Utc>,
    /// Whether it can still be accepted.
    pub open: bool,
    /// The invitee's address, if there is such a user who is active and has one.
    pub to: Option<String>,
}

fn due(row: Row) -> DueMail {
    let (
        id,
        attempt,
        created_at,
        invite_id,
        name,
        shown,
        inviter,
        full_name,
        whom,
        role,
        expires_at,
        open,
        to,
    ) = row;
    DueMail {
        id,
        attempt,
        created_at,
        invite_id,
        organization: (name, shown),
        inviter: (inviter, full_name),
        invitee: whom,
        role,
        expires_at,
        open,
        to,
    }
}

/// Asks for the mail about an invite of the organization.
pub async fn insert(tx: &mut OrgTx, id: MailId, invite: InviteId, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    statement::<()>("INSERT INTO mails (id, org_id, invite_id, due_at, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind::<Uuid, _>(id)
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(invite)
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(now)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

/// Claims mails that are due, at most `limit`, until `lease`: nobody else sends them before, and after it anybody may.
pub async fn claim(
    tx: &mut PlatformTx,
    now: DateTime<Utc>,
    lease: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<DueMail>> {
    let rows: Vec<Row> = statement::<Columns>(
        "WITH due AS MATERIALIZED (SELECT m.id FROM mails m WHERE m.status = 'pending' AND m.due_at <= ?
           ORDER BY m.due_at LIMIT ? FOR UPDATE SKIP LOCKED),
         claimed AS (UPDATE mails m SET attempts = m.attempts + 1, due_at = ? FROM due WHERE m.id = due.id
           RETURNING m.id, m.attempts, m.created_at, m.invite_id)
         SELECT c.id, c.attempts, c.created_at, c.invite_id, o.name, o.display_name, i.inviter_username, f.full_name,
           i.invitee_username, i.role, i.expires_at, i.status = 'pending' AND i.expires_at > ? AND o.status = 'active', u.email
         FROM claimed c JOIN invites i ON i.id = c.invite_id JOIN organizations o ON o.id = i.org_id
         JOIN users f ON f.id = i.inviter_user_id
         LEFT JOIN users u ON lower(u.username) = lower(i.invitee_username) AND u.active AND u.deleted_at IS NULL",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(limit)
    .bind::<Timestamptz, _>(lease)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(due).collect())
}

/// Ends a mail that was claimed as this try; false where its lease had passed and another try began or ended it.
pub async fn finish(
    tx: &mut PlatformTx,
    (id, attempt): (MailId, i32),
    status: MailStatus,
    reason: Option<String>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let ended = statement::<()>(
        "UPDATE mails SET status = ?, reason = ?, finished_at = ? WHERE id = ? AND attempts = ? AND status = 'pending'",
    )
    .bind::<Text, _>(status)
    .bind::<Nullable<Text>, _>(reason)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Integer, _>(attempt)
    .execute(tx.conn()?)
    .await?;
    Ok(ended == 1)
}

/// Puts a mail off that was claimed as this try.
pub async fn postpone(
    tx: &mut PlatformTx,
    (id, attempt): (MailId, i32),
    reason: String,
    due_at: DateTime<Utc>,
) -> Result<()> {
    statement::<()>(
        "UPDATE mails SET due_at = ?, reason = ? WHERE id = ? AND attempts = ? AND status = 'pending'",
    )
    .bind::<Timestamptz, _>(due_at)
    .bind::<Text, _>(reason)
    .bind::<Uuid, _>(id)
    .bind::<Integer, _>(attempt)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}
