//! The start of a session: its row, its spec and its first command, sent at once.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, QueryDsl,
    sql_types::{Array, BigInt, Bool, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::join5;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_model::{
    AgentId, ApplicationId, Hibernation, LimitSource, OrgId, Platform, Session, SessionId, SessionState,
    StreamKind, UserId,
};

use super::Row;
use crate::{
    Constraint, Error, OrgTx, Result, audit,
    command::{self, NewCommand},
    schema::session_specs,
    statement::{Statement, statement},
};

/// A session to insert, already placed.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// The id.
    pub id: SessionId,
    /// The organization; row-level security refuses any but the transaction's.
    pub org_id: OrgId,
    /// The owner.
    pub user_id: UserId,
    /// The owner's username.
    pub username: String,
    /// For people.
    pub name: String,
    /// Template name.
    pub template: String,
    /// The installed application that it is of.
    pub application_id: Option<ApplicationId>,
    /// Image of its container, where it is one.
    pub image: Option<String>,
    /// How it is watched.
    pub protocol: StreamKind,
    /// Where it is placed.
    pub agent_id: AgentId,
    /// That agent's name.
    pub agent_handle: String,
    /// That agent's platform.
    pub platform: Platform,
    /// That agent's region.
    pub region: Option<String>,
    /// Pending.
    pub state: SessionState,
    /// The present.
    pub state_since: DateTime<Utc>,
    /// 1.
    pub generation: i64,
    /// Millicores.
    pub cpu_millis: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Bytes of the persistent home.
    pub storage_bytes: i64,
    /// Whether the home outlives the session.
    pub persistent_home: bool,
    /// Seconds, 0 for never.
    pub idle_seconds: i32,
    /// Seconds, 0 for never.
    pub max_seconds: i32,
    /// Who set the idle timeout.
    pub idle_source: LimitSource,
    /// Who set the longest duration.
    pub max_source: LimitSource,
    /// Labels.
    pub tags: Vec<String>,
    /// The present.
    pub created_at: DateTime<Utc>,
}

impl NewRow {
    /// The session as it will be read back: what is not here yet is what the table's defaults say.
    pub fn session(&self) -> Result<Session> {
        Row {
            id: self.id,
            org_id: self.org_id,
            user_id: self.user_id,
            username: self.username.clone(),
            name: self.name.clone(),
            template: self.template.clone(),
            installed_application_id: self.application_id,
            agent_handle: Some(self.agent_handle.clone()),
            platform: self.platform,
            region: self.region.clone(),
            state: self.state,
            state_reason: None,
            state_since: self.state_since,
            generation: self.generation,
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            storage_bytes: self.storage_bytes,
            persistent_home: self.persistent_home,
            idle_seconds: self.idle_seconds,
            max_seconds: self.max_seconds,
            tags: self.tags.clone(),
            streaming_ready: false,
            streaming_port: None,
            platform_metadata: Value::Object(serde_json::Map::new()),
            created_at: self.created_at,
            started_at: None,
            last_activity_at: None,
            hibernated_at: None,
            ended_at: None,
            image: self.image.clone(),
            protocol: self.protocol,
            extended_seconds: 0,
            kept_until: None,
            warned_at: None,
            warned_of: None,
        }
        .try_into()
    }
}

/// What a start needs beyond the row.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// Program and arguments.
    pub command: Option<Vec<String>>,
    /// Sealed environment.
    pub environment: Option<Vec<u8>>,
    /// What is said of its container.
    pub options: Options,
    /// The catalog's template, as agents are told of it.
    pub manifest: Option<Value>,
}

impl Spec {
    fn is_empty(&self) -> bool {
        self.command.is_none()
            && self.environment.is_none()
            && self.options == Options::default()
            && self.manifest.is_none()
    }
}

/// What is said of a container beyond its image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// The port that is streamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What becomes of it asleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hibernation: Option<Hibernation>,
}

/// Diesel's own insert is prepared anew at each call.
fn insert_statement(new: NewRow) -> Statement<()> {
    statement::<()>(
        "INSERT INTO sessions (id, org_id, user_id, username, name, template, agent_id, agent_handle, platform, region, state,
             state_since, generation, cpu_millis, memory_bytes, storage_bytes, persistent_home, idle_seconds, max_seconds,
             idle_source, max_source, tags, created_at, image, protocol, installed_application_id)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Uuid, _>(new.org_id)
    .bind::<Uuid, _>(new.user_id)
    .bind::<Text, _>(new.username)
    .bind::<Text, _>(new.name)
    .bind::<Text, _>(new.template)
    .bind::<Uuid, _>(new.agent_id)
    .bind::<Text, _>(new.agent_handle)
    .bind::<Text, _>(new.platform)
    .bind::<Nullable<Text>, _>(new.region)
    .bind::<Text, _>(new.state)
    .bind::<Timestamptz, _>(new.state_since)
    .bind::<BigInt, _>(new.generation)
    .bind::<BigInt, _>(new.cpu_millis)
    .bind::<BigInt, _>(new.memory_bytes)
    .bind::<BigInt, _>(new.storage_bytes)
    .bind::<Bool, _>(new.persistent_home)
    .bind::<Integer, _>(new.idle_seconds)
    .bind::<Integer, _>(new.max_seconds)
    .bind::<Text, _>(new.idle_source)
    .bind::<Text, _>(new.max_source)
    .bind::<Array<Text>, _>(new.tags)
    .bind::<Timestamptz, _>(new.created_at)
    .bind::<Nullable<Text>, _>(new.image)
    .bind::<Text, _>(new.protocol)
    .bind::<Nullable<Uuid>, _>(new.application_id)
}

