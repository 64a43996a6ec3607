//! Memberships: who belongs to an organization, in which role.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use tidegate_model::{Member, OrgId, OrgRole, UserId};

use crate::{
    Error, OrgTx, PlatformTx, Result, UserTx,
    statement::{Statement, statement},
};

type Columns = (Uuid, Text, Text, Text, Bool, Bool, Timestamptz);
type Row = (UserId, String, String, OrgRole, bool, bool, DateTime<Utc>);

fn member((user_id, username, full_name, role, owner, active, joined_at): Row) -> Member {
    Member { user_id, username, full_name, role, owner, active, joined_at }
}

/// A member of the transaction's organization.
pub async fn find(tx: &mut OrgTx, user: UserId) -> Result<Member> {
    let org = tx.org_id();
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT u.id, u.username, u.full_name, m.role, COALESCE(o.owner_user_id = u.id, false), u.active, m.created_at
         FROM memberships m JOIN users u ON u.id = m.user_id JOIN organizations o ON o.id = m.org_id
         WHERE m.org_id = ? AND m.user_id = ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(member).ok_or(Error::NotFound)
}

/// Members in joining order, the owner too, from the one after `after` on, with how many there are on all pages.
pub async fn list(
    tx: &mut OrgTx,
    after: Option<(DateTime<Utc>, UserId)>,
    limit: i64,
) -> Result<(Vec<Member>, i64)> {
    let org = tx.org_id();
    let (at, user) = after.unzip();
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT u.id, u.username, u.full_name, m.role, COALESCE(o.owner_user_id = u.id, false), u.active, m.created_at
         FROM memberships m JOIN users u ON u.id = m.user_id JOIN organizations o ON o.id = m.org_id
         WHERE m.org_id = ? AND (m.created_at, m.user_id) > (COALESCE(?, '-infinity'), COALESCE(?, '00000000-0000-0000-0000-000000000000'))
         ORDER BY m.created_at, m.user_id LIMIT ?",
    )
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Timestamptz>, _>(at)
    .bind::<Nullable<Uuid>, _>(user)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM memberships WHERE org_id = ? LIMIT 10001) m",
    )
    .bind::<Uuid, _>(org)
    .load(conn)
    .await?;
    Ok((rows.into_iter().map(member).collect(), total.into_iter().next().unwrap_or(0)))
}

