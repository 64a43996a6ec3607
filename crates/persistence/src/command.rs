//! Commands: the only queue there is.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl, Queryable, Selectable, SelectableHelper,
    sql_types::{Array, BigInt, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use tidegate_model::{
    AgentCommand, AgentHandle, AgentId, CommandAction, CommandId, CommandPayload, CommandStatus, OrgId,
    SessionId,
};

use crate::{AgentTx, Error, OrgTx, PlatformTx, Result, schema::commands, statement::statement};

#[derive(Queryable, Selectable)]
#[diesel(table_name = commands)]
struct Row {
    id: CommandId,
    agent_handle: String,
    session_id: Option<SessionId>,
    action: CommandAction,
    payload: Value,
    status: CommandStatus,
    error_message: Option<String>,
    created_at: DateTime<Utc>,
    sent_at: Option<DateTime<Utc>>,
    acknowledged_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for AgentCommand {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id,
            command_id: row.id.to_wire(),
            agent_id: row.agent_handle.parse().map_err(|error: &str| Error::corrupt("agent id", error))?,
            session_id: row.session_id,
            action: row.action,
            payload: row.payload.as_object().cloned().map(CommandPayload),
            status: row.status,
            error_message: row.error_message,
            created_at: row.created_at,
            sent_at: row.sent_at,
            acknowledged_at: row.acknowledged_at,
            completed_at: row.completed_at,
        })
    }
}

/// A command to queue.
#[derive(Debug, Clone)]
pub struct NewCommand {
    /// The id.
    pub id: CommandId,
    /// Whose it is to execute.
    pub agent_id: AgentId,
    /// Its name.
    pub agent_handle: AgentHandle,
    /// The session it is about.
    pub session_id: SessionId,
    /// Which start or wake it belongs to.
    pub generation: i64,
    /// What to do.
    pub action: CommandAction,
    /// With what; never a secret.
    pub payload: Value,
    /// Sealed environment, opened on the way out and wiped when the command is final.
    pub sealed: Option<Vec<u8>>,
    /// When it fails by itself.
    pub deadline: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
}

const INSERT: &str = "INSERT INTO commands (id, org_id, agent_id, agent_handle, session_id, generation, action, payload, sealed, status, deadline, created_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?)";

/// Queues a command beside the state it serves.
pub async fn insert(tx: &mut OrgTx, new: NewCommand) -> Result<()> {
    let org_id = tx.org_id();
    insert_statement(org_id, new).execute(tx.conn()?).await?;
    Ok(())
}

/// Queues a command that the reconciler found to be missing.
pub async fn insert_for_agent(tx: &mut AgentTx, org_id: OrgId, new: NewCommand) -> Result<()> {
    insert_statement(org_id, new).execute(tx.conn()?).await?;
    Ok(())
}

/// The session a command is about, with its organization and generation.
pub type Bound = Option<(OrgId, SessionId, i64)>;

