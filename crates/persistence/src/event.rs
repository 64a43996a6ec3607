//! Events: sessions' history and the lines of commands and agents, read as one stream.
//!
//! A page holds only what can have no predecessor any more: lines of transactions older than every one that still runs.
//! The bound is read first and the lines after it, so that whatever the bound promises is there to be seen.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tidegate_model::{
    AgentChange, AgentStatus, ApprovalStatus, Change, CommandAction, CommandChange, CommandId, CommandStatus,
    Event, EventId, EventKind, OrgId, SessionChange, SessionId, SessionState, UserId,
};

use crate::{Error, OrgTx, PlatformTx, Result, statement::statement};

/// An event and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The event.
    pub event: Event,
    /// The organization it is of; `None` for the platform's.
    pub org_id: Option<OrgId>,
    /// The owner of the session it is about.
    pub owner: Option<UserId>,
    /// Whether anybody has, or had, a share of that session: most have none, and nobody need be asked about theirs.
    pub shared: bool,
}

/// Some of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub told: Vec<Told>,
    /// Everything up to here that the reader may see is in `told`, or came before.
    pub to: EventId,
    /// Whether there was more than asked for.
    pub full: bool,
    /// Everything up to here may be gone.
    pub horizon: EventId,
    /// Every transaction before this one was over.
    pub whole: i64,
    /// Transactions from this one on had not begun: whatever was committed before the page was read is older.
    pub next: i64,
}

impl Page {
    /// Whether what came after `place` may not be kept any more, or is not of this database.
    pub fn has_lost(&self, place: EventId) -> bool {
        place < self.horizon || place.xact() >= self.next
    }

    /// This page together with another one of the same stream that was read after it: what is in both stands there once.
    #[must_use]
    pub fn beside(mut self, later: Self) -> Self {
        let to = self.to.min(later.to);
        self.told.extend(later.told);
        self.told.retain(|told| told.event.id <= to);
        self.told.sort_unstable_by_key(|told| told.event.id);
        self.told.dedup_by_key(|told| told.event.id);
        Self {
            told: self.told,
            to,
            full: self.full || later.full,
            horizon: self.horizon.max(later.horizon),
            whole: self.whole.min(later.whole),
            next: self.next.min(later.next),
        }
    }
}

/// The last event of the stream at this moment, whoever may see it: what is committed later comes after it.
pub async fn now(tx: &mut OrgTx) -> Result<EventId> {
    Ok(bounds(tx.conn()?).await?.last)
}

/// The same for the platform.
pub async fn now_of_all(tx: &mut PlatformTx) -> Result<EventId> {
    Ok(bounds(tx.conn()?).await?.last)
}

/// At most about `most` of the organization's events after a place.
pub async fn page(tx: &mut OrgTx, after: EventId, most: i64) -> Result<Page> {
    let conn = tx.conn()?;
    let bounds = bounds(conn).await?;
    let which = Which { after, below: bounds.whole, most };
    let parts = vec![of_sessions(conn, which).await?, others(conn, OTHERS, which).await?];
    Ok(joined(parts, after, bounds, horizon(conn).await?))
}

/// The same of every organization and the platform.
pub async fn page_of_all(tx: &mut PlatformTx, after: EventId, most: i64) -> Result<Page> {
    let conn = tx.conn()?;
    let bounds = bounds(conn).await?;
    let which = Which { after, below: bounds.whole, most };
    let parts = vec![of_sessions(conn, which).await?, others(conn, OTHERS, which).await?];
    Ok(joined(parts, after, bounds, horizon(conn).await?))
}

/// The same of agents alone.
pub async fn page_of_agents(tx: &mut PlatformTx, after: EventId, most: i64) -> Result<Page> {
    let conn = tx.conn()?;
    let bounds = bounds(conn).await?;
    let parts = vec![others(conn, AGENTS, Which { after, below: bounds.whole, most }).await?];
    Ok(joined(parts, after, bounds, horizon(conn).await?))
}

/// Puts lines that came with a dump of another cluster at the stream's beginning; at most about twice `most` at once.
/// Gives how many there were.
pub async fn rebase(tx: &mut PlatformTx, most: i32) -> Result<i64> {
    let moved: Vec<i64> =
        statement::<BigInt>("SELECT events_rebase(?)").bind::<Integer, _>(most).load(tx.conn()?).await?;
    Ok(moved.into_iter().next().unwrap_or(0))
}

