//! Events on their way to plugins: handed out from the streams that each change's own transaction wrote, claimed with a
//! lease by whoever delivers.

use std::collections::{BTreeMap, btree_map::Entry};

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Binary, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use tidegate_model::{AuditId, DeliveryStatus, InstalledPluginId, OrgId, PluginDelivery, PluginDeliveryId};

use crate::{
    Error, PlatformTx, Result,
    installed_plugin::{self, Running},
    statement::statement,
};

/// Lines of one stream that are handed out by one statement at most.
const PAGE: i64 = 500;

/// Which plugins hear of an event `f`: those that were enabled when it was committed, of its organization or of the
/// platform, and only of what they asked for.
macro_rules! hand_out {
    ($fresh:literal, $last:literal) => {
        concat!(
            "WITH bound AS MATERIALIZED (SELECT pg_snapshot_xmin(s)::text::bigint AS whole FROM pg_current_snapshot() s),
             heard AS MATERIALIZED (SELECT p.id, p.org_id, p.events, p.since_xact FROM installed_plugins p
                WHERE p.enabled AND p.plugin_type IN ('webhook', 'extension') AND cardinality(p.events) > 0),
             fresh AS MATERIALIZED (", $fresh, "),
             told AS (INSERT INTO plugin_deliveries (id, plugin_id, org_id, event, payload, due_at, since, created_at)
                SELECT tidegate_uuid_v7(?), h.id, f.org_id, f.event,
                       jsonb_build_object('type', f.event, 'timestamp', f.at, 'organizationId', f.org_id, 'data', f.data), ?, ?, ?
                FROM fresh f JOIN heard h ON NOT f.twice AND (h.org_id IS NULL OR h.org_id = f.org_id) AND f.xact >= h.since_xact
                 AND EXISTS (SELECT 1 FROM unnest(h.events) e WHERE e = '*' OR e = f.event
                             OR (right(e, 2) = '.*' AND left(e, -1) = left(f.event, length(e) - 1)))
                ORDER BY f.xact, f.place, h.id RETURNING 1)
             SELECT (SELECT count(*) FROM fresh), (SELECT count(*) FROM told), ", $last
        )
    };
}

const SESSIONS: &str = hand_out!(
    "SELECT e.xact, e.seq AS place, e.seq, e.org_id, e.at, 'session.' || e.to_state AS event,
        jsonb_build_object('sessionId', e.session_id, 'name', s.name, 'user', s.username, 'userId', s.user_id, 'template', s.template,
            'agentId', s.agent_handle, 'fromState', e.from_state, 'toState', e.to_state, 'reason', e.reason, 'generation', e.generation) AS data, false AS twice
     FROM (SELECT e.* FROM session_events e, bound b, plugin_feed c
           WHERE (e.xact, e.seq) > (c.session_xact, c.session_seq) AND e.xact >= (SELECT min(h.since_xact) FROM heard h)
             AND e.xact < b.whole ORDER BY e.xact, e.seq LIMIT ?) e
     JOIN sessions s ON s.org_id = e.org_id AND s.id = e.session_id",
    "(SELECT f.xact FROM fresh f ORDER BY f.xact DESC, f.seq DESC LIMIT 1),
     (SELECT f.seq FROM fresh f ORDER BY f.xact DESC, f.seq DESC LIMIT 1)"
);

const AGENTS: &str = hand_out!(
    "SELECT e.xact, e.seq AS place, e.seq, e.org_id, e.at, 'agent.' || CASE WHEN e.removed THEN 'removed'
            WHEN e.approval_status <> 'approved' THEN e.approval_status WHEN e.drained AND e.status = 'online' THEN 'draining'
            ELSE e.status END AS event,
        jsonb_build_object('agentId', e.agent_handle, 'status', e.status, 'approvalStatus', e.approval_status, 'drained', e.drained,
            'removed', e.removed) AS data, false AS twice
     FROM events e, bound b, plugin_feed c
     WHERE e.kind = 'agent' AND (e.xact, e.seq) > (c.other_xact, c.other_seq)
       AND e.xact >= (SELECT min(h.since_xact) FROM heard h) AND e.xact < b.whole ORDER BY e.xact, e.seq LIMIT ?",
    "(SELECT f.xact FROM fresh f ORDER BY f.xact DESC, f.seq DESC LIMIT 1),
     (SELECT f.seq FROM fresh f ORDER BY f.xact DESC, f.seq DESC LIMIT 1)"
);