/// An active user of the platform, by id or by name in any case, who is to be made a member.
pub async fn person(tx: &mut OrgTx, id: Option<UserId>, name: Option<String>) -> Result<(UserId, String)> {
    let rows: Vec<(UserId, String)> =
        statement::<(Uuid, Text)>("SELECT user_id, username FROM org_person(?, ?)")
            .bind::<Nullable<Uuid>, _>(id)
            .bind::<Nullable<Text>, _>(name)
            .load(tx.conn()?)
            .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Whether a user is a member or owns the organization (seed B, `IsMemberOrOwner`).
pub async fn is_member_or_owner(tx: &mut OrgTx, user: UserId) -> Result<bool> {
    let org = tx.org_id();
    let rows: Vec<bool> = statement::<Bool>(
        "SELECT EXISTS (SELECT 1 FROM memberships WHERE org_id = ? AND user_id = ?)
             OR EXISTS (SELECT 1 FROM organizations WHERE id = ? AND owner_user_id = ?)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?;
    Ok(rows == [true])
}

/// Whether the transaction's user is a member of an organization.
pub async fn is_own(tx: &mut UserTx, org: OrgId) -> Result<bool> {
    let user = tx.user_id;
    let rows: Vec<bool> =
        statement::<Bool>("SELECT EXISTS (SELECT 1 FROM memberships WHERE org_id = ? AND user_id = ?)")
            .bind::<Uuid, _>(org)
            .bind::<Uuid, _>(user)
            .load(tx.conn()?)
            .await?;
    Ok(rows == [true])
}

/// The member of this name, in any case.
pub async fn find_named(tx: &mut OrgTx, username: &str) -> Result<UserId> {
    let org = tx.org_id();
    let rows: Vec<UserId> = statement::<Uuid>(
        "SELECT m.user_id FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.org_id = ? AND lower(u.username) = lower(?)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(username.to_owned())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().ok_or(Error::NotFound)
}

/// Whether a user of this name, in any case, is a member.
pub async fn is_member(tx: &mut OrgTx, username: &str) -> Result<bool> {
    let org = tx.org_id();
    let rows: Vec<bool> = statement::<Bool>(
        "SELECT EXISTS (SELECT 1 FROM users u JOIN memberships m ON m.user_id = u.id WHERE m.org_id = ? AND lower(u.username) = lower(?))",
    )
    .bind::<Uuid, _>(org)
    .bind::<Text, _>(username.to_owned())
    .load(tx.conn()?)
    .await?;
    Ok(rows == [true])
}

/// Adds a member, or changes the role of one.
pub async fn put(tx: &mut OrgTx, user: UserId, role: OrgRole, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    put_statement(org, user, role, now).execute(tx.conn()?).await?;
    Ok(())
}

/// The same for the platform, which makes organizations and users together.
pub async fn put_for_platform(
    tx: &mut PlatformTx,
    org: OrgId,
    user: UserId,
    role: OrgRole,
    now: DateTime<Utc>,
) -> Result<()> {
    put_statement(org, user, role, now).execute(tx.conn()?).await?;
    Ok(())
}

fn put_statement(org: OrgId, user: UserId, role: OrgRole, now: DateTime<Utc>) -> Statement<()> {
    statement::<()>(
        "INSERT INTO memberships (org_id, user_id, role, created_at) VALUES (?, ?, ?, ?)
         ON CONFLICT (org_id, user_id) DO UPDATE SET role = EXCLUDED.role",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(role)
    .bind::<Timestamptz, _>(now)
}

/// Whether somebody other than `user` is `org_admin` and may log in.
pub async fn another_admin(tx: &mut OrgTx, user: UserId) -> Result<bool> {
    let org = tx.org_id();
    let rows: Vec<bool> = statement::<Bool>(
        "SELECT EXISTS (SELECT 1 FROM memberships m JOIN users u ON u.id = m.user_id
                        WHERE m.org_id = ? AND m.role = 'org_admin' AND m.user_id <> ? AND u.active)",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?;
    Ok(rows == [true])
}

/// Ends a membership, and forgets the invite that it came by: it opens the organization once. No login of the member
/// chooses the organization any more.
pub async fn remove(tx: &mut OrgTx, user: UserId) -> Result<()> {
    let org = tx.org_id();
    let conn = tx.conn()?;
    let gone = statement::<()>("DELETE FROM memberships WHERE org_id = ? AND user_id = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(user)
        .execute(conn)
        .await?;
    if gone == 0 {
        return Err(Error::NotFound);
    }
    statement::<()>("UPDATE invites SET accepted_by = NULL WHERE org_id = ? AND accepted_by = ?")
        .bind::<Uuid, _>(org)
        .bind::<Uuid, _>(user)
        .execute(conn)
        .await?;
    // The policy picks the rows: this role may not read whose logins they are.
    let leaving = format!("SELECT set_config('app.leaving', '{user}', true)");
    conn.batch_execute(&leaving).await?;
    statement::<()>("UPDATE login_sessions SET org_id = NULL").execute(conn).await?;
    Ok(conn.batch_execute("SELECT set_config('app.leaving', '', true)").await?)
}

/// Makes the user of the transaction a member, as far as the database agrees: as the owner of an organization just
/// made, or by an invite just accepted. A member stays what they are.
pub async fn join(tx: &mut UserTx, org: OrgId, role: OrgRole, now: DateTime<Utc>) -> Result<bool> {
    let user = tx.user_id;
    let joined = statement::<()>(
        "INSERT INTO memberships (org_id, user_id, role, created_at) VALUES (?, ?, ?, ?) ON CONFLICT (org_id, user_id) DO NOTHING",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(role)
    .bind::<Timestamptz, _>(now)
    .execute(tx.conn()?)
    .await?;
    Ok(joined == 1)
}
