//! Persistent homes: listed, asked to be deleted, and gone when their agent says so.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use tidegate_model::{AgentId, CommandId, Home, HomeId, Quantity, SessionId, UserId};

use crate::{AgentTx, Error, OrgTx, Result, statement::statement};

type Columns = (
    (Uuid, Uuid, Nullable<Text>, Uuid, Nullable<Text>),
    (BigInt, Timestamptz, Nullable<Timestamptz>, Nullable<Text>),
);
type Row = (
    (HomeId, UserId, Option<String>, AgentId, Option<String>),
    (i64, DateTime<Utc>, Option<DateTime<Utc>>, Option<String>),
);

fn home(row: Row) -> Result<(Home, AgentId)> {
    let ((id, user_id, username, agent, handle), (bytes, created_at, deleting_at, delete_error)) = row;
    let agent_id = handle.map(|handle| handle.parse()).transpose();
    let home = Home {
        id,
        user_id,
        username,
        agent_id: agent_id.map_err(|error: &str| Error::corrupt("agent id", error))?,
        storage: Quantity::from_bytes(u64::try_from(bytes).unwrap_or(0)),
        created_at,
        deleting_at,
        delete_error,
    };
    Ok((home, agent))
}

/// A home with the name of whose it is, be it from the last session on it, and its agent, where that is there.
macro_rules! select_home {
    ($rest:literal) => {
        concat!(
            "SELECT h.id, h.user_id,
                    COALESCE(u.username, (SELECT s.username FROM sessions s WHERE s.agent_id = h.agent_id AND s.user_id = h.user_id
                                            AND s.persistent_home ORDER BY s.created_at DESC LIMIT 1)),
                    h.agent_id, a.agent_id, h.storage_bytes, h.created_at, h.deleting_at, h.delete_error
             FROM homes h LEFT JOIN users u ON u.id = h.user_id LEFT JOIN agents a ON a.id = h.agent_id
             WHERE h.org_id = ? AND ",
            $rest
        )
    };
}

/// Homes of the organization, or of one user alone, the oldest first, from the one after `after` on, with how many there
/// are on all pages.
pub async fn list(
    tx: &mut OrgTx,
    of: Option<UserId>,
    after: Option<(DateTime<Utc>, HomeId)>,
    limit: i64,
) -> Result<(Vec<Home>, i64)> {
    let org = tx.org_id();
    let (at, id) = after.unzip();
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<Columns>(select_home!(
        "(?::uuid IS NULL OR h.user_id = ?)
           AND (h.created_at, h.id) > (COALESCE(?, '-infinity'), COALESCE(?, '00000000-0000-0000-0000-000000000000'))
         ORDER BY h.created_at, h.id LIMIT ?"
    ))
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Uuid>, _>(of)
    .bind::<Nullable<Uuid>, _>(of)
    .bind::<Nullable<Timestamptz>, _>(at)
    .bind::<Nullable<Uuid>, _>(id)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM homes WHERE org_id = ? AND (?::uuid IS NULL OR user_id = ?) LIMIT 10001) h",
    )
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Uuid>, _>(of)
    .bind::<Nullable<Uuid>, _>(of)
    .load(conn)
    .await?;
    let homes = rows.into_iter().map(|row| home(row).map(|(home, _)| home)).collect::<Result<_>>()?;
    Ok((homes, total.into_iter().next().unwrap_or(0)))
}

/// A home of the organization, and the row of its agent.
pub async fn find(tx: &mut OrgTx, id: HomeId) -> Result<(Home, AgentId)> {
    let org = tx.org_id();
    let find = statement::<Columns>(select_home!("h.id = ?"));
    let rows: Vec<Row> = find.bind::<Uuid, _>(org).bind::<Uuid, _>(id).load(tx.conn()?).await?;
    home(rows.into_iter().next().ok_or(Error::NotFound)?)
}

