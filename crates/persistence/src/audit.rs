//! The audit log: append-only. Each line is written by the transaction of the change itself, which knows who acts, with
//! what and from where; what looks like a secret never gets in.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use serde_json::Value;
use tidegate_model::{AuditEntry, AuditFilter, AuditId, CredentialId, OrgId, UserId, redacted};

use crate::{
    Actor, OrgTx, Origin, PlatformTx, Result, UserTx,
    statement::{Statement, statement},
};

/// One line to be written.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was done, for example `agent.approve`.
    pub action: &'static str,
    /// To what, for example `agent:vm-1`.
    pub resource: String,
    /// Where the request came from, where the scope does not know it.
    pub address: Option<String>,
    /// What changed: `before` and `after` become columns of their own, everything else stays together.
    pub detail: Value,
    /// When.
    pub at: DateTime<Utc>,
}

/// Who writes, with what and from where.
#[derive(Debug, Clone)]
pub(crate) struct Author {
    pub(crate) actor: Actor,
    pub(crate) name: Option<String>,
    pub(crate) credential: Option<CredentialId>,
    pub(crate) origin: Origin,
}

impl Author {
    pub(crate) fn of(actor: Actor) -> Self {
        Self { actor, name: None, credential: None, origin: Origin::default() }
    }

    fn user_id(&self) -> Option<UserId> {
        match self.actor {
            Actor::User(id) => Some(id),
            Actor::Agent(_) | Actor::Console | Actor::System => None,
        }
    }
}

/// Writes a line of the platform's own log.
pub async fn insert_platform(tx: &mut PlatformTx, entry: Entry) -> Result<()> {
    let author = tx.author.clone();
    insert(tx.conn()?, None, author, entry).await
}

/// Writes a line of an organization's log, about what the platform did to it.
pub async fn insert_platform_about(tx: &mut PlatformTx, org: OrgId, entry: Entry) -> Result<()> {
    let author = tx.author.clone();
    insert(tx.conn()?, Some(org), author, entry).await
}

/// Writes a line of the organization's log, and of the platform's where an operator acts in an organization of others.
pub async fn insert_org(tx: &mut OrgTx, entry: Entry) -> Result<()> {
    let (org, author) = (tx.org_id(), tx.author.clone());
    if !tx.entered {
        return insert(tx.conn()?, Some(org), author, entry).await;
    }
    // Inside of an organization nobody writes in another one's name, and the console has none there.
    let inside = author.actor != Actor::Console;
    insert_outside(tx.conn()?, (org, !inside), author.clone(), entry.clone()).await?;
    if inside { insert(tx.conn()?, Some(org), author, entry).await } else { Ok(()) }
}

/// The platform's own log is written by its role alone; the organization's, too, where `both` says so.
async fn insert_outside(
    conn: &mut AsyncPgConnection,
    (org, both): (OrgId, bool),
    author: Author,
    mut entry: Entry,
) -> Result<()> {
    conn.batch_execute("SET LOCAL ROLE tidegate_platform").await?;
    if both {
        insert(conn, Some(org), author.clone(), entry.clone()).await?;
    }
    if let Some(detail) = entry.detail.as_object_mut() {
        detail.insert("organizationId".to_owned(), Value::from(org.to_string()));
    }
    insert(conn, None, author, entry).await?;
    Ok(conn.batch_execute("SET LOCAL ROLE tidegate_org").await?)
}

/// Writes a line of what a user did by themselves, in the log of the organization it was about: one they are a member
/// of, or whose invite they answer.
pub async fn insert_user(tx: &mut UserTx, org: Option<OrgId>, entry: Entry) -> Result<()> {
    let author = tx.author.clone();
    insert(tx.conn()?, org, author, entry).await
}

async fn insert(
    conn: &mut AsyncPgConnection,
    org: Option<OrgId>,
    author: Author,
    entry: Entry,
) -> Result<()> {
    insert_statement(org, author, entry).execute(conn).await?;
    Ok(())
}

