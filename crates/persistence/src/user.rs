//! Users: made, found and listed, each as far as the transaction sees. What ends them stands in `user_change`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tidegate_model::{OrgId, OrgRole, PlatformUser, Provider, SystemRole, User, UserId, UserMode};

use crate::{
    Error, OrgTx, PlatformTx, Result, UserTx,
    statement::{Statement, statement},
};

/// A user to insert.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The id.
    pub id: UserId,
    /// Unique without regard to case.
    pub username: String,
    /// Unique without regard to case.
    pub email: Option<String>,
    /// Display name.
    pub full_name: String,
    /// System-wide role.
    pub role: SystemRole,
    /// How the user logs in; the mode follows from it.
    pub provider: Provider,
    /// Whether the user may log in.
    pub active: bool,
    /// PHC string, or what another system kept.
    pub password_hash: Option<String>,
    /// The organization whose account it is.
    pub home_org_id: Option<OrgId>,
    /// The present.
    pub now: DateTime<Utc>,
}

impl NewUser {
    fn statement(self) -> Statement<()> {
        statement::<()>(
            "INSERT INTO users (id, username, email, full_name, role, provider, active, password_hash, home_org_id, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind::<Uuid, _>(self.id)
        .bind::<Text, _>(self.username)
        .bind::<Nullable<Text>, _>(self.email)
        .bind::<Text, _>(self.full_name)
        .bind::<Text, _>(self.role)
        .bind::<Text, _>(self.provider)
        .bind::<Bool, _>(self.active)
        .bind::<Nullable<Text>, _>(self.password_hash)
        .bind::<Nullable<Uuid>, _>(self.home_org_id)
        .bind::<Timestamptz, _>(self.now)
        .bind::<Timestamptz, _>(self.now)
    }
}

/// Inserts a user (seed B, `InsertUser`): one of two of a name, in whatever case it is written, is a violation.
pub async fn insert(tx: &mut PlatformTx, new: NewUser) -> Result<()> {
    new.statement().execute(tx.conn()?).await?;
    Ok(())
}

/// Inserts a user whose home is the transaction's organization, with no role on the platform.
pub async fn insert_at_home(tx: &mut OrgTx, mut new: NewUser) -> Result<()> {
    (new.home_org_id, new.role, new.active) = (Some(tx.org_id()), SystemRole::User, true);
    new.statement().execute(tx.conn()?).await?;
    Ok(())
}

/// Takes the right to set the platform up; false when there is an admin. Racers take turns under an advisory lock that
/// ends with the transaction.
pub async fn claim_setup(tx: &mut PlatformTx) -> Result<bool> {
    let conn = tx.conn()?;
    conn.batch_execute("SELECT pg_advisory_xact_lock(7526411283028599909)").await?;
    let admins: Vec<(bool,)> =
        statement::<(Bool,)>("SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin')").load(conn).await?;
    Ok(!admins.into_iter().next().is_some_and(|row| row.0))
}

/// The id of the user of this name, in any case.
pub async fn find_id(tx: &mut PlatformTx, username: &str) -> Result<UserId> {
    let find =
        statement::<Uuid>("SELECT id FROM users WHERE lower(username) = lower(?) AND deleted_at IS NULL");
    let rows: Vec<UserId> = find.bind::<Text, _>(username.to_owned()).load(tx.conn()?).await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Sets a user's password.
pub async fn set_password(tx: &mut PlatformTx, id: UserId, hash: String, now: DateTime<Utc>) -> Result<()> {
    let changed = statement::<()>(
        "UPDATE users SET password_hash = ?, updated_at = ? WHERE id = ? AND provider = 'local' AND deleted_at IS NULL",
    )
    .bind::<Text, _>(hash)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Puts a hash in the place of the user's own, if that is still `old`: one that was verified a moment ago may not be.
pub async fn replace_password(tx: &mut UserTx, old: String, new: String, now: DateTime<Utc>) -> Result<bool> {
    let changed = statement::<()>(
        "UPDATE users SET password_hash = ?, updated_at = ? WHERE id = ? AND password_hash = ? AND active",
    )
    .bind::<Text, _>(new)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(tx.user_id)
    .bind::<Text, _>(old)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Stamps a login by the password with this hash, and puts a better hash in its place; false where the user was
/// deactivated or has another password meanwhile. `updated_at` stays, as seed A wants it.
pub async fn touch_login(
    tx: &mut UserTx,
    hash: String,
    better: Option<String>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let touched = statement::<()>(
        "UPDATE users SET last_login = ?, password_hash = COALESCE(?, password_hash)
         WHERE id = ? AND active AND password_hash = ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Nullable<Text>, _>(better)
    .bind::<Uuid, _>(tx.user_id)
    .bind::<Text, _>(hash)
    .execute(tx.conn()?)
    .await?;
    Ok(touched == 1)
}

/// What users change of themselves, e-mail address and display name, as it stands until the transaction changes it.
pub async fn lock_own(tx: &mut UserTx) -> Result<(Option<String>, String)> {
    let own = statement::<(Nullable<Text>, Text)>(
        "SELECT email, full_name FROM users WHERE id = ? AND active FOR NO KEY UPDATE",
    );
    let rows: Vec<(Option<String>, String)> = own.bind::<Uuid, _>(tx.user_id).load(tx.conn()?).await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Whether the transaction's user still has the password of this hash, under the lock of [`lock_own`].
pub async fn has_password(tx: &mut UserTx, hash: String) -> Result<bool> {
    let own = statement::<()>("SELECT 1 FROM users WHERE id = ? AND password_hash = ?");
    let own = own.bind::<Uuid, _>(tx.user_id).bind::<Text, _>(hash);
    Ok(own.execute(tx.conn()?).await? == 1)
}

/// Changes what users change of themselves.
pub async fn update_own(
    tx: &mut UserTx,
    email: Option<String>,
    full_name: Option<String>,
    now: DateTime<Utc>,
) -> Result<()> {
    let changed = statement::<()>(
        "UPDATE users SET email = COALESCE(?, email), full_name = COALESCE(?, full_name), updated_at = ?
         WHERE id = ? AND active",
    )
    .bind::<Nullable<Text>, _>(email)
    .bind::<Nullable<Text>, _>(full_name)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(tx.user_id)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

type Columns = (
    (Uuid, Text, Nullable<Text>, Text, Text, Text, Bool),
    (Nullable<BigInt>, Nullable<Text>, Nullable<Uuid>),
    (Timestamptz, Timestamptz, Nullable<Timestamptz>),
    (Uuid, Text),
);
type Core = (UserId, String, Option<String>, String, SystemRole, Provider, bool);
type Origin = (Option<i64>, Option<String>, Option<OrgId>);
type Times = (DateTime<Utc>, DateTime<Utc>, Option<DateTime<Utc>>);
type Row = (Core, Origin, Times, (OrgId, OrgRole));

fn member((core, origin, times, (org_id, org_role)): Row) -> User {
    let (id, username, email, full_name, role, provider, active) = core;
    let (github_id, avatar_url, home_org_id) = origin;
    let (created_at, updated_at, last_login) = times;
    let mode = UserMode::of(provider);
    User {
        id,
        org_id,
        username,
        email,
        full_name,
        role,
        org_role,
        provider,
        mode,
        github_id,
        avatar_url,
        active,
        home_org_id,
        created_at,
        updated_at,
        last_login,
        quota: None,
        groups: None,
    }
}

/// A user with a membership, `m`, and its organization, `o`.
macro_rules! select_member {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.username, u.email, u.full_name, u.role, u.provider, u.active, u.github_id, u.avatar_url,
                    u.home_org_id, u.created_at, u.updated_at, u.last_login, m.org_id, m.role
             FROM memberships m JOIN users u ON u.id = m.user_id JOIN organizations o ON o.id = m.org_id ",
            $rest
        )
    };
}

/// A member of the transaction's organization (seed B, `GetUser`).
pub async fn find_member(tx: &mut OrgTx, id: UserId) -> Result<User> {
    let org = tx.org_id();
    let find = statement::<Columns>(select_member!("WHERE m.org_id = ? AND m.user_id = ?"));
    let rows: Vec<Row> = find.bind::<Uuid, _>(org).bind::<Uuid, _>(id).load(tx.conn()?).await?;
    rows.into_iter().next().map(member).ok_or(Error::NotFound)
}

/// A member by name, in any case (seed B, `GetUserByUsername`).
pub async fn find_member_by_name(tx: &mut OrgTx, name: &str) -> Result<User> {
    let org = tx.org_id();
    let find = statement::<Columns>(select_member!("WHERE m.org_id = ? AND lower(u.username) = lower(?)"));
    let find = find.bind::<Uuid, _>(org).bind::<Text, _>(name.to_owned());
    let rows: Vec<Row> = find.load(tx.conn()?).await?;
    rows.into_iter().next().map(member).ok_or(Error::NotFound)
}

/// The members of an organization but its owner, in joining order (seed B, `ListMembers`), from the one after `after`
/// on.
pub async fn list_non_owners(
    tx: &mut OrgTx,
    after: Option<(DateTime<Utc>, UserId)>,
    limit: i64,
) -> Result<Vec<User>> {
    let org = tx.org_id();
    let (at, user) = after.unzip();
    let list = statement::<Columns>(select_member!(
        "WHERE m.org_id = ? AND o.owner_user_id IS DISTINCT FROM m.user_id
           AND (m.created_at, m.user_id) > (COALESCE(?, '-infinity'), COALESCE(?, '00000000-0000-0000-0000-000000000000'))
         ORDER BY m.created_at, m.user_id LIMIT ?"
    ));
    let rows: Vec<Row> = list
        .bind::<Uuid, _>(org)
        .bind::<Nullable<Timestamptz>, _>(at)
        .bind::<Nullable<Uuid>, _>(user)
        .bind::<BigInt, _>(limit)
        .load(tx.conn()?)
        .await?;
    Ok(rows.into_iter().map(member).collect())
}

/// Which users a list shows, and from where.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Part of username, e-mail address or display name, in any case.
    pub search: Option<String>,
    /// Only users after this name, in lower case.
    pub after: String,
    /// Rows at most.
    pub limit: i64,
}

/// Members by name, with how many there are on all pages, counted up to 10 001.
pub async fn list_members(tx: &mut OrgTx, page: Page) -> Result<(Vec<User>, i64)> {
    let org = tx.org_id();
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<Columns>(select_member!(
        "WHERE m.org_id = ? AND position(lower(COALESCE(?, '')) IN lower(concat_ws(' ', u.username, u.email, u.full_name))) > 0
           AND lower(u.username) COLLATE \"C\" > ? ORDER BY lower(u.username) COLLATE \"C\" LIMIT ?"
    ))
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Text>, _>(page.search.clone())
    .bind::<Text, _>(page.after)
    .bind::<BigInt, _>(page.limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.org_id = ?
            AND position(lower(COALESCE(?, '')) IN lower(concat_ws(' ', u.username, u.email, u.full_name))) > 0 LIMIT 10001) m",
    )
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Text>, _>(page.search)
    .load(conn)
    .await?;
    Ok((rows.into_iter().map(member).collect(), total.into_iter().next().unwrap_or(0)))
}

/// Any user as one of their active organizations shows them: that which is home, else the one owned or joined first.
pub async fn find_somewhere(tx: &mut PlatformTx, id: UserId) -> Result<User> {
    let find = statement::<Columns>(select_member!(
        "WHERE m.user_id = ? AND o.status = 'active' AND u.deleted_at IS NULL
         ORDER BY (o.id = u.home_org_id) DESC NULLS LAST, (o.owner_user_id = u.id) DESC NULLS LAST, m.created_at, o.id LIMIT 1"
    ));
    let rows: Vec<Row> = find.bind::<Uuid, _>(id).load(tx.conn()?).await?;
    rows.into_iter().next().map(member).ok_or(Error::NotFound)
}

/// The names of those of these users that the transaction's organization knows, in one round trip (seed B,
/// `UsernamesByIDs`): an id of nobody is absent.
pub async fn usernames_by_ids(tx: &mut OrgTx, ids: Vec<UserId>) -> Result<HashMap<UserId, String>> {
    let org = tx.org_id();
    let rows: Vec<(UserId, String)> = statement::<(Uuid, Text)>(
        "SELECT u.id, u.username FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.org_id = ? AND m.user_id = ANY(?)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Array<Uuid>, _>(ids)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().collect())
}

type PlatformColumns = (
    (Uuid, Text, Nullable<Text>, Text, Text, Text, Bool),
    (Nullable<BigInt>, Nullable<Text>, Nullable<Uuid>),
    (Timestamptz, Timestamptz, Nullable<Timestamptz>),
    Array<Text>,
);
type PlatformRow = (Core, Origin, Times, Vec<String>);

fn user((core, origin, times, organizations): PlatformRow) -> PlatformUser {
    let (id, username, email, full_name, role, provider, active) = core;
    let (github_id, avatar_url, home_org_id) = origin;
    let (created_at, updated_at, last_login) = times;
    let mode = UserMode::of(provider);
    PlatformUser {
        id,
        username,
        email,
        full_name,
        role,
        provider,
        mode,
        github_id,
        avatar_url,
        active,
        home_org_id,
        organizations,
        created_at,
        updated_at,
        last_login,
    }
}

/// A user with the names of their organizations.
macro_rules! select_user {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.username, u.email, u.full_name, u.role, u.provider, u.active, u.github_id, u.avatar_url,
                    u.home_org_id, u.created_at, u.updated_at, u.last_login,
                    ARRAY(SELECT o.name FROM memberships m JOIN organizations o ON o.id = m.org_id
                          WHERE m.user_id = u.id AND o.status <> 'deleted' ORDER BY o.name LIMIT 100)
             FROM users u WHERE u.deleted_at IS NULL AND ",
            $rest
        )
    };
}

/// Any user.
pub async fn find(tx: &mut PlatformTx, id: UserId) -> Result<PlatformUser> {
    let rows: Vec<PlatformRow> =
        statement::<PlatformColumns>(select_user!("u.id = ?")).bind::<Uuid, _>(id).load(tx.conn()?).await?;
    rows.into_iter().next().map(user).ok_or(Error::NotFound)
}

/// Users by name, with how many there are on all pages, counted up to 10 001.
pub async fn list(tx: &mut PlatformTx, page: Page) -> Result<(Vec<PlatformUser>, i64)> {
    let conn = tx.conn()?;
    let rows = match &page.search {
        None => {
            let list = statement::<PlatformColumns>(select_user!(
                "lower(u.username) COLLATE \"C\" > ? ORDER BY lower(u.username) COLLATE \"C\" LIMIT ?"
            ));
            list.bind::<Text, _>(page.after).bind::<BigInt, _>(page.limit).load(conn).await?
        }
        Some(search) => {
            let list = statement::<PlatformColumns>(select_user!(
                "position(lower(?) IN lower(concat_ws(' ', u.username, u.email, u.full_name))) > 0
                 AND lower(u.username) COLLATE \"C\" > ? ORDER BY lower(u.username) COLLATE \"C\" LIMIT ?"
            ));
            let list = list.bind::<Text, _>(search.clone()).bind::<Text, _>(page.after);
            list.bind::<BigInt, _>(page.limit).load(conn).await?
        }
    };
    let total = count(conn, page.search).await?;
    Ok((rows.into_iter().map(user).collect(), total))
}

async fn count(conn: &mut AsyncPgConnection, search: Option<String>) -> Result<i64> {
    let count = match search {
        None => statement::<BigInt>(
            "SELECT count(*) FROM (SELECT 1 FROM users WHERE deleted_at IS NULL LIMIT 10001) u",
        ),
        Some(search) => statement::<BigInt>(
            "SELECT count(*) FROM (SELECT 1 FROM users u WHERE deleted_at IS NULL
               AND position(lower(?) IN lower(concat_ws(' ', u.username, u.email, u.full_name))) > 0 LIMIT 10001) u",
        )
        .bind::<Text, _>(search),
    };
    let total: Vec<i64> = count.load(conn).await?;
    Ok(total.into_iter().next().unwrap_or(0))
}
