//! Who reads pipes: what one member reads, who reads one pipe, and who was seen at all.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{SourceId, SourceKind, UserId};

use crate::{OrgTx, Result, statement::statement};

/// A pipe that a member reads and may read, as far as rows know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// The source.
    pub source_id: SourceId,
    /// Its handle.
    pub handle: String,
    /// What it is.
    pub kind: SourceKind,
    /// Who made it.
    pub owner: Option<String>,
    /// The pipe.
    pub pipe: String,
    /// Of which stream the place is.
    pub incarnation: Option<DateTime<Utc>>,
    /// The last message that was taken.
    pub sequence: i64,
    /// When that was written down.
    pub at: DateTime<Utc>,
    /// Which stream the pipe has.
    pub stream: Option<DateTime<Utc>>,
}

/// What a member reads, by handle and pipe behind `after`, and how much there is in all. What they may not read any more is
/// left out.
pub async fn subscriptions(
    tx: &mut OrgTx,
    user: UserId,
    after: (String, String),
    limit: i64,
) -> Result<(Vec<Subscribed>, i64)> {
    type Columns = (
        Uuid,
        Text,
        Text,
        Nullable<Text>,
        Text,
        Nullable<Timestamptz>,
        BigInt,
        Timestamptz,
        Nullable<Timestamptz>,
    );
    type Row = (
        SourceId,
        String,
        SourceKind,
        Option<String>,
        String,
        Option<DateTime<Utc>>,
        i64,
        DateTime<Utc>,
        Option<DateTime<Utc>>,
    );
    let org = tx.org_id();
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT s.id, s.handle, s.kind, u.username, c.pipe, c.incarnation, c.sequence, c.at, t.incarnation
         FROM read_cursors c JOIN sources s ON s.org_id = c.org_id AND s.id = c.source_id
         LEFT JOIN pipe_streams t ON t.org_id = c.org_id AND t.source_id = c.source_id AND t.pipe = c.pipe
         LEFT JOIN users u ON u.id = s.created_by
         WHERE c.org_id = ? AND c.user_id = ? AND (s.handle, c.pipe) > (?, ?) AND (s.created_by = c.user_id
            OR (c.pipe NOT IN ('inbox', 'stdin', 'stdctrl')
                AND c.source_id IN (SELECT r.source_id FROM source_rights(?, ?) r WHERE r.allows = 'read')))
         ORDER BY s.handle, c.pipe LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(after.0)
    .bind::<Text, _>(after.1)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM read_cursors c JOIN sources s ON s.org_id = c.org_id AND s.id = c.source_id
         WHERE c.org_id = ? AND c.user_id = ? AND (s.created_by = c.user_id
            OR (c.pipe NOT IN ('inbox', 'stdin', 'stdctrl')
                AND c.source_id IN (SELECT r.source_id FROM source_rights(?, ?) r WHERE r.allows = 'read')))
         LIMIT 10001) c",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .load(conn)
    .await?;
    let subscribed = |(source_id, handle, kind, owner, pipe, incarnation, sequence, at, stream): Row| {
        Subscribed { source_id, handle, kind, owner, pipe, incarnation, sequence, at, stream }
    };
    Ok((rows.into_iter().map(subscribed).collect(), total.into_iter().next().unwrap_or(0)))
}

/// Somebody who reads a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeReader {
    /// The reader.
    pub user_id: UserId,
    /// Their username.
    pub username: String,
    /// Of which stream the place is.
    pub incarnation: Option<DateTime<Utc>>,
    /// The last message that was taken.
    pub sequence: i64,
    /// When that was written down.
    pub at: DateTime<Utc>,
}

/// Who reads a pipe, by username; at most `limit`.
pub async fn readers(tx: &mut OrgTx, source: SourceId, pipe: &str, limit: i64) -> Result<Vec<PipeReader>> {
    type Row = (UserId, String, Option<DateTime<Utc>>, i64, DateTime<Utc>);
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<(Uuid, Text, Nullable<Timestamptz>, BigInt, Timestamptz)>(
        "SELECT c.user_id, u.username, c.incarnation, c.sequence, c.at FROM read_cursors c JOIN users u ON u.id = c.user_id
         WHERE c.org_id = ? AND c.source_id = ? AND c.pipe = ? ORDER BY lower(u.username) LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(source)
    .bind::<Text, _>(pipe.to_owned())
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    let reader = |(user_id, username, incarnation, sequence, at)| PipeReader {
        user_id,
        username,
        incarnation,
        sequence,
        at,
    };
    Ok(rows.into_iter().map(reader).collect())
}

/// Somebody who uses pipes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The member.
    pub user_id: UserId,
    /// Their username.
    pub username: String,
    /// When they last read, or got a token for NATS.
    pub at: DateTime<Utc>,
    /// Until when the last token is good that was not revoked.
    pub token_until: Option<DateTime<Utc>>,
    /// How many pipes they read.
    pub pipes: i64,
}

/// Members who were seen on pipes, the last one first, from before `before` on; and how many there are in all.
pub async fn seen(
    tx: &mut OrgTx,
    before: Option<(DateTime<Utc>, UserId)>,
    limit: i64,
) -> Result<(Vec<Seen>, i64)> {
    type Row = (UserId, String, DateTime<Utc>, Option<DateTime<Utc>>, i64, i64);
    let org = tx.org_id();
    let (time, user) = before.unzip();
    let rows: Vec<Row> = statement::<(Uuid, Text, Timestamptz, Nullable<Timestamptz>, BigInt, BigInt)>(
        "WITH seen AS (
            SELECT e.user_id, max(e.at) AS at, max(e.until) AS until, sum(e.pipes)::bigint AS pipes FROM (
                SELECT p.user_id, p.renewed_at AS at, 0 AS pipes,
                       CASE WHEN p.revoked_at IS NULL OR p.revoked_at < p.renewed_at THEN p.valid_until END AS until
                FROM nats_principals p WHERE p.org_id = ?
                UNION ALL
                SELECT c.user_id, c.at, 1, NULL FROM read_cursors c WHERE c.org_id = ?) e GROUP BY e.user_id),
         members AS (
            SELECT s.user_id, u.username, s.at, s.until, s.pipes FROM seen s
            JOIN memberships m ON m.org_id = ? AND m.user_id = s.user_id JOIN users u ON u.id = s.user_id)
         SELECT m.user_id, m.username, m.at, m.until, m.pipes, (SELECT count(*) FROM members) FROM members m
         WHERE ?::timestamptz IS NULL OR (m.at, m.user_id) < (?::timestamptz, ?::uuid)
         ORDER BY m.at DESC, m.user_id DESC LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Timestamptz>, _>(time)
    .bind::<Nullable<Timestamptz>, _>(time)
    .bind::<Nullable<Uuid>, _>(user)
    .bind::<BigInt, _>(limit)
    .load(tx.conn()?)
    .await?;
    let total = rows.as_slice().first().map_or(0, |row| row.5);
    let seen = |(user_id, username, at, token_until, pipes, _): Row| Seen {
        user_id,
        username,
        at,
        token_until,
        pipes,
    };
    Ok((rows.into_iter().map(seen).collect(), total))
}
