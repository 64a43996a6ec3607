//! Quotas as they are set, and the bounds that somebody is under with what is used of them.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tidegate_model::{AgentId, GroupId, OrgId, QuotaLimits, QuotaOwner, Usage, UserId};

use crate::{Error, OrgTx, PlatformTx, Result, statement::statement};

/// One bound as it is stored: what a member's default is and what it means are the caller's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Whose it is.
    pub owner: QuotaOwner,
    /// Username, or name of the group or organization.
    pub name: String,
    /// Whether the default is no bound for this member, who is an admin of the platform.
    pub unlimited: bool,
    /// What was set: of a member `None` is the default and [`UNLIMITED`] none, of all others `None` is none.
    pub set: [Option<i64>; 4],
    /// What is used, where there is a bound to compare it with.
    pub used: Usage,
}

/// A member's quota that was set to no bound.
pub const UNLIMITED: i64 = -1;

type Limits = (Nullable<BigInt>, Nullable<BigInt>, Nullable<BigInt>, Nullable<BigInt>);

/// The bounds of a member, with what is used of each, in one statement. To be sent after the organization's lock was, so
/// that it sees what the holder before wrote.
pub(crate) async fn bounds_on(
    conn: &AsyncPgConnection,
    member: UserId,
    default_bounds: bool,
) -> Result<Vec<Bound>> {
    type Four = (Option<i64>, Option<i64>, Option<i64>, Option<i64>);
    type Row = (QuotaOwner, String, bool, Four, (i64, i64, i64, i64));
    let mut conn = conn;
    let rows: Vec<Row> = statement::<(Text, Text, Bool, Limits, (BigInt, BigInt, BigInt, BigInt))>(
        "SELECT owner, name, unlimited, max_sessions, max_cpu, max_memory, max_storage,
                used_sessions, used_cpu, used_memory, used_storage FROM quota_bounds(?, ?)",
    )
    .bind::<Uuid, _>(member)
    .bind::<Bool, _>(default_bounds)
    .load(&mut conn)
    .await?;
    let bound = |(owner, name, unlimited, (a, b, c, d), (e, f, g, h)): Row| Bound {
        owner,
        name,
        unlimited,
        set: [a, b, c, d],
        used: Usage([e, f, g, h]),
    };
    Ok(rows.into_iter().map(bound).collect())
}

/// The bounds of a member of the organization, none for anybody else. `default_bounds` says whether a member without a
/// quota of their own is bounded.
pub async fn bounds(tx: &mut OrgTx, member: UserId, default_bounds: bool) -> Result<Vec<Bound>> {
    bounds_on(tx.conn()?, member, default_bounds).await
}

/// What these members use at this moment; the whole organization for `None`.
pub async fn usage(tx: &mut OrgTx, people: Option<Vec<UserId>>) -> Result<Usage> {
    usage_of(
        statement("SELECT sessions, cpu, memory, storage FROM quota_usage(?)")
            .bind::<Nullable<Array<Uuid>>, _>(people),
        tx,
    )
    .await
}

/// What the members of a group and of the groups below it use at this moment, each once.
pub async fn group_usage(tx: &mut OrgTx, group: GroupId) -> Result<Usage> {
    usage_of(
        statement("SELECT sessions, cpu, memory, storage FROM quota_usage(group_people(?))")
            .bind::<Uuid, _>(group),
        tx,
    )
    .await
}

async fn usage_of(
    statement: crate::statement::Statement<(BigInt, BigInt, BigInt, BigInt)>,
    tx: &mut OrgTx,
) -> Result<Usage> {
    let rows: Vec<(i64, i64, i64, i64)> = statement.load(tx.conn()?).await?;
    Ok(rows.into_iter().next().map_or_else(Usage::default, |(a, b, c, d)| Usage([a, b, c, d])))
}

/// A quota as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// As in [`Bound::set`].
    pub set: [Option<i64>; 4],
    /// When it was first set.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

type StoredColumns = (Limits, Timestamptz, Timestamptz);
type StoredRow = ((Option<i64>, Option<i64>, Option<i64>, Option<i64>), DateTime<Utc>, DateTime<Utc>);

