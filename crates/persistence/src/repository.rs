//! Repositories: what operators keep of them, and whose turn it is to sync one. A sync holds a lease that ends by itself;
//! whatever it writes asks first whether the lease is still its own.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Bytea, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use tidegate_model::{
    CatalogRepository, Repository, RepositoryAuth, RepositoryId, RepositoryProblem, RepositorySyncStatus,
    RepositoryType,
};

use crate::{Error, PlatformTx, Result, statement::statement};

type Columns = (
    (BigInt, Text, Text, Text, Text, Bool, Timestamptz, Timestamptz),
    (Nullable<Text>, Text, Bool, Text, Nullable<Text>),
    (Nullable<Timestamptz>, Nullable<Timestamptz>, Nullable<Timestamptz>, Nullable<Text>),
    (Integer, Integer, Integer),
);
type Moment = Option<DateTime<Utc>>;
type Row = (
    (RepositoryId, String, String, RepositoryType, String, bool, DateTime<Utc>, DateTime<Utc>),
    (Option<String>, RepositoryAuth, bool, RepositorySyncStatus, Option<String>),
    (Moment, Moment, Moment, Option<String>),
    (i32, i32, i32),
);

fn entity(row: Row) -> Repository {
    let (public, asked, synced, (templates, plugins, problems)) = row;
    let (id, name, url, kind, description, enabled, created_at, updated_at) = public;
    let (branch, auth_type, has_webhook_secret, sync_status, sync_error) = asked;
    let (sync_started_at, synced_at, next_sync_at, revision) = synced;
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    Repository {
        public: CatalogRepository { id, name, url, kind, description, enabled, created_at, updated_at },
        branch,
        auth_type,
        has_webhook_secret,
        sync_status,
        sync_error,
        sync_started_at,
        synced_at,
        next_sync_at,
        revision,
        templates: count(templates),
        plugins: count(plugins),
        problems: count(problems),
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, url, type, description, enabled, created_at, updated_at, branch, auth_type,
               webhook_secret IS NOT NULL, sync_status, sync_error, sync_started_at, synced_at, next_sync_at, revision,
               templates, plugins, problems FROM repositories WHERE removed_at IS NULL ",
            $rest
        )
    };
}

/// What is written of a repository. Secrets are written by [`seal`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Unique among those that are not removed.
    pub name: String,
    /// Where it is fetched from.
    pub url: String,
    /// Its branch.
    pub branch: Option<String>,
    /// Git or archive.
    pub kind: RepositoryType,
    /// What it wants to see.
    pub auth_type: RepositoryAuth,
    /// What it holds.
    pub description: String,
    /// Whether it is synced and shown.
    pub enabled: bool,
}