/// Where the stream ends at this moment.
#[derive(Clone, Copy)]
struct Bounds {
    /// The oldest transaction that runs: what older ones wrote can be seen.
    whole: i64,
    /// The next transaction that begins.
    next: i64,
    /// The last event of an older transaction, of whatever organization. A place is always that of an event: what wrote
    /// it is on the disk, while the number of a transaction that wrote nothing may be given a second time after a crash.
    last: EventId,
}

async fn bounds(conn: &mut AsyncPgConnection) -> Result<Bounds> {
    let rows: Vec<(i64, i64, i64, i64)> = statement::<(BigInt, BigInt, BigInt, BigInt)>(
        "SELECT b.whole, b.next, l.xact, l.seq FROM (
             SELECT pg_snapshot_xmin(s)::text::bigint AS whole, pg_snapshot_xmax(s)::text::bigint AS next FROM pg_current_snapshot() s) b,
             events_last(b.whole) l",
    )
    .load(conn)
    .await?;
    let (whole, next, xact, seq) = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok(Bounds { whole, next, last: EventId::new(xact, seq) })
}

async fn horizon(conn: &mut AsyncPgConnection) -> Result<EventId> {
    let rows: Vec<(i64, i64)> =
        statement::<(BigInt, BigInt)>("SELECT xact, seq FROM event_horizon").load(conn).await?;
    Ok(rows.into_iter().next().map_or(EventId::START, |(xact, seq)| EventId::new(xact, seq)))
}

/// Which lines are read.
#[derive(Clone, Copy)]
struct Which {
    after: EventId,
    below: i64,
    most: i64,
}

/// Lines of one table, and whether there may be more.
struct Part {
    told: Vec<Told>,
    full: bool,
}

/// Puts parts together. Where one was cut short, what the others have after its end waits for the next page.
fn joined(parts: Vec<Part>, after: EventId, bounds: Bounds, horizon: EventId) -> Page {
    let last = |part: &Part| part.told.last().map(|told| told.event.id);
    let cut = parts.iter().filter(|part| part.full).filter_map(last).min();
    let to = cut.unwrap_or(bounds.last.max(after));
    let mut told: Vec<Told> = parts.into_iter().flat_map(|part| part.told).collect();
    told.retain(|told| told.event.id <= to);
    told.sort_unstable_by_key(|told| told.event.id);
    Page { told, to, full: cut.is_some(), horizon, whole: bounds.whole, next: bounds.next }
}

/// Lines first and their sessions afterwards: a page costs its lines, however many sessions there are.
const SESSIONS: &str = "WITH few AS MATERIALIZED (
        SELECT e.xact, e.seq, e.org_id, e.session_id, e.from_state, e.to_state, e.reason, e.generation, e.at FROM session_events e
        WHERE (e.xact, e.seq) > (?, ?) AND e.xact < ? ORDER BY e.xact, e.seq LIMIT ?)
    SELECT f.xact, f.seq, f.at, f.org_id, s.user_id, EXISTS (SELECT 1 FROM session_shares h WHERE h.session_id = f.session_id),
           f.session_id, s.name, s.username, s.agent_handle, f.from_state, f.to_state,
           f.reason, f.generation
    FROM few f JOIN sessions s ON s.org_id = f.org_id AND s.id = f.session_id ORDER BY f.xact, f.seq";