fn stored(((a, b, c, d), created_at, updated_at): StoredRow) -> Stored {
    Stored { set: [a, b, c, d], created_at, updated_at }
}

/// A member's own quota, if one is set.
pub async fn of_user(tx: &mut OrgTx, user: UserId) -> Result<Option<Stored>> {
    let org = tx.org_id();
    let rows: Vec<StoredRow> = statement::<StoredColumns>(
        "SELECT max_sessions, max_cpu, max_memory, max_storage, created_at, updated_at
         FROM user_quotas WHERE org_id = ? AND user_id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().map(stored))
}

/// A group's quota, if one is set.
pub async fn of_group(tx: &mut OrgTx, group: GroupId) -> Result<Option<Stored>> {
    let org = tx.org_id();
    let rows: Vec<StoredRow> = statement::<StoredColumns>(
        "SELECT max_sessions, max_cpu, max_memory, max_storage, created_at, updated_at
         FROM group_quotas WHERE org_id = ? AND group_id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(group)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().map(stored))
}

/// Whether a group or one above it has a quota.
pub async fn bounds_group(tx: &mut OrgTx, group: GroupId) -> Result<bool> {
    let lineage = crate::group::lineage(tx, group).await?;
    let org = tx.org_id();
    let rows: Vec<bool> = statement::<Bool>(
        "SELECT EXISTS (SELECT 1 FROM group_quotas WHERE org_id = ? AND group_id = ANY(?))",
    )
    .bind::<Uuid, _>(org)
    .bind::<Array<Uuid>, _>(lineage)
    .load(tx.conn()?)
    .await?;
    Ok(rows == [true])
}

/// The organization's own quota with the platform's ceiling, if one of them was ever set.
pub async fn of_organization(tx: &mut OrgTx) -> Result<Option<(Stored, QuotaLimits)>> {
    type Row = (StoredRow, (Option<i64>, Option<i64>, Option<i64>, Option<i64>));
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<(StoredColumns, Limits)>(
        "SELECT max_sessions, max_cpu, max_memory, max_storage, created_at, updated_at,
                ceiling_sessions, ceiling_cpu, ceiling_memory, ceiling_storage
         FROM organization_quotas WHERE org_id = ?",
    )
    .bind::<Uuid, _>(org)
    .load(tx.conn()?)
    .await?;
    let row = |(own, (a, b, c, d)): Row| (stored(own), QuotaLimits([a, b, c, d]));
    Ok(rows.into_iter().next().map(row))
}

