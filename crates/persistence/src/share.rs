//! Shares of sessions: who may look into one beside its owner.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{EventId, GroupId, SessionId, SessionShare, ShareId, SharedWith, StreamMode, UserId};

use crate::{Error, OrgTx, Result, statement::statement};

/// A share to insert, or to put over the one that is there.
#[derive(Debug, Clone, Copy)]
pub struct NewShare {
    /// The id it gets where it is new.
    pub id: ShareId,
    /// The session.
    pub session_id: SessionId,
    /// The member it is for; else the group.
    pub user_id: Option<UserId>,
    /// The group it is for; else the member.
    pub group_id: Option<GroupId>,
    /// What they may do.
    pub mode: StreamMode,
    /// The present.
    pub now: DateTime<Utc>,
    /// Until when.
    pub expires_at: Option<DateTime<Utc>>,
}

type Columns = (
    Uuid,
    Uuid,
    Nullable<Uuid>,
    Nullable<Text>,
    Nullable<Uuid>,
    Nullable<Text>,
    Text,
    Timestamptz,
    Nullable<Timestamptz>,
);
type Row = (
    ShareId,
    SessionId,
    Option<UserId>,
    Option<String>,
    Option<GroupId>,
    Option<String>,
    StreamMode,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
);

fn share(row: Row) -> SessionShare {
    let (id, session_id, user_id, user, group_id, group, mode, created_at, expires_at) = row;
    SessionShare { id, session_id, user_id, user, group_id, group, mode, created_at, expires_at }
}

/// Shares a session with a member or a group; a repeat gives the mode and the time. Says whether it is new.
pub async fn put(tx: &mut OrgTx, new: NewShare) -> Result<(ShareId, bool)> {
    let org = tx.org_id();
    let sql = if new.user_id.is_some() {
        "INSERT INTO session_shares (id, org_id, session_id, user_id, group_id, mode, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (session_id, user_id) DO UPDATE SET mode = EXCLUDED.mode, created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at
         RETURNING id"
    } else {
        "INSERT INTO session_shares (id, org_id, session_id, user_id, group_id, mode, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (session_id, group_id) DO UPDATE SET mode = EXCLUDED.mode, created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at
         RETURNING id"
    };
    let rows: Vec<ShareId> = statement::<Uuid>(sql)
        .bind::<Uuid, _>(new.id)
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(new.session_id)
        .bind::<Nullable<Uuid>, _>(new.user_id)
        .bind::<Nullable<Uuid>, _>(new.group_id)
        .bind::<Text, _>(new.mode)
        .bind::<Timestamptz, _>(new.now)
        .bind::<Nullable<Timestamptz>, _>(new.expires_at)
        .load(tx.conn()?)
        .await?;
    let id = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok((id, id == new.id))
}

/// The shares of a session that have not expired, the oldest first.
pub async fn list(tx: &mut OrgTx, session: SessionId, now: DateTime<Utc>) -> Result<Vec<SessionShare>> {
    select(tx, session, None, now).await
}

/// One of them.
pub async fn find(
    tx: &mut OrgTx,
    session: SessionId,
    id: ShareId,
    now: DateTime<Utc>,
) -> Result<SessionShare> {
    select(tx, session, Some(id), now).await?.into_iter().next().ok_or(Error::NotFound)
}

async fn select(
    tx: &mut OrgTx,
    session: SessionId,
    id: Option<ShareId>,
    now: DateTime<Utc>,
) -> Result<Vec<SessionShare>> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT s.id, s.session_id, s.user_id, u.username, s.group_id, g.name, s.mode, s.created_at, s.expires_at
         FROM session_shares s LEFT JOIN users u ON u.id = s.user_id LEFT JOIN groups g ON g.org_id = s.org_id AND g.id = s.group_id
         WHERE s.org_id = ? AND s.session_id = ? AND (s.expires_at IS NULL OR s.expires_at > ?) AND (?::uuid IS NULL OR s.id = ?)
         ORDER BY s.created_at, s.id",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(session)
    .bind::<Timestamptz, _>(now)
    .bind::<Nullable<Uuid>, _>(id)
    .bind::<Nullable<Uuid>, _>(id)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(share).collect())
}

