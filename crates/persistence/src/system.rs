//! The ugly door: what the platform itself looks for across tenants. It lists ids with their scope and never writes.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Bool, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tidegate_model::{AgentId, OrgId, SessionId};

use crate::{AgentScope, Db, Result, SystemScope, migrate, roles, statement::statement};

/// Why the platform looks across tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Commands past their deadline are failed.
    OverdueCommands,
    /// Sessions that wait for a command which no longer comes are healed.
    StuckSessions,
    /// Agents that were not heard of are offline.
    SilentAgents,
    /// A drain is over, an overlap of keys ends, a removed agent still has sessions.
    DueOrders,
}

impl Db {
    /// The agents concerned by `reason`, each to be opened in its own scope. `time` is the present for overdue
    /// commands and due orders, and the latest moment that counts for the others.
    pub async fn as_system(&self, reason: Reason, time: DateTime<Utc>) -> Result<AgentScope> {
        let sql = match reason {
            Reason::OverdueCommands => "SELECT agent_id FROM list_agents_with_overdue_commands(?)",
            Reason::StuckSessions => "SELECT agent_id FROM list_agents_with_stuck_sessions(?)",
            Reason::SilentAgents => "SELECT agent_id FROM list_silent_agents(?)",
            Reason::DueOrders => "SELECT agent_id FROM list_agents_with_due_orders(?)",
        };
        let mut connection = self.connection().await?;
        let rows: Vec<(AgentId,)> =
            statement::<(Uuid,)>(sql).bind::<Timestamptz, _>(time).load(&mut connection).await?;
        Ok(AgentScope { agents: rows.into_iter().map(|row| row.0).collect() })
    }

    /// Sessions whose limits ask for something by `now`, the longest due first, from the one after `after` on; at most
    /// `limit` of them. Each is to be opened in its organization's own scope.
    pub async fn due_sessions(
        &self,
        after: Option<DuePlace>,
        now: DateTime<Utc>,
        limit: i32,
    ) -> Result<Vec<DueSession>> {
        let after = after.unwrap_or(DuePlace {
            due_at: DateTime::UNIX_EPOCH,
            id: SessionId::from_uuid(uuid::Uuid::nil()),
        });
        let mut connection = self.connection().await?;
        let rows: Vec<(OrgId, SessionId, DateTime<Utc>)> = statement::<(Uuid, Uuid, Timestamptz)>(
            "SELECT org_id, session_id, due_at FROM list_due_sessions(?, ?, ?, ?)",
        )
        .bind::<Timestamptz, _>(now)
        .bind::<Timestamptz, _>(after.due_at)
        .bind::<Uuid, _>(after.id)
        .bind::<Integer, _>(limit)
        .load(&mut connection)
        .await?;
        let due = |(org_id, id, due_at)| DueSession {
            scope: SystemScope { org_id },
            place: DuePlace { due_at, id },
        };
        Ok(rows.into_iter().map(due).collect())
    }

    /// The organizations that these sessions are of, each to be opened in its own scope; what is not there is left out.
    pub async fn organizations_of(&self, sessions: Vec<SessionId>) -> Result<Vec<(SystemScope, SessionId)>> {
        let mut connection = self.connection().await?;
        let rows: Vec<(OrgId, SessionId)> =
            statement::<(Uuid, Uuid)>("SELECT org_id, session_id FROM list_organizations_of_sessions(?)")
                .bind::<Array<Uuid>, _>(sessions)
                .load(&mut connection)
                .await?;
        Ok(rows.into_iter().map(|(org_id, session)| (SystemScope { org_id }, session)).collect())
    }

    /// Terminals that are to be recorded and that nobody records at this moment, those that wait the longest first; at most
    /// `limit` of them: of sessions on these agents, whose recordings can be made, and of those that ended before `given_up`,
    /// whose recordings can be ended. Each is to be opened in its organization's own scope.
    pub async fn free_recordings(
        &self,
        agents: Vec<AgentId>,
        given_up: DateTime<Utc>,
        now: DateTime<Utc>,
        limit: i32,
    ) -> Result<Vec<FreeRecording>> {
        type Row = (OrgId, SessionId, Option<AgentId>, bool, DateTime<Utc>);
        let mut connection = self.connection().await?;
        let rows: Vec<Row> = statement::<(Uuid, Uuid, Nullable<Uuid>, Bool, Timestamptz)>(
            "SELECT org_id, session_id, agent_id, is_final, since FROM list_free_recordings(?, ?, ?, ?)",
        )
        .bind::<Array<Uuid>, _>(agents)
        .bind::<Timestamptz, _>(given_up)
        .bind::<Timestamptz, _>(now)
        .bind::<Integer, _>(limit)
        .load(&mut connection)
        .await?;
        let free = |(org_id, session, agent, is_final, since)| FreeRecording {
            scope: SystemScope { org_id },
            session,
            agent,
            is_final,
            since,
        };
        Ok(rows.into_iter().map(free).collect())
    }
}

