//! Organizations.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Bool, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::join;
use tidegate_model::{OrgId, OrgRole, OrgStatus, Organization, UserId};

use crate::{Error, OrgTx, PlatformTx, Result, statement::statement};

type Row = (OrgId, String, String, String, String, OrgStatus, Option<UserId>, DateTime<Utc>, DateTime<Utc>);

fn organization(row: Row) -> Organization {
    let (id, name, display_name, description, k8s_namespace, status, owner_user_id, created_at, updated_at) =
        row;
    Organization {
        id,
        name,
        display_name,
        description,
        k8s_namespace,
        status,
        owner_user_id,
        created_at,
        updated_at,
    }
}

/// An organization to insert.
#[derive(Debug, Clone)]
pub struct NewOrganization {
    /// The id.
    pub id: OrgId,
    /// Unique across the platform.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// Who owns it.
    pub owner: Option<UserId>,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Inserts an active organization.
pub async fn insert(tx: &mut PlatformTx, new: NewOrganization) -> Result<()> {
    let namespace = format!("tidegate-{}", new.name);
    statement::<()>(
        "INSERT INTO organizations (id, name, display_name, k8s_namespace, status, owner_user_id, created_at, updated_at)
         VALUES (?, ?, ?, ?, 'active', ?, ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Text, _>(new.name)
    .bind::<Text, _>(new.display_name)
    .bind::<Text, _>(namespace)
    .bind::<Nullable<Uuid>, _>(new.owner)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Timestamptz, _>(new.now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// The organization of this name.
pub async fn find_by_name(tx: &mut PlatformTx, name: &str) -> Result<Organization> {
    let rows: Vec<Row> = statement::<(Uuid, Text, Text, Text, Text, Text, Nullable<Uuid>, Timestamptz, Timestamptz)>(
        "SELECT id, name, display_name, description, k8s_namespace, status, owner_user_id, created_at, updated_at
         FROM organizations WHERE name = ?",
    )
    .bind::<Text, _>(name.to_owned())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(organization).ok_or(Error::NotFound)
}

/// What a session request must hold while it decides: the first two locks of the lock order.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The organization's state.
    pub status: OrgStatus,
    /// Namespace of its sessions on Kubernetes agents.
    pub k8s_namespace: String,
    /// The member's role at this moment.
    pub role: OrgRole,
}

/// Locks the organization, then a membership of it, so that requests of one organization take turns.
pub(crate) async fn lock(conn: &AsyncPgConnection, org_id: OrgId, user_id: UserId) -> Result<Locked> {
    let (mut first, mut second) = (conn, conn);
    let org = statement::<(Text, Text)>(
        "SELECT status, k8s_namespace FROM organizations WHERE id = ? FOR NO KEY UPDATE",
    )
    .bind::<Uuid, _>(org_id);
    let member = statement::<(Text,)>(
        "SELECT role FROM memberships WHERE org_id = ? AND user_id = ? FOR NO KEY UPDATE",
    )
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(user_id);
    // Sent at once, in the lock order: the server begins the second when it has the first lock.
    let (orgs, members) =
        join(org.load::<(OrgStatus, String)>(&mut first), member.load::<(OrgRole,)>(&mut second)).await;
    let (status, k8s_namespace) = orgs?.into_iter().next().ok_or(Error::NotFound)?;
    let (role,) = members?.into_iter().next().ok_or(Error::NotFound)?;
    Ok(Locked { status, k8s_namespace, role })
}

/// Whether the transaction's user owns its organization.
pub async fn is_owned(tx: &mut OrgTx) -> Result<bool> {
    let context = tx.context;
    let rows: Vec<(bool,)> =
        statement::<(Bool,)>("SELECT COALESCE(owner_user_id = ?, false) FROM organizations WHERE id = ?")
            .bind::<Uuid, _>(context.user_id)
            .bind::<Uuid, _>(context.org_id)
            .load(tx.conn()?)
            .await?;
    Ok(rows.into_iter().next().is_some_and(|row| row.0))
}