/// How many shares a session has, expired ones too.
pub async fn count(tx: &mut OrgTx, session: SessionId) -> Result<i64> {
    let org = tx.org_id();
    let rows: Vec<i64> =
        statement::<BigInt>("SELECT count(*) FROM session_shares WHERE org_id = ? AND session_id = ?")
            .bind::<Uuid, _>(org)
            .bind::<Uuid, _>(session)
            .load(tx.conn()?)
            .await?;
    Ok(rows.into_iter().next().unwrap_or(0))
}

/// Ends a share. False when it is not there.
pub async fn delete(tx: &mut OrgTx, session: SessionId, id: ShareId) -> Result<bool> {
    let org = tx.org_id();
    let gone = statement::<()>("DELETE FROM session_shares WHERE org_id = ? AND session_id = ? AND id = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(session)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    Ok(gone == 1)
}

/// What a member may do with a session by its shares at this moment.
pub async fn with(
    tx: &mut OrgTx,
    session: SessionId,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Option<SharedWith>> {
    Ok(with_many(tx, vec![session], user, now).await?.into_iter().next().map(|(_, shared)| shared))
}

/// The same for some sessions at once; those that are not shared with the member are left out.
pub async fn with_many(
    tx: &mut OrgTx,
    sessions: Vec<SessionId>,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Vec<(SessionId, SharedWith)>> {
    let org = tx.org_id();
    let rows: Vec<(SessionId, StreamMode, Option<DateTime<Utc>>)> =
        statement::<(Uuid, Text, Nullable<Timestamptz>)>(
            "SELECT w.id, s.mode, s.expires_at FROM unnest(?::uuid[]) AS w(id), share_of(?, w.id, ?, ?) s",
        )
        .bind::<Array<Uuid>, _>(sessions)
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(user)
        .bind::<Timestamptz, _>(now)
        .load(tx.conn()?)
        .await?;
    Ok(rows.into_iter().map(|(id, mode, expires_at)| (id, SharedWith { mode, expires_at })).collect())
}

/// Every session that is shared with a member at this moment; at most 10 000.
pub async fn sessions_shared_with(
    tx: &mut OrgTx,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Vec<SessionId>> {
    let org = tx.org_id();
    Ok(statement::<Uuid>("SELECT DISTINCT s.session_id FROM shares_with(?, ?, ?) s LIMIT 10000")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(user)
        .bind::<Timestamptz, _>(now)
        .load(tx.conn()?)
        .await?)
}

/// Which of some events of sessions a member may hear by shares: those that came after the share began, and their own part
/// in it (the membership of a group, a group's place below another), as long as it stands. By place, whatever clocks say.
pub async fn heard_by(
    tx: &mut OrgTx,
    user: UserId,
    events: &[(SessionId, EventId)],
    now: DateTime<Utc>,
) -> Result<BTreeSet<EventId>> {
    let org = tx.org_id();
    let sessions: Vec<SessionId> = events.iter().map(|(session, _)| *session).collect();
    let wanted = sessions.iter().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let rows: Vec<(i64, i64)> = statement::<(BigInt, BigInt)>(
        "WITH ways AS MATERIALIZED (SELECT s.session_id, s.since FROM shares_since(?, ?, ?, ?) s)
         SELECT e.xact, e.seq FROM unnest(?::uuid[], ?::bigint[], ?::bigint[]) AS e(session_id, xact, seq)
         WHERE EXISTS (SELECT 1 FROM ways w WHERE w.session_id = e.session_id AND NOT EXISTS (
             SELECT 1 FROM unnest(w.since) AS b(began) WHERE pg_visible_in_snapshot(e.xact::text::xid8, b.began::pg_snapshot)))",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Array<Uuid>, _>(wanted)
    .bind::<Timestamptz, _>(now)
    .bind::<Array<Uuid>, _>(sessions)
    .bind::<Array<BigInt>, _>(events.iter().map(|(_, id)| id.xact()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(events.iter().map(|(_, id)| id.seq()).collect::<Vec<_>>())
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().map(|(xact, seq)| EventId::new(xact, seq)).collect())
}