/// A command that an operator gives an agent.
#[derive(Debug, Clone)]
pub struct OperatorCommand {
    /// The id.
    pub id: CommandId,
    /// Whose it is to execute.
    pub agent_id: AgentId,
    /// Its name.
    pub agent_handle: AgentHandle,
    /// The session it is about, if that is one of ours.
    pub session: Bound,
    /// What to do.
    pub action: CommandAction,
    /// With what; never a secret.
    pub payload: Value,
    /// When it fails by itself.
    pub deadline: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Queues a command that serves no state of ours: an operator's.
pub async fn insert_for_operator(tx: &mut PlatformTx, new: OperatorCommand) -> Result<()> {
    statement::<()>(
        "INSERT INTO commands (id, org_id, agent_id, agent_handle, session_id, generation, action, payload, status, deadline, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Nullable<Uuid>, _>(new.session.map(|(org, ..)| org))
    .bind::<Uuid, _>(new.agent_id)
    .bind::<Text, _>(new.agent_handle.as_str().to_owned())
    .bind::<Nullable<Uuid>, _>(new.session.map(|(_, id, _)| id))
    .bind::<Nullable<BigInt>, _>(new.session.map(|(.., generation)| generation))
    .bind::<Text, _>(new.action)
    .bind::<Jsonb, _>(new.payload)
    .bind::<Timestamptz, _>(new.deadline)
    .bind::<Timestamptz, _>(new.now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// The stop of a session nobody here knows that is on its way to its agent already.
pub async fn open_stop_of_stranger(
    tx: &mut PlatformTx,
    agent: AgentId,
    session_id: &str,
) -> Result<Option<CommandId>> {
    let rows: Vec<CommandId> = statement::<Uuid>(
        "SELECT id FROM commands WHERE agent_id = ? AND completed_at IS NULL AND action = 'stop_session'
           AND session_id IS NULL AND payload->>'sessionId' = ? LIMIT 1",
    )
    .bind::<Uuid, _>(agent)
    .bind::<Text, _>(session_id.to_owned())
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next())
}

pub(crate) fn insert_statement(org_id: OrgId, new: NewCommand) -> crate::statement::Statement<()> {
    statement::<()>(INSERT)
        .bind::<Uuid, _>(new.id)
        .bind::<Uuid, _>(org_id)
        .bind::<Uuid, _>(new.agent_id)
        .bind::<Text, _>(new.agent_handle.as_str().to_owned())
        .bind::<Uuid, _>(new.session_id)
        .bind::<BigInt, _>(new.generation)
        .bind::<Text, _>(new.action)
        .bind::<Jsonb, _>(new.payload)
        .bind::<Nullable<Bytea>, _>(new.sealed)
        .bind::<Timestamptz, _>(new.deadline)
        .bind::<Timestamptz, _>(new.now)
}

/// A command on its way to its agent.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The agent.
    pub agent_id: AgentId,
    /// The connection it was claimed for.
    pub epoch: i64,
    /// The command.
    pub id: CommandId,
    /// What to do.
    pub action: CommandAction,
    /// With what.
    pub payload: Value,
    /// Sealed environment.
    pub sealed: Option<Vec<u8>>,
    /// The session, which the seal is bound to.
    pub session_id: Option<SessionId>,
}

/// Claims, in one statement and in order, the open commands that were not yet written to these connections, and those
/// that were and got no answer since `resend_before`. Racing claimers skip each other's rows.
pub async fn claim(
    tx: &mut AgentTx,
    connections: &[(AgentId, i64)],
    limit: usize,
    resend_before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Vec<Claimed>> {
    type ClaimRow = (AgentId, i64, CommandId, CommandAction, Value, Option<Vec<u8>>, Option<SessionId>, i64);
    let (ids, epochs): (Vec<AgentId>, Vec<i64>) = connections.iter().copied().unzip();
    let rows: Vec<ClaimRow> = statement::<(Uuid, BigInt, Uuid, Text, Jsonb, Nullable<Bytea>, Nullable<Uuid>, BigInt)>(
        // The deadline is no bound (`IS TRUE`): the index by deadline would be looked through for it.
        "WITH due AS (
             SELECT c.id, r.epoch FROM unnest(?, ?) AS r(agent_id, epoch)
             JOIN agents a ON a.id = r.agent_id AND a.epoch = r.epoch AND a.approval_status = 'approved'
             JOIN commands c ON c.agent_id = r.agent_id AND c.completed_at IS NULL
              AND (c.sent_epoch <> r.epoch OR (c.status = 'sent' AND c.sent_at < ?))
             WHERE (c.deadline > ?) IS TRUE ORDER BY c.seq LIMIT ? FOR UPDATE OF c SKIP LOCKED)
         UPDATE commands c SET status = CASE c.status WHEN 'pending' THEN 'sent' ELSE c.status END, sent_at = ?, sent_epoch = due.epoch
         FROM due WHERE c.id = due.id
         RETURNING c.agent_id, due.epoch, c.id, c.action, c.payload, c.sealed, c.session_id, c.seq",
    )
    .bind::<Array<Uuid>, _>(ids)
    .bind::<Array<BigInt>, _>(epochs)
    .bind::<Timestamptz, _>(resend_before)
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    let mut rows = rows;
    // UPDATE returns rows in no order; delivery is in the order of the queue.
    rows.sort_unstable_by_key(|row| row.7);
    let claimed = |(agent_id, epoch, id, action, payload, sealed, session_id, _): ClaimRow| Claimed {
        agent_id,
        epoch,
        id,
        action,
        payload,
        sealed,
        session_id,
    };
    Ok(rows.into_iter().map(claimed).collect())
}

/// What came of a command.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command.
    pub id: CommandId,
    /// Who says so.
    pub agent: AgentId,
    /// Over which connection.
    pub epoch: i64,
    /// The result, or why there is none.
    pub result: Result<Option<Value>, String>,
}

/// A command that has just become final.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command.
    pub id: CommandId,
    /// Its agent.
    pub agent_id: AgentId,
    /// Its session.
    pub session_id: Option<SessionId>,
    /// Which start or wake.
    pub generation: Option<i64>,
    /// What was to be done.
    pub action: CommandAction,
    /// Completed or failed.
    pub status: CommandStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// What came of it.
    pub result: Option<Value>,
}

