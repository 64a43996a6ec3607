//! What the database itself says, asked as its superuser: row-level security hides nothing from these looks.

use anyhow::Context;
use serde::{Deserialize, de::DeserializeOwned};
use tidegate_engines::postgres::{Access, Options};
use tidegate_model::{CommandAction, CommandStatus, SessionState};

/// A command's row.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct CommandRow {
    pub(crate) id: String,
    pub(crate) session: String,
    pub(crate) generation: i64,
    pub(crate) action: CommandAction,
    pub(crate) status: CommandStatus,
    pub(crate) error: Option<String>,
}

/// A session's row.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct SessionRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: SessionState,
    pub(crate) reason: Option<String>,
    pub(crate) generation: i64,
}

/// A change of a session's state.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct EventRow {
    pub(crate) session: String,
    pub(crate) from: Option<SessionState>,
    pub(crate) to: SessionState,
    pub(crate) generation: i64,
}

/// Everything at one time.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Rows {
    pub(crate) sessions: Vec<SessionRow>,
    pub(crate) commands: Vec<CommandRow>,
    pub(crate) events: Vec<EventRow>,
    pub(crate) quarantined: Vec<String>,
}

const ROWS: &str = "SELECT jsonb_build_object(
    'sessions', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'name', name, 'state', state, 'reason', state_reason,
        'generation', generation)), '[]') FROM sessions),
    'commands', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'session', session_id, 'generation', generation,
        'action', action, 'status', status, 'error', error_message) ORDER BY seq), '[]') FROM commands),
    'events', (SELECT coalesce(jsonb_agg(jsonb_build_object('session', session_id, 'from', from_state, 'to', to_state,
        'generation', generation) ORDER BY seq), '[]') FROM session_events),
    'quarantined', (SELECT coalesce(jsonb_agg(session_id), '[]') FROM quarantined_sessions));\n";

const UNREST: &str = "SELECT jsonb_build_object(
    'commands', (SELECT count(*) FROM commands WHERE status IN ('pending', 'sent', 'ack')),
    'sessions', (SELECT count(*) FROM sessions WHERE state IN ('pending', 'waking', 'hibernating', 'terminating')));\n";

/// What still waits.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Unrest {
    pub(crate) commands: u64,
    pub(crate) sessions: u64,
}

/// Every row.
pub(crate) async fn rows(options: &Options) -> anyhow::Result<Rows> {
    ask(options, ROWS).await
}

/// How much is not final or at rest.
pub(crate) async fn unrest(options: &Options) -> anyhow::Result<Unrest> {
    ask(options, UNREST).await
}

/// New connections of the services no longer wait until a commit is on disk.
pub(crate) async fn commit_without_sync(options: &Options) -> anyhow::Result<()> {
    let sql = "ALTER ROLE tidegate_app SET synchronous_commit = off;\n";
    Ok(Access::to_running(options)?.run_superuser_sql("postgres", sql).await?)
}

async fn ask<T: DeserializeOwned>(options: &Options, sql: &str) -> anyhow::Result<T> {
    let access = Access::to_running(options)?;
    let answer = access.superuser_query("tidegate", sql).await?;
    serde_json::from_str(answer.trim()).context("the database's answer is not what was asked for")
}