/// What stands in the platform's log and in an organization's is one event, the organization's.
const AUDIT: &str = hand_out!(
    "SELECT a.xact, a.id AS place, a.id, a.org_id, a.at, a.action AS event,
        jsonb_build_object('actor', a.actor, 'actorName', a.actor_name, 'resource', a.resource, 'before', a.before, 'after', a.after,
            'detail', a.detail) AS data,
        a.org_id IS NULL AND EXISTS (SELECT 1 FROM audit_log o WHERE o.xact = a.xact AND o.action = a.action AND o.resource = a.resource
            AND o.org_id IS NOT NULL AND (o.action LIKE 'user.%' OR o.action LIKE 'application.%' OR o.action LIKE 'plugin.%')) AS twice
     FROM audit_log a, bound b, plugin_feed c
     WHERE (a.action LIKE 'user.%' OR a.action LIKE 'application.%' OR a.action LIKE 'plugin.%')
       AND (a.xact, a.id) > (c.audit_xact, c.audit_id)
       AND a.xact >= (SELECT min(h.since_xact) FROM heard h) AND a.xact < b.whole ORDER BY a.xact, a.id LIMIT ?",
    "(SELECT f.xact FROM fresh f ORDER BY f.xact DESC, f.id DESC LIMIT 1),
     (SELECT f.id FROM fresh f ORDER BY f.xact DESC, f.id DESC LIMIT 1)"
);

/// What one round handed out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandedOut {
    /// Deliveries that were made.
    pub made: usize,
    /// Whether there is more.
    pub full: bool,
}

/// Hands out what was committed since the last time, a page of each stream; nothing while another control plane does.
pub async fn hand_out(tx: &mut PlatformTx, now: DateTime<Utc>) -> Result<HandedOut> {
    let conn = tx.conn()?;
    // Whoever has the row hands out: the place and what was handed out are written together or not at all. A place of
    // another cluster, which a dump brought, is the beginning of this one.
    let mine: Vec<(bool,)> = statement::<(diesel::sql_types::Bool,)>(
        "SELECT GREATEST(session_xact, other_xact, audit_xact) < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
         FROM plugin_feed WHERE EXISTS (SELECT 1 FROM installed_plugins p WHERE p.enabled AND cardinality(p.events) > 0)
         FOR UPDATE SKIP LOCKED",
    )
    .load(conn)
    .await?;
    match mine.into_iter().next() {
        None => return Ok(HandedOut::default()),
        Some((true,)) => {}
        Some((false,)) => rebase(conn).await?,
    }
    let mut all = HandedOut::default();
    let (sessions, place) = of_numbers(conn, SESSIONS, now).await?;
    if let Some((xact, seq)) = place {
        move_to(conn, "UPDATE plugin_feed SET session_xact = ?, session_seq = ?", xact, seq).await?;
    }
    let (agents, place) = of_numbers(conn, AGENTS, now).await?;
    if let Some((xact, seq)) = place {
        move_to(conn, "UPDATE plugin_feed SET other_xact = ?, other_seq = ?", xact, seq).await?;
    }
    let (audit, place) = of_audit(conn, now).await?;
    if let Some((xact, id)) = place {
        statement::<()>("UPDATE plugin_feed SET audit_xact = ?, audit_id = ?")
            .bind::<BigInt, _>(xact)
            .bind::<Uuid, _>(id)
            .execute(conn)
            .await?;
    }
    for part in [sessions, agents, audit] {
        all.made += part.made;
        all.full |= part.full;
    }
    Ok(all)
}