/// Adds a repository, whose first sync is due at once.
pub async fn insert(tx: &mut PlatformTx, new: Written, now: DateTime<Utc>) -> Result<RepositoryId> {
    let ids: Vec<RepositoryId> = statement::<BigInt>(
        "INSERT INTO repositories (name, url, branch, type, auth_type, description, enabled, next_sync_at, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind::<Text, _>(new.name)
    .bind::<Text, _>(new.url)
    .bind::<Nullable<Text>, _>(new.branch)
    .bind::<Text, _>(new.kind)
    .bind::<Text, _>(new.auth_type)
    .bind::<Text, _>(new.description)
    .bind::<Bool, _>(new.enabled)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    ids.into_iter().next().ok_or(Error::NotFound)
}

/// Changes a repository. A sync of what it was is not this one's: it loses its lease, and another is due.
pub async fn update(
    tx: &mut PlatformTx,
    id: RepositoryId,
    to: Written,
    other_content: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    let written = statement::<()>(
        "UPDATE repositories SET name = ?, url = ?, branch = ?, type = ?, auth_type = ?, description = ?, enabled = ?, updated_at = ?,
           lease_holder = CASE WHEN ? THEN NULL ELSE lease_holder END, lease_until = CASE WHEN ? THEN NULL ELSE lease_until END,
           next_sync_at = CASE WHEN ? THEN ? ELSE next_sync_at END
         WHERE id = ? AND removed_at IS NULL",
    )
    .bind::<Text, _>(to.name)
    .bind::<Text, _>(to.url)
    .bind::<Nullable<Text>, _>(to.branch)
    .bind::<Text, _>(to.kind)
    .bind::<Text, _>(to.auth_type)
    .bind::<Text, _>(to.description)
    .bind::<Bool, _>(to.enabled)
    .bind::<Timestamptz, _>(now)
    .bind::<Bool, _>(other_content)
    .bind::<Bool, _>(other_content)
    .bind::<Bool, _>(other_content)
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(id)
    .execute(tx.conn()?)
    .await?;
    if written == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// What of a repository's secrets is written; without a value it stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Sealed {
    /// What the remote wants to see; `Some(None)` for nothing.
    pub secret: Option<Option<Vec<u8>>>,
    /// What webhooks are signed with.
    pub webhook_secret: Option<Option<Vec<u8>>>,
}

/// Writes secrets, sealed.
pub async fn seal(tx: &mut PlatformTx, id: RepositoryId, sealed: Sealed) -> Result<()> {
    statement::<()>(
        "UPDATE repositories SET secret = CASE WHEN ? THEN ? ELSE secret END,
           webhook_secret = CASE WHEN ? THEN ? ELSE webhook_secret END WHERE id = ?",
    )
    .bind::<Bool, _>(sealed.secret.is_some())
    .bind::<Nullable<Bytea>, _>(sealed.secret.flatten())
    .bind::<Bool, _>(sealed.webhook_secret.is_some())
    .bind::<Nullable<Bytea>, _>(sealed.webhook_secret.flatten())
    .bind::<BigInt, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Repositories in the order they were added, after one, and how many there are.
pub async fn list(
    tx: &mut PlatformTx,
    after: Option<RepositoryId>,
    rows: i64,
) -> Result<(Vec<Repository>, i64)> {
    let after = after.map_or(0, RepositoryId::as_number);
    let listed: Vec<Row> = statement::<Columns>(select!("AND id > ? ORDER BY id LIMIT ?"))
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(rows)
        .load(tx.conn()?)
        .await?;
    let totals: Vec<i64> = statement::<BigInt>("SELECT count(*) FROM repositories WHERE removed_at IS NULL")
        .load(tx.conn()?)
        .await?;
    Ok((listed.into_iter().map(entity).collect(), totals.into_iter().next().unwrap_or(0)))
}

/// One repository.
pub async fn find(tx: &mut PlatformTx, id: RepositoryId) -> Result<Repository> {
    let rows: Vec<Row> =
        statement::<Columns>(select!("AND id = ?")).bind::<BigInt, _>(id).load(tx.conn()?).await?;
    rows.into_iter().next().map(entity).ok_or(Error::NotFound)
}

/// One repository, held until the end of the transaction.
pub async fn lock(tx: &mut PlatformTx, id: RepositoryId) -> Result<Repository> {
    let rows: Vec<Row> = statement::<Columns>(select!("AND id = ? FOR NO KEY UPDATE"))
        .bind::<BigInt, _>(id)
        .load(tx.conn()?)
        .await?;
    rows.into_iter().next().map(entity).ok_or(Error::NotFound)
}

/// The repository of this name.
pub async fn find_by_name(tx: &mut PlatformTx, name: &str) -> Result<Repository> {
    let rows: Vec<Row> = statement::<Columns>(select!("AND lower(name) = lower(?)"))
        .bind::<Text, _>(name.to_owned())
        .load(tx.conn()?)
        .await?;
    rows.into_iter().next().map(entity).ok_or(Error::NotFound)
}

/// What a repository's webhooks are signed with, sealed; none where there is no such repository or it has none.
pub async fn webhook_secret(tx: &mut PlatformTx, id: RepositoryId) -> Result<Option<Vec<u8>>> {
    let rows: Vec<Option<Vec<u8>>> = statement::<Nullable<Bytea>>(
        "SELECT webhook_secret FROM repositories WHERE id = ? AND removed_at IS NULL AND enabled",
    )
    .bind::<BigInt, _>(id)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().flatten())
}

/// What was wrong with files of the last sync.
pub async fn problems(tx: &mut PlatformTx, id: RepositoryId) -> Result<Vec<RepositoryProblem>> {
    let rows: Vec<(String, Option<i32>, String)> = statement::<(Text, Nullable<Integer>, Text)>(
        "SELECT path, line, reason FROM repository_problems WHERE repository_id = ? ORDER BY seq",
    )
    .bind::<BigInt, _>(id)
    .load(tx.conn()?)
    .await?;
    let problem = |(path, line, reason): (String, Option<i32>, String)| RepositoryProblem {
        path,
        line: line.and_then(|line| u32::try_from(line).ok()),
        reason,
    };
    Ok(rows.into_iter().map(problem).collect())
}

/// Removes a repository: its name is free again, and a sync of it writes nothing any more. What came from it is withdrawn.
pub async fn remove(tx: &mut PlatformTx, id: RepositoryId, now: DateTime<Utc>) -> Result<()> {
    let removed = statement::<()>(
        "WITH gone AS (UPDATE repositories SET removed_at = ?, updated_at = ?, enabled = false, secret = NULL, webhook_secret = NULL,
             lease_holder = NULL, lease_until = NULL WHERE id = ? AND removed_at IS NULL RETURNING id),
           t AS (UPDATE catalog_templates e SET withdrawn_at = ? FROM gone WHERE e.repository_id = gone.id AND e.withdrawn_at IS NULL),
           p AS (UPDATE catalog_plugins e SET withdrawn_at = ? FROM gone WHERE e.repository_id = gone.id AND e.withdrawn_at IS NULL)
         DELETE FROM repository_problems USING gone WHERE repository_id = gone.id",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(id)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await;
    removed.map(drop).map_err(Error::from)
}

/// Asks for a sync as soon as somebody can do one. Asking again before it began changes nothing.
pub async fn request_sync(tx: &mut PlatformTx, id: RepositoryId, now: DateTime<Utc>) -> Result<bool> {
    let asked = statement::<()>(
        "UPDATE repositories SET sync_requested_at = ? WHERE id = ? AND removed_at IS NULL AND enabled AND sync_requested_at IS NULL",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(asked == 1)
}

/// A repository whose sync is this one's to do.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The repository.
    pub id: RepositoryId,
    /// Its name.
    pub name: String,
    /// Where it is fetched from.
    pub url: String,
    /// Its branch.
    pub branch: Option<String>,
    /// Git or archive.
    pub kind: RepositoryType,
    /// What it wants to see.
    pub auth_type: RepositoryAuth,
    /// That, sealed.
    pub secret: Option<Vec<u8>>,
    /// Files that its last sync complained about.
    pub problems: i32,
}

/// Who syncs, and until when nobody else does.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// A number of this one sync.
    pub holder: uuid::Uuid,
    /// When it ends by itself.
    pub until: DateTime<Utc>,
}