/// The statement that writes a line, for those who send it with others.
pub(crate) fn insert_statement(org: Option<OrgId>, author: Author, entry: Entry) -> Statement<()> {
    let mut detail = redacted(entry.detail);
    let mut part =
        |name: &str| detail.as_object_mut().and_then(|fields| fields.remove(name)).filter(|it| !it.is_null());
    let (before, after) = (part("before"), part("after"));
    let actor = author.actor.to_string();
    let key = author.name.as_ref().map_or_else(|| actor.clone(), |name| name.to_lowercase());
    let address = entry.address.or_else(|| author.origin.address().map(|address| address.to_string()));
    statement::<()>(
        "INSERT INTO audit_log (id, org_id, actor, actor_user_id, actor_name, actor_key, credential, action, resource, address, request_id,
                                before, after, detail, at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(AuditId::new())
    .bind::<Nullable<Uuid>, _>(org)
    .bind::<Text, _>(actor)
    .bind::<Nullable<Uuid>, _>(author.user_id())
    .bind::<Nullable<Text>, _>(author.name)
    .bind::<Text, _>(key)
    .bind::<Nullable<Text>, _>(author.credential)
    .bind::<Text, _>(entry.action)
    .bind::<Text, _>(entry.resource)
    .bind::<Nullable<Text>, _>(address)
    .bind::<Nullable<Text>, _>(author.origin.request_id().map(str::to_owned))
    .bind::<Nullable<Jsonb>, _>(before)
    .bind::<Nullable<Jsonb>, _>(after)
    .bind::<Jsonb, _>(detail)
    .bind::<Timestamptz, _>(entry.at)
}

type Columns = (
    Uuid,
    Timestamptz,
    Nullable<Uuid>,
    Text,
    Nullable<Uuid>,
    Nullable<Text>,
    Nullable<Text>,
    Text,
    Text,
    Nullable<Text>,
    Nullable<Text>,
    Nullable<Jsonb>,
    Nullable<Jsonb>,
    Jsonb,
);
type Row = (
    AuditId,
    DateTime<Utc>,
    Option<OrgId>,
    String,
    Option<UserId>,
    Option<String>,
    Option<String>,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<Value>,
    Option<Value>,
    Value,
);

fn line(row: Row) -> AuditEntry {
    let (
        id,
        at,
        org_id,
        actor,
        actor_user_id,
        actor_name,
        credential,
        action,
        resource,
        address,
        request_id,
        before,
        after,
        detail,
    ) = row;
    AuditEntry {
        id,
        at,
        org_id,
        actor,
        actor_user_id,
        actor_name,
        credential,
        action,
        resource,
        address,
        request_id,
        before,
        after,
        detail,
    }
}

/// A line's place in the order of the log.
pub type Place = (DateTime<Utc>, AuditId);

/// Lines of the organization's log that fit, the newest first, from the one before `before` on.
pub async fn list(
    tx: &mut OrgTx,
    filter: &AuditFilter,
    before: Option<Place>,
    limit: i64,
) -> Result<Vec<AuditEntry>> {
    let org = tx.org_id();
    select(tx.conn()?, Some(org), filter, before, limit).await
}

/// The same of the platform's log and every organization's, or one organization's alone.
pub async fn list_all(
    tx: &mut PlatformTx,
    org: Option<OrgId>,
    filter: &AuditFilter,
    before: Option<Place>,
    limit: i64,
) -> Result<Vec<AuditEntry>> {
    select(tx.conn()?, org, filter, before, limit).await
}

/// How many lines of the organization's log fit, counted up to 10 001.
pub async fn count(tx: &mut OrgTx, filter: &AuditFilter) -> Result<i64> {
    let org = tx.org_id();
    total(tx.conn()?, Some(org), filter).await
}

/// The same of the platform's log and every organization's.
pub async fn count_all(tx: &mut PlatformTx, org: Option<OrgId>, filter: &AuditFilter) -> Result<i64> {
    total(tx.conn()?, org, filter).await
}

/// A plan for what is asked this time: one that fits every filter would use the index of none.
async fn plan_anew(conn: &mut AsyncPgConnection) -> Result<()> {
    Ok(conn.batch_execute("SET LOCAL plan_cache_mode = force_custom_plan").await?)
}

macro_rules! fitting {
    ($select:literal, $end:literal) => {
        concat!(
            $select,
            " FROM audit_log WHERE (?::uuid IS NULL OR org_id = ?) AND (?::text IS NULL OR actor_key = ?)
              AND (?::text IS NULL OR action = ?) AND (?::text IS NULL OR resource = ?)
              AND (?::timestamptz IS NULL OR at >= ?) AND (?::timestamptz IS NULL OR at < ?)",
            $end
        )
    };
}

fn filtered<St>(sql: &'static str, org: Option<OrgId>, filter: &AuditFilter) -> Statement<St> {
    let AuditFilter { actor, action, resource, since, until } = filter.clone();
    let mut bound = statement::<St>(sql).bind::<Nullable<Uuid>, _>(org).bind::<Nullable<Uuid>, _>(org);
    for text in [actor, action, resource] {
        bound = bound.bind::<Nullable<Text>, _>(text.clone()).bind::<Nullable<Text>, _>(text);
    }
    for moment in [since, until] {
        bound = bound.bind::<Nullable<Timestamptz>, _>(moment).bind::<Nullable<Timestamptz>, _>(moment);
    }
    bound
}

async fn select(
    conn: &mut AsyncPgConnection,
    org: Option<OrgId>,
    filter: &AuditFilter,
    before: Option<Place>,
    limit: i64,
) -> Result<Vec<AuditEntry>> {
    plan_anew(conn).await?;
    let (at, id) = before.unzip();
    let sql = fitting!(
        "SELECT id, at, org_id, actor, actor_user_id, actor_name, credential, action, resource, address, request_id,
                COALESCE(before, detail -> 'before'), COALESCE(after, detail -> 'after'), detail - 'before' - 'after'",
        " AND (at, id) < (COALESCE(?, 'infinity'), COALESCE(?, 'ffffffff-ffff-ffff-ffff-ffffffffffff')) ORDER BY at DESC, id DESC LIMIT ?"
    );
    let rows: Vec<Row> = filtered::<Columns>(sql, org, filter)
        .bind::<Nullable<Timestamptz>, _>(at)
        .bind::<Nullable<Uuid>, _>(id)
        .bind::<BigInt, _>(limit)
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(line).collect())
}

async fn total(conn: &mut AsyncPgConnection, org: Option<OrgId>, filter: &AuditFilter) -> Result<i64> {
    plan_anew(conn).await?;
    let sql = fitting!("SELECT count(*) FROM (SELECT 1", " LIMIT 10001) fitting");
    let rows: Vec<i64> = filtered::<BigInt>(sql, org, filter).load(conn).await?;
    Ok(rows.into_iter().next().unwrap_or(0))
}