async fn rebase(conn: &mut AsyncPgConnection) -> Result<()> {
    statement::<()>(
        "UPDATE plugin_feed SET session_xact = l.xact, session_seq = 0, other_xact = l.xact, other_seq = 0, audit_xact = l.xact
         FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1 AS xact) l",
    )
    .execute(conn)
    .await?;
    statement::<()>(
        "UPDATE installed_plugins SET since_xact = 0 WHERE since_xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn move_to(conn: &mut AsyncPgConnection, sql: &'static str, xact: i64, seq: i64) -> Result<()> {
    statement::<()>(sql).bind::<BigInt, _>(xact).bind::<BigInt, _>(seq).execute(conn).await?;
    Ok(())
}

fn part(fresh: i64, told: i64) -> HandedOut {
    HandedOut { made: usize::try_from(told).unwrap_or(0), full: fresh >= PAGE }
}

async fn of_numbers(
    conn: &mut AsyncPgConnection,
    sql: &'static str,
    now: DateTime<Utc>,
) -> Result<(HandedOut, Option<(i64, i64)>)> {
    let rows: Vec<(i64, i64, Option<i64>, Option<i64>)> =
        statement::<(BigInt, BigInt, Nullable<BigInt>, Nullable<BigInt>)>(sql)
            .bind::<BigInt, _>(PAGE)
            .bind::<Timestamptz, _>(now)
            .bind::<Timestamptz, _>(now)
            .bind::<Timestamptz, _>(now)
            .bind::<Timestamptz, _>(now)
            .load(conn)
            .await?;
    let (fresh, told, xact, seq) = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok((part(fresh, told), xact.zip(seq)))
}

async fn of_audit(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
) -> Result<(HandedOut, Option<(i64, AuditId)>)> {
    let rows: Vec<(i64, i64, Option<i64>, Option<AuditId>)> =
        statement::<(BigInt, BigInt, Nullable<BigInt>, Nullable<Uuid>)>(AUDIT)
            .bind::<BigInt, _>(PAGE)
            .bind::<Timestamptz, _>(now)
            .bind::<Timestamptz, _>(now)
            .bind::<Timestamptz, _>(now)
            .bind::<Timestamptz, _>(now)
            .load(conn)
            .await?;
    let (fresh, told, xact, id) = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok((part(fresh, told), xact.zip(id)))
}

/// A delivery that was claimed, with the plugin as it is at this moment.
#[derive(Debug, Clone)]
pub struct Due {
    /// The same at every try.
    pub id: PluginDeliveryId,
    /// Which try this is, from 1 on: the fence of whoever claimed it.
    pub attempt: i32,
    /// Since when it is tried.
    pub since: DateTime<Utc>,
    /// The event's name.
    pub event: String,
    /// What is sent.
    pub payload: Value,
    /// Signs it; sealed.
    pub secret: Option<Vec<u8>>,
    /// Whom it is for.
    pub plugin: Running,
}