type ClaimColumns = (BigInt, Text, Text, Nullable<Text>, Text, Text, Nullable<Bytea>, Integer);
type ClaimRow =
    (RepositoryId, String, String, Option<String>, RepositoryType, RepositoryAuth, Option<Vec<u8>>, i32);

fn claimed(rows: Vec<ClaimRow>) -> Option<Claimed> {
    let (id, name, url, branch, kind, auth_type, secret, problems) = rows.into_iter().next()?;
    Some(Claimed { id, name, url, branch, kind, auth_type, secret, problems })
}

/// Claims the repository whose sync is due for longest: asked for, its time has come, or a sync of it was never ended. What
/// was asked for until now it answers, whatever clock those who asked go by.
pub async fn claim_due(tx: &mut PlatformTx, lease: Lease, now: DateTime<Utc>) -> Result<Option<Claimed>> {
    let rows: Vec<ClaimRow> = statement::<ClaimColumns>(
        "UPDATE repositories SET lease_holder = ?, lease_until = ?, sync_status = 'syncing', sync_started_at = ?, sync_requested_at = NULL
         WHERE id = (SELECT id FROM repositories WHERE removed_at IS NULL AND enabled AND (lease_until IS NULL OR lease_until < ?)
             AND (sync_requested_at IS NOT NULL OR next_sync_at <= ? OR next_sync_at IS NULL
                  OR sync_status = 'syncing')
             ORDER BY sync_requested_at IS NOT NULL DESC, next_sync_at NULLS FIRST, id
             LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
         RETURNING id, name, url, branch, type, auth_type, secret, problems",
    )
    .bind::<Uuid, _>(lease.holder)
    .bind::<Timestamptz, _>(lease.until)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    Ok(claimed(rows))
}

/// Claims one repository, due or not; none while somebody else syncs it.
pub async fn claim(
    tx: &mut PlatformTx,
    id: RepositoryId,
    lease: Lease,
    now: DateTime<Utc>,
) -> Result<Option<Claimed>> {
    let rows: Vec<ClaimRow> = statement::<ClaimColumns>(
        "UPDATE repositories SET lease_holder = ?, lease_until = ?, sync_status = 'syncing', sync_started_at = ?, sync_requested_at = NULL
         WHERE id = ? AND removed_at IS NULL AND (lease_until IS NULL OR lease_until < ?)
         RETURNING id, name, url, branch, type, auth_type, secret, problems",
    )
    .bind::<Uuid, _>(lease.holder)
    .bind::<Timestamptz, _>(lease.until)
    .bind::<Timestamptz, _>(now)
    .bind::<BigInt, _>(id)
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    Ok(claimed(rows))
}

/// Holds a lease for longer; false where it is somebody else's, or nobody's, by now.
pub async fn renew(tx: &mut PlatformTx, id: RepositoryId, lease: Lease, now: DateTime<Utc>) -> Result<bool> {
    let renewed = statement::<()>(
        "UPDATE repositories SET lease_until = ? WHERE id = ? AND lease_holder = ? AND lease_until >= ? AND removed_at IS NULL",
    )
    .bind::<Timestamptz, _>(lease.until)
    .bind::<BigInt, _>(id)
    .bind::<Uuid, _>(lease.holder)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(renewed == 1)
}

/// Gives a lease back with nothing done: the sync is still due.
pub async fn release(tx: &mut PlatformTx, id: RepositoryId, holder: uuid::Uuid) -> Result<()> {
    statement::<()>(
        "UPDATE repositories SET lease_holder = NULL, lease_until = NULL WHERE id = ? AND lease_holder = ?",
    )
    .bind::<BigInt, _>(id)
    .bind::<Uuid, _>(holder)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// How a sync ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What the catalog shows from now on, or why it stays as it is.
    pub outcome: Result<Synced, String>,
    /// When the next one is due.
    pub next: DateTime<Utc>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What a sync found.
#[derive(Debug, Clone)]
pub struct Synced {
    /// The repository's state.
    pub revision: String,
    /// Templates in it.
    pub templates: i32,
    /// Plugins in it.
    pub plugins: i32,
    /// Files that are in neither.
    pub problems: i32,
}

/// Ends a sync, before anything else of it is written in the same transaction; false where its lease is over, and then
/// nothing of it may be written.
pub async fn finish(tx: &mut PlatformTx, id: RepositoryId, holder: uuid::Uuid, ended: Ended) -> Result<bool> {
    let Ended { outcome, next, now } = ended;
    let (status, error, synced) = match outcome {
        Ok(synced) => (RepositorySyncStatus::Synced, None, Some(synced)),
        Err(error) => (RepositorySyncStatus::Failed, Some(error), None),
    };
    let went_well = synced.is_some();
    let count = |number: fn(&Synced) -> i32| synced.as_ref().map(number);
    let written = statement::<()>(
        "UPDATE repositories SET lease_holder = NULL, lease_until = NULL, sync_status = ?, sync_error = ?, next_sync_at = ?,
           synced_at = CASE WHEN ? THEN ? ELSE synced_at END, revision = COALESCE(?, revision),
           templates = COALESCE(?, templates), plugins = COALESCE(?, plugins), problems = COALESCE(?, problems)
         WHERE id = ? AND lease_holder = ? AND lease_until >= ? AND removed_at IS NULL",
    )
    .bind::<Text, _>(status)
    .bind::<Nullable<Text>, _>(error)
    .bind::<Timestamptz, _>(next)
    .bind::<Bool, _>(went_well)
    .bind::<Timestamptz, _>(now)
    .bind::<Nullable<Text>, _>(synced.as_ref().map(|it| it.revision.clone()))
    .bind::<Nullable<Integer>, _>(count(|it| it.templates))
    .bind::<Nullable<Integer>, _>(count(|it| it.plugins))
    .bind::<Nullable<Integer>, _>(count(|it| it.problems))
    .bind::<BigInt, _>(id)
    .bind::<Uuid, _>(holder)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(written == 1)
}

/// Writes what is wrong with files, in place of what was.
pub async fn put_problems(
    tx: &mut PlatformTx,
    id: RepositoryId,
    problems: &[RepositoryProblem],
) -> Result<()> {
    let line = |problem: &RepositoryProblem| problem.line.and_then(|line| i32::try_from(line).ok());
    statement::<()>(
        "WITH given AS (SELECT row_number() OVER () AS seq, path, line, reason FROM unnest(?, ?, ?) AS n (path, line, reason)),
           fewer AS (DELETE FROM repository_problems WHERE repository_id = ? AND seq > (SELECT count(*) FROM given))
         INSERT INTO repository_problems (repository_id, seq, path, line, reason) SELECT ?, seq, path, line, reason FROM given
         ON CONFLICT (repository_id, seq) DO UPDATE SET path = excluded.path, line = excluded.line, reason = excluded.reason",
    )
    .bind::<Array<Text>, _>(problems.iter().map(|it| it.path.clone()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Integer>>, _>(problems.iter().map(line).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(problems.iter().map(|it| it.reason.clone()).collect::<Vec<_>>())
    .bind::<BigInt, _>(id)
    .bind::<BigInt, _>(id)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}