/// Sets a member's quota.
pub async fn set_user(tx: &mut OrgTx, user: UserId, set: [Option<i64>; 4], now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    let insert = statement::<()>(
        "INSERT INTO user_quotas (org_id, user_id, max_sessions, max_cpu, max_memory, max_storage, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (org_id, user_id) DO UPDATE SET max_sessions = EXCLUDED.max_sessions, max_cpu = EXCLUDED.max_cpu,
            max_memory = EXCLUDED.max_memory, max_storage = EXCLUDED.max_storage, updated_at = EXCLUDED.updated_at",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user);
    with_limits(insert, set, now).execute(tx.conn()?).await?;
    Ok(())
}

/// Sets a group's quota.
pub async fn set_group(
    tx: &mut OrgTx,
    group: GroupId,
    limits: QuotaLimits,
    now: DateTime<Utc>,
) -> Result<()> {
    let org = tx.org_id();
    let insert = statement::<()>(
        "INSERT INTO group_quotas (org_id, group_id, max_sessions, max_cpu, max_memory, max_storage, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (org_id, group_id) DO UPDATE SET max_sessions = EXCLUDED.max_sessions, max_cpu = EXCLUDED.max_cpu,
            max_memory = EXCLUDED.max_memory, max_storage = EXCLUDED.max_storage, updated_at = EXCLUDED.updated_at",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(group);
    with_limits(insert, limits.0, now).execute(tx.conn()?).await?;
    Ok(())
}

/// Sets the organization's own quota; its ceiling stays.
pub async fn set_organization(tx: &mut OrgTx, limits: QuotaLimits, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    let insert = statement::<()>(
        "INSERT INTO organization_quotas (org_id, max_sessions, max_cpu, max_memory, max_storage, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (org_id) DO UPDATE SET max_sessions = EXCLUDED.max_sessions, max_cpu = EXCLUDED.max_cpu,
            max_memory = EXCLUDED.max_memory, max_storage = EXCLUDED.max_storage, updated_at = EXCLUDED.updated_at",
    )
    .bind::<Uuid, _>(org);
    with_limits(insert, limits.0, now).execute(tx.conn()?).await?;
    Ok(())
}

/// Sets the platform's ceiling of an organization; its own quota stays.
pub async fn set_ceiling(
    tx: &mut PlatformTx,
    org: OrgId,
    limits: QuotaLimits,
    now: DateTime<Utc>,
) -> Result<()> {
    let insert = statement::<()>(
        "INSERT INTO organization_quotas (org_id, ceiling_sessions, ceiling_cpu, ceiling_memory, ceiling_storage, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (org_id) DO UPDATE SET ceiling_sessions = EXCLUDED.ceiling_sessions, ceiling_cpu = EXCLUDED.ceiling_cpu,
            ceiling_memory = EXCLUDED.ceiling_memory, ceiling_storage = EXCLUDED.ceiling_storage, updated_at = EXCLUDED.updated_at",
    )
    .bind::<Uuid, _>(org);
    with_limits(insert, limits.0, now).execute(tx.conn()?).await?;
    Ok(())
}

/// The platform's ceiling of an organization, whose lock it takes: sessions that are being started are counted first.
pub async fn lock_ceiling(tx: &mut PlatformTx, org: OrgId) -> Result<QuotaLimits> {
    let conn = tx.conn()?;
    let locked: Vec<OrgId> = statement::<Uuid>(
        "SELECT id FROM organizations WHERE id = ? AND status <> 'deleted' FOR NO KEY UPDATE",
    )
    .bind::<Uuid, _>(org)
    .load(conn)
    .await?;
    if locked.is_empty() {
        return Err(Error::NotFound);
    }
    let rows: Vec<(Option<i64>, Option<i64>, Option<i64>, Option<i64>)> = statement::<Limits>(
        "SELECT ceiling_sessions, ceiling_cpu, ceiling_memory, ceiling_storage FROM organization_quotas WHERE org_id = ?",
    )
    .bind::<Uuid, _>(org)
    .load(conn)
    .await?;
    Ok(rows.into_iter().next().map_or(QuotaLimits::UNLIMITED, |(a, b, c, d)| QuotaLimits([a, b, c, d])))
}

fn with_limits(
    mut statement: crate::statement::Statement<()>,
    limits: [Option<i64>; 4],
    now: DateTime<Utc>,
) -> crate::statement::Statement<()> {
    for limit in limits {
        statement = statement.bind::<Nullable<BigInt>, _>(limit);
    }
    statement.bind::<Timestamptz, _>(now).bind::<Timestamptz, _>(now)
}

/// Takes a member's own quota away. False when there was none.
pub async fn reset_user(tx: &mut OrgTx, user: UserId) -> Result<bool> {
    let org = tx.org_id();
    let gone = statement::<()>("DELETE FROM user_quotas WHERE org_id = ? AND user_id = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(user)
        .execute(tx.conn()?)
        .await?;
    Ok(gone == 1)
}

/// Takes a group's quota away. False when there was none.
pub async fn reset_group(tx: &mut OrgTx, group: GroupId) -> Result<bool> {
    let org = tx.org_id();
    let gone = statement::<()>("DELETE FROM group_quotas WHERE org_id = ? AND group_id = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(group)
        .execute(tx.conn()?)
        .await?;
    Ok(gone == 1)
}

/// A persistent home that a member has.
pub type Home = (AgentId, i64);

/// The persistent homes of a member, agent by agent; at most 1 000.
pub async fn homes(tx: &mut OrgTx, user: UserId) -> Result<Vec<Home>> {
    let org = tx.org_id();
    Ok(statement::<(Uuid, BigInt)>(
        "SELECT agent_id, storage_bytes FROM homes WHERE org_id = ? AND user_id = ? ORDER BY agent_id LIMIT 1000",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?)
}

/// A member's own quota on the list of all that were set on the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The organization.
    pub org_id: OrgId,
    /// Its name.
    pub organization: String,
    /// The member.
    pub user_id: UserId,
    /// Their name.
    pub username: String,
}

/// Members with a quota of their own, of all organizations, by name and organization, with how many there are.
pub async fn list_all(
    tx: &mut PlatformTx,
    after: Option<(String, OrgId)>,
    limit: i64,
) -> Result<(Vec<Listed>, i64)> {
    let (name, org) = after.unzip();
    let conn = tx.conn()?;
    let rows: Vec<(OrgId, String, UserId, String)> = statement::<(Uuid, Text, Uuid, Text)>(
        "SELECT q.org_id, o.name, q.user_id, u.username
         FROM user_quotas q JOIN users u ON u.id = q.user_id JOIN organizations o ON o.id = q.org_id
         WHERE (lower(u.username), q.org_id) > (COALESCE(?, ''), COALESCE(?, '00000000-0000-0000-0000-000000000000'))
         ORDER BY lower(u.username), q.org_id LIMIT ?",
    )
    .bind::<Nullable<Text>, _>(name)
    .bind::<Nullable<Uuid>, _>(org)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> =
        statement::<BigInt>("SELECT count(*) FROM (SELECT 1 FROM user_quotas LIMIT 10001) q")
            .load(conn)
            .await?;
    let listed =
        |(org_id, organization, user_id, username)| Listed { org_id, organization, user_id, username };
    Ok((rows.into_iter().map(listed).collect(), total.into_iter().next().unwrap_or(0)))
}

/// Where a user of this name, in any case, has a quota: the organization that is named by id or name, else the one that
/// they own the longest, else the one they are in the longest.
pub async fn whose(
    tx: &mut PlatformTx,
    username: &str,
    organization: Option<&str>,
) -> Result<(OrgId, UserId)> {
    let rows: Vec<(OrgId, UserId)> = statement::<(Uuid, Uuid)>(
        "SELECT o.id, u.id FROM users u JOIN memberships m ON m.user_id = u.id JOIN organizations o ON o.id = m.org_id
         WHERE lower(u.username) = lower(?) AND o.status <> 'deleted' AND (?::text IS NULL OR o.id::text = lower(?) OR o.name = ?)
         ORDER BY (o.owner_user_id = u.id) DESC NULLS LAST, CASE WHEN o.owner_user_id = u.id THEN o.created_at ELSE m.created_at END, o.id
         LIMIT 1",
    )
    .bind::<Text, _>(username.to_owned())
    .bind::<Nullable<Text>, _>(organization.map(str::to_owned))
    .bind::<Nullable<Text>, _>(organization.map(str::to_owned))
    .bind::<Nullable<Text>, _>(organization.map(str::to_owned))
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Sessions of the organization that were not cleaned up, counted by state, and how many members and groups it has.
pub async fn census(tx: &mut OrgTx) -> Result<(Vec<(String, i64)>, i64, i64)> {
    let org = tx.org_id();
    let conn = tx.conn()?;
    let states: Vec<(String, i64)> = statement::<(Text, BigInt)>(
        "SELECT state, count(*) FROM sessions WHERE org_id = ? AND hidden_at IS NULL AND state NOT IN ('terminated', 'failed')
         GROUP BY state ORDER BY state",
    )
    .bind::<Uuid, _>(org)
    .load(conn)
    .await?;
    let rows: Vec<(i64, i64)> = statement::<(BigInt, BigInt)>(
        "SELECT (SELECT count(*) FROM memberships WHERE org_id = ?), (SELECT count(*) FROM groups WHERE org_id = ?)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .load(conn)
    .await?;
    let (members, groups) = rows.into_iter().next().unwrap_or_default();
    Ok((states, members, groups))
}