/// Claims deliveries that are due, at most `each` of one plugin and `limit` of all, until `lease`: nobody else tries them
/// before, and after it anybody may. `under_way` has a plugin once for each delivery that the caller is busy with: they
/// count among its `each`. Where order is kept, the oldest goes first and the others wait for it. However many wait for an
/// endpoint that is dead, only those that are due are looked at.
pub async fn claim(
    tx: &mut PlatformTx,
    under_way: Vec<InstalledPluginId>,
    (each, limit): (i64, i64),
    now: DateTime<Utc>,
    lease: DateTime<Utc>,
) -> Result<Vec<Due>> {
    type Row = (
        PluginDeliveryId,
        i32,
        DateTime<Utc>,
        String,
        Value,
        Option<Vec<u8>>,
        InstalledPluginId,
        Option<OrgId>,
    );
    let conn = tx.conn()?;
    let rows: Vec<Row> =
        statement::<(Uuid, Integer, Timestamptz, Text, Jsonb, Nullable<Binary>, BigInt, Nullable<Uuid>)>(
            "WITH free AS MATERIALIZED (
                SELECT d.id FROM installed_plugins p CROSS JOIN LATERAL (
                    SELECT d.id FROM plugin_deliveries d WHERE d.plugin_id = p.id AND d.status = 'pending' AND d.due_at <= ?
                    ORDER BY d.due_at, d.seq LIMIT GREATEST(? - cardinality(array_positions(?, p.id)), 0) FOR UPDATE SKIP LOCKED) d
                WHERE p.enabled AND NOT p.ordered LIMIT ?),
             first AS MATERIALIZED (
                SELECT d.id FROM installed_plugins p
                CROSS JOIN LATERAL (SELECT min(e.seq) AS seq FROM plugin_deliveries e WHERE e.plugin_id = p.id AND e.status = 'pending') o
                JOIN plugin_deliveries d ON d.plugin_id = p.id AND d.seq = o.seq AND d.status = 'pending' AND d.due_at <= ?
                WHERE p.enabled AND p.ordered AND p.id <> ALL (?) LIMIT ? FOR UPDATE OF d SKIP LOCKED),
             due AS MATERIALIZED (SELECT id FROM first UNION ALL SELECT id FROM free LIMIT ?),
             claimed AS (UPDATE plugin_deliveries d SET attempts = d.attempts + 1, due_at = ? FROM due WHERE d.id = due.id
                RETURNING d.id, d.attempts, d.since, d.event, d.payload, d.plugin_id, d.org_id, d.seq)
             SELECT c.id, c.attempts, c.since, c.event, c.payload, p.secret, p.id, c.org_id
             FROM claimed c JOIN installed_plugins p ON p.id = c.plugin_id ORDER BY c.seq",
        )
        .bind::<Timestamptz, _>(now)
        .bind::<BigInt, _>(each)
        .bind::<Array<BigInt>, _>(under_way.clone())
        .bind::<BigInt, _>(limit)
        .bind::<Timestamptz, _>(now)
        .bind::<Array<BigInt>, _>(under_way)
        .bind::<BigInt, _>(limit)
        .bind::<BigInt, _>(limit)
        .bind::<Timestamptz, _>(lease)
        .load(conn)
        .await?;
    let mut plugins: BTreeMap<InstalledPluginId, Running> = BTreeMap::new();
    let mut claimed = Vec::with_capacity(rows.len());
    for (id, attempt, since, event, payload, secret, plugin, org) in rows {
        let plugin = match plugins.entry(plugin) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(installed_plugin::running_on(conn, plugin).await?),
        };
        let plugin = plugin.clone().within(org);
        claimed.push(Due { id, attempt, since, event, payload, secret, plugin });
    }
    Ok(claimed)
}

/// What became of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The plugin took it.
    Delivered(Option<i32>),
    /// It is tried again at this moment.
    Again(DateTime<Utc>, Option<i32>, String),
    /// It is given up.
    Failed(Option<i32>, String),
}

