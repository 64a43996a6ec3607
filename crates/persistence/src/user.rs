//! Users, and their memberships.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use tidegate_model::{OrgRole, Provider, SystemRole, User, UserId};

use crate::{Error, OrgTx, PlatformTx, Result, UserTx, statement::statement};

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
    /// PHC string.
    pub password_hash: Option<String>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Inserts a local user.
pub async fn insert(tx: &mut PlatformTx, new: NewUser) -> Result<()> {
    statement::<()>(
        "INSERT INTO users (id, username, email, full_name, role, provider, active, password_hash, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, 'local', true, ?, ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Text, _>(new.username)
    .bind::<Nullable<Text>, _>(new.email)
    .bind::<Text, _>(new.full_name)
    .bind::<Text, _>(new.role)
    .bind::<Nullable<Text>, _>(new.password_hash)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Timestamptz, _>(new.now)
    .execute(tx.conn()?)
    .await?;
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
    let rows: Vec<(UserId,)> = statement::<(Uuid,)>("SELECT id FROM users WHERE lower(username) = lower(?)")
        .bind::<Text, _>(username.to_owned())
        .load(tx.conn()?)
        .await?;
    rows.into_iter().next().map(|row| row.0).ok_or(Error::NotFound)
}

/// Sets a user's password and ends all their logins and tokens.
pub async fn set_password(tx: &mut PlatformTx, id: UserId, hash: String, now: DateTime<Utc>) -> Result<()> {
    let changed = statement::<()>("UPDATE users SET password_hash = ?, updated_at = ? WHERE id = ?")
        .bind::<Text, _>(hash)
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    if changed == 0 {
        return Err(Error::NotFound);
    }
    statement::<()>("UPDATE login_sessions SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL")
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .execute(tx.conn()?)
        .await?;
    crate::bearer_token::end_all_of_user(tx, id, now).await?;
    Ok(())
}

/// Stamps a successful login; `updated_at` stays, as seed A wants it.
pub async fn touch_login(tx: &mut UserTx, now: DateTime<Utc>) -> Result<()> {
    statement::<()>("UPDATE users SET last_login = ? WHERE id = ?")
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(tx.user_id)
        .execute(tx.conn()?)
        .await?;
    Ok(())
}

type Row = (
    UserId,
    String,
    Option<String>,
    String,
    SystemRole,
    OrgRole,
    Provider,
    bool,
    DateTime<Utc>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
);

/// A member of the transaction's organization.
pub async fn find_member(tx: &mut OrgTx, id: UserId) -> Result<User> {
    let org_id = tx.org_id();
    let rows: Vec<Row> =
        statement::<(Uuid, Text, Nullable<Text>, Text, Text, Text, Text, Bool, Timestamptz, Timestamptz, Nullable<Timestamptz>)>(
            "SELECT u.id, u.username, u.email, u.full_name, u.role, m.role, u.provider, u.active, u.created_at, u.updated_at, u.last_login
             FROM users u JOIN memberships m ON m.user_id = u.id WHERE u.id = ?",
        )
        .bind::<Uuid, _>(id)
        .load(tx.conn()?)
        .await?;
    let (
        id,
        username,
        email,
        full_name,
        role,
        org_role,
        provider,
        active,
        created_at,
        updated_at,
        last_login,
    ) = rows.into_iter().next().ok_or(Error::NotFound)?;
    Ok(User {
        id,
        org_id,
        username,
        email,
        full_name,
        role,
        org_role,
        provider,
        active,
        created_at,
        updated_at,
        last_login,
    })
}

/// One line of the operator's list of users.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserSummary {
    /// The user.
    pub id: UserId,
    /// The username.
    pub username: String,
    /// System-wide role.
    pub role: SystemRole,
    /// Whether the user may log in.
    pub active: bool,
    /// Names of the organizations, in alphabetical order.
    pub organizations: String,
    /// Last login.
    pub last_login: Option<DateTime<Utc>>,
}

/// Every user of the platform, by name.
pub async fn list(tx: &mut PlatformTx) -> Result<Vec<UserSummary>> {
    let rows: Vec<(UserId, String, SystemRole, bool, String, Option<DateTime<Utc>>)> =
        statement::<(Uuid, Text, Text, Bool, Text, Nullable<Timestamptz>)>(
            "SELECT u.id, u.username, u.role, u.active,
                    COALESCE((SELECT string_agg(o.name, ', ' ORDER BY o.name) FROM memberships m
                              JOIN organizations o ON o.id = m.org_id WHERE m.user_id = u.id), ''), u.last_login
             FROM users u ORDER BY lower(u.username)",
        )
        .load(tx.conn()?)
        .await?;
    let summary = |(id, username, role, active, organizations, last_login)| UserSummary {
        id,
        username,
        role,
        active,
        organizations,
        last_login,
    };
    Ok(rows.into_iter().map(summary).collect())
}