async fn of_sessions(conn: &mut AsyncPgConnection, which: Which) -> Result<Part> {
    type Row = (
        i64,
        i64,
        DateTime<Utc>,
        OrgId,
        UserId,
        bool,
        SessionId,
        String,
        String,
        Option<String>,
        Option<SessionState>,
        SessionState,
        Option<String>,
        i64,
    );
    let rows: Vec<Row> = statement::<(
        BigInt,
        BigInt,
        Timestamptz,
        Uuid,
        Uuid,
        Bool,
        Uuid,
        Text,
        Text,
        Nullable<Text>,
        Nullable<Text>,
        Text,
        Nullable<Text>,
        BigInt,
    )>(SESSIONS)
    .bind::<BigInt, _>(which.after.xact())
    .bind::<BigInt, _>(which.after.seq())
    .bind::<BigInt, _>(which.below)
    .bind::<BigInt, _>(which.most)
    .load(conn)
    .await?;
    let told = |row: Row| {
        let (
            xact,
            seq,
            at,
            org,
            owner,
            shared,
            session_id,
            name,
            user,
            agent,
            from_state,
            to_state,
            reason,
            generation,
        ) = row;
        let agent_id = agent.map(|agent| agent.parse()).transpose();
        let change = SessionChange {
            session_id,
            name,
            user,
            agent_id: agent_id.map_err(|error: &str| Error::corrupt("agent id", error))?,
            from_state,
            to_state,
            reason,
            generation,
        };
        let event = Event { id: EventId::new(xact, seq), at, change: Change::Session(change) };
        Ok(Told { event, org_id: Some(org), owner: Some(owner), shared })
    };
    Ok(part(rows.into_iter().map(told).collect::<Result<_>>()?, which))
}

/// The lines of commands and agents.
const OTHERS: &str = "WITH few AS MATERIALIZED (
        SELECT e.* FROM events e WHERE (e.xact, e.seq) > (?, ?) AND e.xact < ? ORDER BY e.xact, e.seq LIMIT ?)
    SELECT f.xact, f.seq, f.at, f.org_id, s.user_id, EXISTS (SELECT 1 FROM session_shares h WHERE h.session_id = s.id), f.kind, f.agent_handle, f.session_id, f.command_id, f.action, f.status,
           f.reason, f.approval_status, f.drained, f.removed
    FROM few f LEFT JOIN sessions s ON s.org_id = f.org_id AND s.id = f.session_id ORDER BY f.xact, f.seq";

/// Those of agents alone; they have an index of their own, because there are so few.
const AGENTS: &str = "SELECT f.xact, f.seq, f.at, f.org_id, NULL::uuid, false, f.kind, f.agent_handle, f.session_id, f.command_id, f.action,
           f.status, f.reason, f.approval_status, f.drained, f.removed
    FROM events f WHERE f.kind = 'agent' AND (f.xact, f.seq) > (?, ?) AND f.xact < ? ORDER BY f.xact, f.seq LIMIT ?";

type OtherRow = (
    i64,
    i64,
    DateTime<Utc>,
    Option<OrgId>,
    Option<UserId>,
    bool,
    EventKind,
    String,
    Option<SessionId>,
    Option<CommandId>,
    Option<CommandAction>,
    String,
    Option<String>,
    Option<ApprovalStatus>,
    Option<bool>,
    Option<bool>,
);

async fn others(conn: &mut AsyncPgConnection, sql: &'static str, which: Which) -> Result<Part> {
    let rows: Vec<OtherRow> = statement::<(
        BigInt,
        BigInt,
        Timestamptz,
        Nullable<Uuid>,
        Nullable<Uuid>,
        Bool,
        Text,
        Text,
        Nullable<Uuid>,
        Nullable<Uuid>,
        Nullable<Text>,
        Text,
        Nullable<Text>,
        Nullable<Text>,
        Nullable<Bool>,
        Nullable<Bool>,
    )>(sql)
    .bind::<BigInt, _>(which.after.xact())
    .bind::<BigInt, _>(which.after.seq())
    .bind::<BigInt, _>(which.below)
    .bind::<BigInt, _>(which.most)
    .load(conn)
    .await?;
    Ok(part(rows.into_iter().map(other).collect::<Result<_>>()?, which))
}