/// Inserts a placed session with its spec, if it has one, the command that starts it and the line of the log that tells
/// of it: one round trip.
pub async fn start(
    tx: &mut OrgTx,
    new: &NewRow,
    spec: &Spec,
    command: NewCommand,
    line: audit::Entry,
) -> Result<()> {
    let org_id = tx.org_id();
    let line = audit::insert_statement(Some(org_id), tx.author.clone(), line);
    let conn: &AsyncPgConnection = tx.conn()?;
    let (mut first, mut second, mut third, mut fourth, mut fifth) = (conn, conn, conn, conn, conn);
    let row = insert_statement(new.clone());
    let row = row.execute(&mut first);
    let spec = async {
        if spec.is_empty() {
            return Ok(0);
        }
        let options = Some(spec.options).filter(|options| *options != Options::default());
        statement::<()>(
            "INSERT INTO session_specs (org_id, session_id, command, environment, options, manifest) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind::<Uuid, _>(org_id)
        .bind::<Uuid, _>(new.id)
        .bind::<Nullable<Jsonb>, _>(spec.command.clone().map(Value::from))
        .bind::<Nullable<Bytea>, _>(spec.environment.clone())
        .bind::<Nullable<Jsonb>, _>(options.and_then(|options| serde_json::to_value(options).ok()))
        .bind::<Nullable<Jsonb>, _>(spec.manifest.clone())
        .execute(&mut second)
        .await
    };
    let command = command::insert_statement(org_id, command);
    let home = async {
        if !new.persistent_home {
            return Ok(0);
        }
        home_statement(new).execute(&mut fourth).await
    };
    // Polled in this order, sent in this order: the spec and the command refer to the row. Joined, and not given up at
    // the first error: an answer nobody waits for would be the next statement's.
    let (row, spec, command, home, line) =
        join5(row, spec, command.execute(&mut third), home, line.execute(&mut fifth)).await;
    // The first one to fail is the cause; what was sent after it only says that the transaction is void.
    row?;
    spec?;
    command?;
    // One that is about to be deleted is no home to start in.
    if new.persistent_home && home? == 0 {
        return Err(Error::Violation(Constraint::HomeStays));
    }
    line?;
    Ok(())
}

/// The home of the session, which outlives it; one that is there is as large as the largest session asked for.
fn home_statement(new: &NewRow) -> Statement<()> {
    statement::<()>(
        "INSERT INTO homes (org_id, user_id, agent_id, storage_bytes, created_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (org_id, user_id, agent_id) DO UPDATE SET storage_bytes = GREATEST(homes.storage_bytes, EXCLUDED.storage_bytes)
         WHERE homes.deleting_at IS NULL",
    )
    .bind::<Uuid, _>(new.org_id)
    .bind::<Uuid, _>(new.user_id)
    .bind::<Uuid, _>(new.agent_id)
    .bind::<BigInt, _>(new.storage_bytes)
    .bind::<Timestamptz, _>(new.created_at)
}

/// A session's spec; empty when it has none.
pub async fn find_spec(tx: &mut OrgTx, session: SessionId) -> Result<Spec> {
    type Columns = (Option<Value>, Option<Vec<u8>>, Option<Value>, Option<Value>);
    let rows: Vec<Columns> = session_specs::table
        .select((
            session_specs::command,
            session_specs::environment,
            session_specs::options,
            session_specs::manifest,
        ))
        .filter(session_specs::session_id.eq(session))
        .load(tx.conn()?)
        .await?;
    let Some((command, environment, options, manifest)) = rows.into_iter().next() else {
        return Ok(Spec::default());
    };
    let corrupt = |error: serde_json::Error| Error::corrupt("session spec", error);
    let command = command.map(serde_json::from_value).transpose().map_err(corrupt)?;
    let options = options.map(serde_json::from_value).transpose().map_err(corrupt)?.unwrap_or_default();
    Ok(Spec { command, environment, options, manifest })
}