/// A terminal that is to be recorded and that nobody records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeRecording {
    /// Its organization.
    pub scope: SystemScope,
    /// The session.
    pub session: SessionId,
    /// The agent it is placed on.
    pub agent: Option<AgentId>,
    /// Whether it has ended.
    pub is_final: bool,
    /// Since when it is in its state.
    pub since: DateTime<Utc>,
}

/// A place in the order of due sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuePlace {
    /// When it was due.
    pub due_at: DateTime<Utc>,
    /// The session.
    pub id: SessionId,
}

/// A session whose limits ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueSession {
    /// Its organization.
    pub scope: SystemScope,
    /// Which one, and since when.
    pub place: DuePlace,
}

/// What the database thinks the time is. Not for decisions: it is what `Clock` is measured against.
pub(crate) async fn database_now(connection: &mut AsyncPgConnection) -> Result<DateTime<Utc>> {
    let rows: Vec<(DateTime<Utc>,)> =
        statement::<(Timestamptz,)>("SELECT clock_timestamp()").load(connection).await?;
    Ok(rows.into_iter().next().map(|row| row.0).unwrap_or_default())
}

/// What `doctor` and `/readyz` want to know of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `server_version_num`, for example 150018.
    pub server_version: i32,
    /// Whether every migration of this program was applied.
    pub migrated: bool,
    /// Scope roles that this login may not take.
    pub missing_roles: Vec<&'static str>,
    /// Tables without forced row-level security.
    pub unguarded_tables: Vec<String>,
    /// Whether the login role bypasses row-level security, which it must not.
    pub bypasses_rls: bool,
}

/// Looks at server, migrations, roles and row-level security with the rights of the login role.
pub async fn health(db: &Db) -> Result<Health> {
    let mut connection = db.connection().await?;
    let conn = &mut *connection;
    let version: Vec<(i32,)> =
        statement::<(Integer,)>("SELECT current_setting('server_version_num')::integer").load(conn).await?;
    let unguarded: Vec<(String,)> = statement::<(Text,)>(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname <> '__diesel_schema_migrations'
           AND NOT (c.relrowsecurity AND c.relforcerowsecurity) ORDER BY 1",
    )
    .load(conn)
    .await?;
    let held: Vec<(String,)> = statement::<(Text,)>(
        "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'tidegate%' AND pg_has_role(current_user, oid, 'MEMBER')",
    )
    .load(conn)
    .await?;
    let bypass: Vec<(i32,)> = statement::<(Integer,)>(
        "SELECT count(*)::integer FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)",
    )
    .load(conn)
    .await?;
    let wanted = roles::SCOPES.into_iter().filter(|role| *role != "tidegate_lister");
    Ok(Health {
        server_version: version.into_iter().next().map_or(0, |row| row.0),
        migrated: migrated(conn).await?,
        missing_roles: wanted.filter(|role| !held.iter().any(|(held,)| held == role)).collect(),
        unguarded_tables: unguarded.into_iter().map(|row| row.0).collect(),
        bypasses_rls: bypass.into_iter().next().is_some_and(|row| row.0 > 0),
    })
}

async fn migrated(conn: &mut AsyncPgConnection) -> Result<bool> {
    let there: Vec<(i32,)> = statement::<(Integer,)>(
        "SELECT count(*)::integer FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'public' AND c.relname = '__diesel_schema_migrations'",
    )
    .load(conn)
    .await?;
    if there.into_iter().next().is_none_or(|row| row.0 == 0) {
        return Ok(false);
    }
    let latest = migrate::latest()?;
    let applied: Vec<(String,)> =
        statement::<(Text,)>("SELECT COALESCE(max(version), '')::text FROM __diesel_schema_migrations")
            .load(conn)
            .await?;
    Ok(applied.into_iter().next().is_some_and(|row| row.0 >= latest))
}