/// Whether a session that has not ended is at home there, asleep or not.
pub async fn in_use(tx: &mut OrgTx, user: UserId, agent: AgentId) -> Result<bool> {
    let org = tx.org_id();
    let rows: Vec<bool> = statement::<Bool>(
        "SELECT EXISTS (SELECT 1 FROM sessions WHERE org_id = ? AND user_id = ? AND agent_id = ? AND persistent_home
                          AND state NOT IN ('terminated', 'failed'))",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(agent)
    .load(tx.conn()?)
    .await?;
    Ok(rows == [true])
}

/// The last session that was at home there, if the books still have one.
pub async fn last_session(tx: &mut OrgTx, user: UserId, agent: AgentId) -> Result<Option<SessionId>> {
    let org = tx.org_id();
    let rows: Vec<SessionId> = statement::<Uuid>(
        "SELECT id FROM sessions WHERE org_id = ? AND user_id = ? AND agent_id = ? AND persistent_home
         ORDER BY created_at DESC LIMIT 1",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(agent)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next())
}

/// A home that its agent is asked to delete.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// The home.
    pub id: HomeId,
    /// Its agent.
    pub agent: AgentId,
    /// The agent's name.
    pub handle: String,
    /// The command that asks.
    pub command: CommandId,
    /// What it says.
    pub payload: Value,
    /// When it fails by itself.
    pub deadline: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Queues the command that asks for a home's end beside the home. It is about no session: what becomes of it moves none.
pub async fn ask(tx: &mut OrgTx, deletion: Deletion) -> Result<()> {
    let org = tx.org_id();
    let conn = tx.conn()?;
    statement::<()>(
        "INSERT INTO commands (id, org_id, agent_id, agent_handle, action, payload, status, deadline, created_at)
         VALUES (?, ?, ?, ?, 'stop_session', ?, 'pending', ?, ?)",
    )
    .bind::<Uuid, _>(deletion.command)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(deletion.agent)
    .bind::<Text, _>(deletion.handle)
    .bind::<Jsonb, _>(deletion.payload)
    .bind::<Timestamptz, _>(deletion.deadline)
    .bind::<Timestamptz, _>(deletion.now)
    .execute(conn)
    .await?;
    statement::<()>(
        "UPDATE homes SET deleting_at = ?, delete_command = ?, delete_error = NULL WHERE org_id = ? AND id = ?",
    )
    .bind::<Timestamptz, _>(deletion.now)
    .bind::<Uuid, _>(deletion.command)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(deletion.id)
    .execute(conn)
    .await?;
    Ok(())
}

/// Strikes a home off the books, of which nobody could say that it is gone.
pub async fn forget(tx: &mut OrgTx, id: HomeId) -> Result<()> {
    let org = tx.org_id();
    let forget = statement::<()>("DELETE FROM homes WHERE org_id = ? AND id = ?");
    forget.bind::<Uuid, _>(org).bind::<Uuid, _>(id).execute(tx.conn()?).await?;
    Ok(())
}

/// Homes that are gone, as the answers to these commands say.
pub async fn gone(tx: &mut AgentTx, commands: Vec<CommandId>) -> Result<()> {
    let gone = statement::<()>("DELETE FROM homes WHERE delete_command = ANY(?)");
    gone.bind::<Array<Uuid>, _>(commands).execute(tx.conn()?).await?;
    Ok(())
}

/// Homes that are still there, each with why: they may be asked for again.
pub async fn kept(tx: &mut AgentTx, why: Vec<(CommandId, String)>) -> Result<()> {
    let (commands, reasons): (Vec<CommandId>, Vec<String>) = why.into_iter().unzip();
    statement::<()>(
        "UPDATE homes h SET deleting_at = NULL, delete_command = NULL, delete_error = left(k.why, 500)
         FROM unnest(?, ?) AS k(command, why) WHERE h.delete_command = k.command",
    )
    .bind::<Array<Uuid>, _>(commands)
    .bind::<Array<Text>, _>(reasons)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}