impl Finished {
    /// Whether it was a stop, and that is done.
    pub fn has_stopped(&self) -> bool {
        self.action == CommandAction::StopSession && self.status == CommandStatus::Completed
    }
}

type FinishedRow = (
    CommandId,
    AgentId,
    Option<SessionId>,
    Option<i64>,
    CommandAction,
    CommandStatus,
    Option<String>,
    Option<Value>,
);

fn finished(row: FinishedRow) -> Finished {
    let (id, agent_id, session_id, generation, action, status, error, result) = row;
    Finished { id, agent_id, session_id, generation, action, status, error, result }
}

/// What a batch of reports says of commands, column by column.
#[derive(Default)]
struct Columns {
    ids: Vec<CommandId>,
    agents: Vec<AgentId>,
    epochs: Vec<i64>,
    states: Vec<CommandStatus>,
    errors: Vec<Option<String>>,
    results: Vec<Option<Value>>,
}

impl Columns {
    fn push(&mut self, outcome: Outcome, state: CommandStatus) {
        self.ids.push(outcome.id);
        self.agents.push(outcome.agent);
        self.epochs.push(outcome.epoch);
        self.states.push(state);
        let (result, error) = match outcome.result {
            Ok(result) => (result, None),
            Err(error) => (None, Some(error)),
        };
        self.errors.push(error);
        self.results.push(result);
    }
}