/// Writes what became of the try that this was; false where its lease had passed and another one began or ended it.
pub async fn finish(
    tx: &mut PlatformTx,
    (id, attempt): (PluginDeliveryId, i32),
    outcome: Outcome,
    now: DateTime<Utc>,
) -> Result<bool> {
    let (status, due, finished, answer, reason) = match outcome {
        Outcome::Delivered(answer) => (DeliveryStatus::Delivered, None, Some(now), answer, None),
        Outcome::Again(due, answer, reason) => {
            (DeliveryStatus::Pending, Some(due), None, answer, Some(reason))
        }
        Outcome::Failed(answer, reason) => (DeliveryStatus::Failed, None, Some(now), answer, Some(reason)),
    };
    let changed = statement::<()>(
        "UPDATE plugin_deliveries SET status = ?, due_at = COALESCE(?, due_at), finished_at = ?, last_status = ?, reason = left(?, 500)
         WHERE id = ? AND attempts = ? AND status = 'pending'",
    )
    .bind::<Text, _>(status)
    .bind::<Nullable<Timestamptz>, _>(due)
    .bind::<Nullable<Timestamptz>, _>(finished)
    .bind::<Nullable<Integer>, _>(answer)
    .bind::<Nullable<Text>, _>(reason)
    .bind::<Uuid, _>(id)
    .bind::<Integer, _>(attempt)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Gives up what was not delivered since `before`, for whatever reason, a bounded number at a time.
pub async fn expire(tx: &mut PlatformTx, before: DateTime<Utc>, now: DateTime<Utc>) -> Result<usize> {
    let changed = statement::<()>(
        "UPDATE plugin_deliveries SET status = 'failed', finished_at = ?,
                reason = left('it was not delivered within 24 hours' || COALESCE('; last: ' || reason, ''), 500)
         WHERE id IN (SELECT d.id FROM plugin_deliveries d WHERE d.status = 'pending' AND d.since < ? AND d.due_at <= ?
                      ORDER BY d.since LIMIT 1000 FOR UPDATE SKIP LOCKED)",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(before)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(changed)
}

type LogColumns = (
    Uuid,
    BigInt,
    Nullable<Uuid>,
    Text,
    Jsonb,
    Text,
    Integer,
    Timestamptz,
    Timestamptz,
    Nullable<Timestamptz>,
    Nullable<Integer>,
    Nullable<Text>,
);
type LogRow = (
    PluginDeliveryId,
    InstalledPluginId,
    Option<OrgId>,
    String,
    Value,
    DeliveryStatus,
    i32,
    DateTime<Utc>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    Option<i32>,
    Option<String>,
);

fn delivery(row: LogRow) -> PluginDelivery {
    let (
        id,
        plugin_id,
        organization_id,
        event,
        payload,
        status,
        attempts,
        due_at,
        created_at,
        finished_at,
        last_status,
        reason,
    ) = row;
    PluginDelivery {
        id,
        plugin_id,
        organization_id,
        event,
        payload,
        status,
        attempts,
        due_at: (status == DeliveryStatus::Pending).then_some(due_at),
        created_at,
        finished_at,
        last_status,
        reason,
    }
}

/// Deliveries to a plugin, the newest first, from the one before `before` on, and how many there are, counted up to 10 001.
pub async fn list(
    tx: &mut PlatformTx,
    plugin: InstalledPluginId,
    status: Option<DeliveryStatus>,
    before: Option<(DateTime<Utc>, PluginDeliveryId)>,
    limit: i64,
) -> Result<(Vec<PluginDelivery>, i64)> {
    let (at, id) = before.unzip();
    let conn = tx.conn()?;
    let rows: Vec<LogRow> = statement::<LogColumns>(
        "SELECT id, plugin_id, org_id, event, payload, status, attempts, due_at, created_at, finished_at, last_status, reason
         FROM plugin_deliveries WHERE plugin_id = ? AND (?::text IS NULL OR status = ?)
           AND (created_at, id) < (COALESCE(?, 'infinity'), COALESCE(?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
         ORDER BY created_at DESC, id DESC LIMIT ?",
    )
    .bind::<BigInt, _>(plugin)
    .bind::<Nullable<Text>, _>(status)
    .bind::<Nullable<Text>, _>(status)
    .bind::<Nullable<Timestamptz>, _>(at)
    .bind::<Nullable<Uuid>, _>(id)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<(i64,)> = statement::<(BigInt,)>(
        "SELECT count(*) FROM (SELECT 1 FROM plugin_deliveries WHERE plugin_id = ? AND (?::text IS NULL OR status = ?) LIMIT 10001) d",
    )
    .bind::<BigInt, _>(plugin)
    .bind::<Nullable<Text>, _>(status)
    .bind::<Nullable<Text>, _>(status)
    .load(conn)
    .await?;
    Ok((rows.into_iter().map(delivery).collect(), total.into_iter().next().map_or(0, |row| row.0)))
}

/// Delivers something again that is over, with the same id; what is still tried is tried at once.
pub async fn again(
    tx: &mut PlatformTx,
    plugin: InstalledPluginId,
    id: PluginDeliveryId,
    now: DateTime<Utc>,
) -> Result<PluginDelivery> {
    let rows: Vec<LogRow> = statement::<LogColumns>(
        "UPDATE plugin_deliveries SET status = 'pending', finished_at = NULL, due_at = LEAST(due_at, ?), since = ?
         WHERE id = ? AND plugin_id = ?
         RETURNING id, plugin_id, org_id, event, payload, status, attempts, due_at, created_at, finished_at, last_status, reason",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<BigInt, _>(plugin)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(delivery).ok_or(Error::NotFound)
}