fn other(row: OtherRow) -> Result<Told> {
    let (
        xact,
        seq,
        at,
        org_id,
        owner,
        shared,
        kind,
        agent,
        session_id,
        command,
        action,
        status,
        reason,
        approval,
        drained,
        removed,
    ) = row;
    let corrupt = || Error::corrupt("event", format!("{xact}-{seq} is not whole"));
    let agent_id = agent.parse().map_err(|error: &str| Error::corrupt("agent id", error))?;
    let change = match kind {
        EventKind::Command => Change::Command(CommandChange {
            command_id: command.ok_or_else(corrupt)?.to_wire(),
            session_id,
            agent_id,
            action: action.ok_or_else(corrupt)?,
            status: read::<CommandStatus>(&status)?,
            reason,
        }),
        EventKind::Agent => {
            let (status, drained) = (read::<AgentStatus>(&status)?, drained.ok_or_else(corrupt)?);
            Change::Agent(AgentChange {
                agent_id,
                // As in `Agent`: an operator's drain outlasts the agent's own `online`.
                status: if drained && status == AgentStatus::Online { AgentStatus::Draining } else { status },
                approval_status: approval.ok_or_else(corrupt)?,
                drained,
                removed: removed.ok_or_else(corrupt)?,
            })
        }
        EventKind::Session => return Err(corrupt()),
    };
    Ok(Told { event: Event { id: EventId::new(xact, seq), at, change }, org_id, owner, shared })
}

fn read<T: std::str::FromStr<Err = tidegate_model::UnknownValue>>(text: &str) -> Result<T> {
    text.parse().map_err(|error| Error::corrupt("event", error))
}

fn part(told: Vec<Told>, which: Which) -> Part {
    let full = told.len() >= usize::try_from(which.most).unwrap_or(usize::MAX);
    Part { told, full }
}

#[cfg(test)]
mod tests {
    use tidegate_model::Reset;

    use super::*;

    fn told(xact: i64, seq: i64) -> Told {
        let change = Change::Reset(Reset { reason: String::new() });
        let event = Event { id: EventId::new(xact, seq), at: DateTime::UNIX_EPOCH, change };
        Told { event, org_id: None, owner: None, shared: false }
    }

    fn ids(page: &Page) -> Vec<(i64, i64)> {
        page.told.iter().map(|told| (told.event.id.xact(), told.event.id.seq())).collect()
    }

    const BOUNDS: Bounds = Bounds { whole: 100, next: 105, last: EventId::new(98, 50) };

    #[test]
    fn parts_become_one_stream_in_order() {
        let parts = vec![
            Part { told: vec![told(5, 1), told(7, 9)], full: false },
            Part { told: vec![told(5, 2), told(6, 3)], full: false },
        ];
        let page = joined(parts, EventId::START, BOUNDS, EventId::START);
        assert_eq!(ids(&page), [(5, 1), (5, 2), (6, 3), (7, 9)]);
        assert_eq!((page.to, page.full), (EventId::new(98, 50), false));
    }

    #[test]
    fn what_comes_after_the_end_of_a_part_that_was_cut_short_waits() {
        let parts = vec![
            Part { told: vec![told(5, 1), told(6, 4)], full: true },
            Part { told: vec![told(5, 2), told(6, 5), told(9, 9)], full: false },
        ];
        let page = joined(parts, EventId::START, BOUNDS, EventId::START);
        assert_eq!(ids(&page), [(5, 1), (5, 2), (6, 4)]);
        assert_eq!((page.to, page.full), (EventId::new(6, 4), true));
    }

    #[test]
    fn what_is_in_two_pages_stands_in_both_together_once() {
        let part = |lines: &[(i64, i64)], full| Part {
            told: lines.iter().map(|(xact, seq)| told(*xact, *seq)).collect(),
            full,
        };
        let own = joined(vec![part(&[(5, 1), (6, 2)], false)], EventId::START, BOUNDS, EventId::START);
        let agents =
            joined(vec![part(&[(4, 9), (6, 2), (7, 3)], true)], EventId::START, BOUNDS, EventId::new(1, 1));
        let both = own.beside(agents);
        assert_eq!(ids(&both), [(4, 9), (5, 1), (6, 2), (7, 3)]);
        assert_eq!((both.to, both.full, both.horizon), (EventId::new(7, 3), true, EventId::new(1, 1)));
    }

    #[test]
    fn a_place_before_the_horizon_or_from_the_future_has_lost_something() {
        let page = joined(Vec::new(), EventId::START, BOUNDS, EventId::new(50, 7));
        assert!(page.has_lost(EventId::new(50, 6)));
        assert!(!page.has_lost(EventId::new(50, 7)));
        assert!(!page.has_lost(EventId::new(104, 9)));
        assert!(page.has_lost(EventId::new(105, 0)));
    }
}