/// Stamps commands as acknowledged and records outcomes, in one statement; the first outcome of a command is its only
/// one, and what other agents or older connections say changes nothing. Says how many acknowledgements counted.
///
/// The rows are locked in the order of their ids before any is changed: two writers never wait for each other.
pub async fn settle(
    tx: &mut AgentTx,
    acks: &[(CommandId, AgentId, i64)],
    outcomes: Vec<Outcome>,
    now: DateTime<Utc>,
) -> Result<(usize, Vec<Finished>)> {
    if acks.is_empty() && outcomes.is_empty() {
        return Ok((0, Vec::new()));
    }
    let mut columns = Columns::default();
    for &(id, agent, epoch) in acks {
        columns.push(Outcome { id, agent, epoch, result: Ok(None) }, CommandStatus::Ack);
    }
    for outcome in outcomes {
        let state = if outcome.result.is_ok() { CommandStatus::Completed } else { CommandStatus::Failed };
        columns.push(outcome, state);
    }
    let rows: Vec<FinishedRow> =
        statement::<(Uuid, Uuid, Nullable<Uuid>, Nullable<BigInt>, Text, Text, Nullable<Text>, Nullable<Jsonb>)>(
            "WITH held AS MATERIALIZED (
                 SELECT r.*, ?::timestamptz AS now FROM unnest(?, ?, ?, ?, ?, ?) AS r(id, agent_id, epoch, status, error, result)
                 JOIN agents a ON a.id = r.agent_id AND a.epoch = r.epoch AND a.approval_status = 'approved'
                 JOIN commands h ON h.id = r.id AND h.agent_id = r.agent_id AND h.completed_at IS NULL
                 ORDER BY h.id FOR NO KEY UPDATE OF h)
             UPDATE commands c SET status = r.status, error_message = r.error, result = r.result,
                    sealed = CASE r.status WHEN 'ack' THEN c.sealed END,
                    completed_at = CASE r.status WHEN 'ack' THEN c.completed_at ELSE r.now END,
                    sent_at = COALESCE(c.sent_at, r.now), acknowledged_at = COALESCE(c.acknowledged_at, r.now)
             FROM held r
             WHERE c.id = r.id AND (c.status IN ('pending', 'sent') OR (c.status = 'ack' AND r.status <> 'ack'))
             RETURNING c.id, c.agent_id, c.session_id, c.generation, c.action, c.status, c.error_message, c.result",
        )
        .bind::<Timestamptz, _>(now)
        .bind::<Array<Uuid>, _>(columns.ids)
        .bind::<Array<Uuid>, _>(columns.agents)
        .bind::<Array<BigInt>, _>(columns.epochs)
        .bind::<Array<Text>, _>(columns.states)
        .bind::<Array<Nullable<Text>>, _>(columns.errors)
        .bind::<Array<Nullable<Jsonb>>, _>(columns.results)
        .load(tx.conn()?)
        .await?;
    let all = rows.len();
    let ended: Vec<Finished> =
        rows.into_iter().map(finished).filter(|row| row.status != CommandStatus::Ack).collect();
    Ok((all - ended.len(), ended))
}

/// Fails the open commands of these agents that are past their deadline. One that somebody writes at this moment is left
/// to the next sweep: waiting for several rows, two writers could wait for each other.
pub async fn expire(tx: &mut AgentTx, agents: &[AgentId], now: DateTime<Utc>) -> Result<Vec<Finished>> {
    let rows: Vec<FinishedRow> =
        statement::<(Uuid, Uuid, Nullable<Uuid>, Nullable<BigInt>, Text, Text, Nullable<Text>, Nullable<Jsonb>)>(
            "UPDATE commands c SET status = 'failed', sealed = NULL, completed_at = ?,
                    error_message = CASE c.status WHEN 'pending' THEN 'the agent was not connected before the deadline'
                                                  WHEN 'sent' THEN 'the agent did not acknowledge before the deadline'
                                                  ELSE 'the agent did not finish before the deadline' END
             WHERE c.id IN (SELECT d.id FROM commands d WHERE d.agent_id = ANY(?) AND d.completed_at IS NULL
                            AND d.deadline <= ? FOR NO KEY UPDATE SKIP LOCKED)
             RETURNING c.id, c.agent_id, c.session_id, c.generation, c.action, c.status, c.error_message, c.result",
        )
        .bind::<Timestamptz, _>(now)
        .bind::<Array<Uuid>, _>(agents.to_vec())
        .bind::<Timestamptz, _>(now)
        .load(tx.conn()?)
        .await?;
    Ok(rows.into_iter().map(finished).collect())
}

/// A page of an agent's commands, the newest first.
pub async fn history(tx: &mut PlatformTx, agent: AgentId, limit: i64) -> Result<Vec<AgentCommand>> {
    let rows: Vec<Row> = commands::table
        .select(Row::as_select())
        .filter(commands::agent_id.eq(agent))
        .order(commands::seq.desc())
        .limit(limit)
        .load(tx.conn()?)
        .await?;
    rows.into_iter().map(AgentCommand::try_from).collect()
}

/// One command.
pub async fn find(tx: &mut PlatformTx, id: CommandId) -> Result<AgentCommand> {
    let rows: Vec<Row> =
        commands::table.select(Row::as_select()).filter(commands::id.eq(id)).load(tx.conn()?).await?;
    rows.into_iter().next().ok_or(Error::NotFound)?.try_into()
}
