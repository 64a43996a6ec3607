//! Organizations.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::join3;
use tidegate_model::{
    CreateOrganizationRequest, LimitRule, LimitRules, OrgId, OrgRole, OrgStatus, Organization, TimeLimit,
    UpdateOrganizationRequest, UserId, default_namespace,
};

use crate::{
    Error, OrgScope, OrgTx, PlatformTx, Result, UserScope, UserTx, membership,
    scope::Told,
    session::time_limit,
    statement::{Statement, statement},
};

type Columns = (Uuid, Text, Text, Text, Text, Text, Nullable<Uuid>, Timestamptz, Timestamptz);
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
    /// Name, display name, description and namespace, checked.
    pub request: CreateOrganizationRequest,
    /// Who owns it.
    pub owner: Option<UserId>,
    /// The present.
    pub now: DateTime<Utc>,
}

impl NewOrganization {
    /// One with nothing but a name.
    pub fn named(id: OrgId, name: &str, owner: Option<UserId>, now: DateTime<Utc>) -> Self {
        let request = CreateOrganizationRequest {
            name: name.to_owned(),
            display_name: name.to_owned(),
            description: String::new(),
            k8s_namespace: default_namespace(name),
        };
        Self { id, request, owner, now }
    }

    fn statement(self) -> Statement<()> {
        let insert = statement::<()>(
            "INSERT INTO organizations (id, name, display_name, description, k8s_namespace, status, owner_user_id, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, 'active', ?, ?, ?)",
        );
        self.bound(insert)
    }

    fn bound(self, insert: Statement<()>) -> Statement<()> {
        insert
            .bind::<Uuid, _>(self.id)
            .bind::<Text, _>(self.request.name)
            .bind::<Text, _>(self.request.display_name)
            .bind::<Text, _>(self.request.description)
            .bind::<Text, _>(self.request.k8s_namespace)
            .bind::<Nullable<Uuid>, _>(self.owner)
            .bind::<Timestamptz, _>(self.now)
            .bind::<Timestamptz, _>(self.now)
    }
}

/// Inserts an active organization.
pub async fn insert(tx: &mut PlatformTx, new: NewOrganization) -> Result<()> {
    new.statement().execute(tx.conn()?).await?;
    Ok(())
}

/// The same where the name is free; false where it is not.
pub async fn insert_if_free(tx: &mut PlatformTx, new: NewOrganization) -> Result<bool> {
    let inserted = statement::<()>(
        "INSERT INTO organizations (id, name, display_name, description, k8s_namespace, status, owner_user_id, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, 'active', ?, ?, ?) ON CONFLICT DO NOTHING",
    );
    Ok(new.bound(inserted).execute(tx.conn()?).await? == 1)
}

/// Inserts an active organization of the user's own, and makes them its first member.
pub async fn insert_own(tx: &mut UserTx, mut new: NewOrganization) -> Result<()> {
    let (id, user, now) = (new.id, tx.user_id, new.now);
    new.owner = Some(user);
    new.statement().execute(tx.conn()?).await?;
    membership::join(tx, id, OrgRole::Admin, now).await?;
    Ok(())
}

/// The organization of this name.
pub async fn find_by_name(tx: &mut PlatformTx, name: &str) -> Result<Organization> {
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, name, display_name, description, k8s_namespace, status, owner_user_id, created_at, updated_at
         FROM organizations WHERE name = ?",
    )
    .bind::<Text, _>(name.to_owned())
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(organization).ok_or(Error::NotFound)
}

/// The organization of the transaction.
pub async fn find(tx: &mut OrgTx) -> Result<Organization> {
    let id = tx.org_id();
    one(tx.conn()?, FIND, id).await
}

/// An organization that the user of the transaction is a member of.
pub async fn find_own(tx: &mut UserTx, id: OrgId) -> Result<Organization> {
    one(tx.conn()?, FIND, id).await
}

/// The organization of the transaction, locked: the first lock of the lock order. Changes of its members take turns.
pub async fn lock_own(tx: &mut OrgTx) -> Result<Organization> {
    let id = tx.org_id();
    one(tx.conn()?, LOCK, id).await
}

/// Any organization that has not ended, locked.
pub async fn lock_any(tx: &mut PlatformTx, id: OrgId) -> Result<Organization> {
    one(tx.conn()?, LOCK, id).await
}

const LOCK: &str =
    "SELECT id, name, display_name, description, k8s_namespace, status, owner_user_id, created_at, updated_at
     FROM organizations WHERE id = ? AND status <> 'deleted' FOR NO KEY UPDATE";

/// Any organization that has not ended.
pub async fn find_any(tx: &mut PlatformTx, id: OrgId) -> Result<Organization> {
    one(tx.conn()?, FIND, id).await
}

const FIND: &str =
    "SELECT id, name, display_name, description, k8s_namespace, status, owner_user_id, created_at, updated_at
     FROM organizations WHERE id = ? AND status <> 'deleted'";

async fn one(conn: &mut AsyncPgConnection, sql: &'static str, id: OrgId) -> Result<Organization> {
    let rows: Vec<Row> = statement::<Columns>(sql).bind::<Uuid, _>(id).load(conn).await?;
    rows.into_iter().next().map(organization).ok_or(Error::NotFound)
}

/// The scope of an operator inside an organization that they need not be a member of. The transaction is the proof that
/// they are one, the row that there is such an organization.
pub async fn enter(tx: &mut PlatformTx, operator: &UserScope, id: OrgId) -> Result<OrgScope> {
    let org = find_any(tx, id).await?;
    let told = Some(Told { name: org.name, owned: org.owner_user_id == Some(operator.user_id) });
    Ok(OrgScope { org_id: org.id, user: operator.clone(), role: OrgRole::Admin, told })
}

/// Organizations by name, from the one after `after` on, with how many there are on all pages.
pub async fn list_all(tx: &mut PlatformTx, after: &str, limit: i64) -> Result<(Vec<Organization>, i64)> {
    let conn = tx.conn()?;
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, name, display_name, description, k8s_namespace, status, owner_user_id, created_at, updated_at
         FROM organizations WHERE name > ? AND status <> 'deleted' ORDER BY name LIMIT ?",
    )
    .bind::<Text, _>(after.to_owned())
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM organizations WHERE status <> 'deleted' LIMIT 10001) o",
    )
    .load(conn)
    .await?;
    Ok((rows.into_iter().map(organization).collect(), total.into_iter().next().unwrap_or(0)))
}

/// The user's organizations by name, suspended ones too, each with the role in it and how many there are on all pages.
pub async fn list_own(
    tx: &mut UserTx,
    after: &str,
    limit: i64,
) -> Result<(Vec<(Organization, OrgRole)>, i64)> {
    type OwnRow = (
        OrgId,
        String,
        String,
        String,
        String,
        OrgStatus,
        Option<UserId>,
        DateTime<Utc>,
        DateTime<Utc>,
        OrgRole,
    );
    type OwnColumns = (Uuid, Text, Text, Text, Text, Text, Nullable<Uuid>, Timestamptz, Timestamptz, Text);
    let user = tx.user_id;
    let conn = tx.conn()?;
    let rows: Vec<OwnRow> = statement::<OwnColumns>(
        "SELECT o.id, o.name, o.display_name, o.description, o.k8s_namespace, o.status, o.owner_user_id, o.created_at, o.updated_at, m.role
         FROM organizations o JOIN memberships m ON m.org_id = o.id
         WHERE m.user_id = ? AND o.name > ? AND o.status <> 'deleted' ORDER BY o.name LIMIT ?",
    )
    .bind::<Uuid, _>(user)
    .bind::<Text, _>(after.to_owned())
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?;
    let total: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM organizations o JOIN memberships m ON m.org_id = o.id WHERE m.user_id = ? AND o.status <> 'deleted'",
    )
    .bind::<Uuid, _>(user)
    .load(conn)
    .await?;
    let own = |(id, name, display, description, namespace, status, owner, created, updated, role): OwnRow| {
        (organization((id, name, display, description, namespace, status, owner, created, updated)), role)
    };
    Ok((rows.into_iter().map(own).collect(), total.into_iter().next().unwrap_or(0)))
}

/// Changes what is given; its status is not among it.
pub async fn update(tx: &mut OrgTx, change: UpdateOrganizationRequest, now: DateTime<Utc>) -> Result<()> {
    let id = tx.org_id();
    let changed = statement::<()>(
        "UPDATE organizations SET display_name = COALESCE(?, display_name), description = COALESCE(?, description),
                k8s_namespace = COALESCE(?, k8s_namespace), updated_at = ? WHERE id = ? AND status <> 'deleted'",
    )
    .bind::<Nullable<Text>, _>(change.display_name)
    .bind::<Nullable<Text>, _>(change.description)
    .bind::<Nullable<Text>, _>(change.k8s_namespace)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Changes what is given of any organization, its status too: suspends it or lets it go on.
pub async fn update_any(
    tx: &mut PlatformTx,
    id: OrgId,
    change: UpdateOrganizationRequest,
    now: DateTime<Utc>,
) -> Result<()> {
    let changed = statement::<()>(
        "UPDATE organizations SET display_name = COALESCE(?, display_name), description = COALESCE(?, description),
                k8s_namespace = COALESCE(?, k8s_namespace), status = COALESCE(?, status), updated_at = ?
         WHERE id = ? AND status <> 'deleted'",
    )
    .bind::<Nullable<Text>, _>(change.display_name)
    .bind::<Nullable<Text>, _>(change.description)
    .bind::<Nullable<Text>, _>(change.k8s_namespace)
    .bind::<Nullable<Text>, _>(change.status)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Gives the organization to another member, if it is still `from`'s: one racer wins.
pub async fn transfer(tx: &mut OrgTx, from: Option<UserId>, to: UserId, now: DateTime<Utc>) -> Result<bool> {
    let id = tx.org_id();
    let changed = statement::<()>(
        "UPDATE organizations SET owner_user_id = ?, updated_at = ?
         WHERE id = ? AND owner_user_id IS NOT DISTINCT FROM ? AND status <> 'deleted'",
    )
    .bind::<Uuid, _>(to)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .bind::<Nullable<Uuid>, _>(from)
    .execute(tx.conn()?)
    .await?;
    Ok(changed == 1)
}

/// Ends the organization: its row stays for the books, its pending invites, keys and bearer tokens are revoked, devices
/// that were let into it are refused, and no login chooses it any more.
pub async fn delete(tx: &mut OrgTx, now: DateTime<Utc>) -> Result<()> {
    let id = tx.org_id();
    let conn = tx.conn()?;
    let changed = statement::<()>(
        "UPDATE organizations SET status = 'deleted', updated_at = ? WHERE id = ? AND status <> 'deleted'",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(conn)
    .await?;
    if changed != 1 {
        return Err(Error::NotFound);
    }
    statement::<()>(
        "UPDATE invites SET status = 'revoked', decided_at = ? WHERE org_id = ? AND status = 'pending'",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(id)
    .execute(conn)
    .await?;
    statement::<()>("UPDATE api_keys SET revoked_at = ? WHERE org_id = ? AND revoked_at IS NULL")
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .execute(conn)
        .await?;
    // As whoever fetches a token does: the code before the token.
    statement::<()>("UPDATE device_codes SET decision = 'denied'").execute(conn).await?;
    statement::<()>("UPDATE bearer_tokens SET revoked_at = ? WHERE org_id = ? AND revoked_at IS NULL")
        .bind::<Timestamptz, _>(now)
        .bind::<Uuid, _>(id)
        .execute(conn)
        .await?;
    // The policy picks the rows: this role may not read whose logins they are, not even to name them here.
    statement::<()>("UPDATE login_sessions SET org_id = NULL").execute(conn).await?;
    Ok(())
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
    /// What it says of its sessions' limits.
    pub limits: LimitRules,
    /// Whether plugins are asked before one of its sessions starts.
    pub asks_plugins: bool,
}

type RuleColumns = (Nullable<Integer>, Nullable<Integer>, Nullable<Integer>, Nullable<Integer>);
type RuleRow = (Option<i32>, Option<i32>, Option<i32>, Option<i32>);

fn rules((idle_default, idle_maximum, duration_default, duration_maximum): RuleRow) -> Result<LimitRules> {
    let limit = |seconds: Option<i32>| seconds.map(time_limit).transpose();
    Ok(LimitRules {
        idle_timeout: LimitRule { default: limit(idle_default)?, maximum: limit(idle_maximum)? },
        max_session_duration: LimitRule {
            default: limit(duration_default)?,
            maximum: limit(duration_maximum)?,
        },
    })
}

/// What the organization says of its sessions' limits.
pub async fn session_limits(tx: &mut OrgTx) -> Result<LimitRules> {
    let org = tx.org_id();
    let rows: Vec<RuleRow> = statement::<RuleColumns>(
        "SELECT idle_default_seconds, idle_maximum_seconds, duration_default_seconds, duration_maximum_seconds
         FROM organizations WHERE id = ?",
    )
    .bind::<Uuid, _>(org)
    .load(tx.conn()?)
    .await?;
    rules(rows.into_iter().next().ok_or(Error::NotFound)?)
}

/// Sets what the organization says of its sessions' limits, all of it.
pub async fn set_session_limits(tx: &mut OrgTx, limits: LimitRules, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    let seconds = |limit: Option<TimeLimit>| limit.and_then(|limit| i32::try_from(limit.as_seconds()).ok());
    statement::<()>(
        "UPDATE organizations SET idle_default_seconds = ?, idle_maximum_seconds = ?, duration_default_seconds = ?,
                duration_maximum_seconds = ?, updated_at = ? WHERE id = ?",
    )
    .bind::<Nullable<Integer>, _>(seconds(limits.idle_timeout.default))
    .bind::<Nullable<Integer>, _>(seconds(limits.idle_timeout.maximum))
    .bind::<Nullable<Integer>, _>(seconds(limits.max_session_duration.default))
    .bind::<Nullable<Integer>, _>(seconds(limits.max_session_duration.maximum))
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// Locks the organization, then a membership of it, so that requests of one organization take turns.
pub(crate) async fn lock(conn: &AsyncPgConnection, org_id: OrgId, user_id: UserId) -> Result<Locked> {
    let (mut first, mut second, mut third) = (conn, conn, conn);
    let org = statement::<(Text, Text, Nullable<Integer>, Nullable<Integer>, Nullable<Integer>, Nullable<Integer>, Bool)>(
        "SELECT status, k8s_namespace, idle_default_seconds, idle_maximum_seconds, duration_default_seconds, duration_maximum_seconds,
                EXISTS (SELECT 1 FROM installed_plugins p WHERE p.enabled AND p.vetoes)
         FROM organizations WHERE id = ? AND status <> 'deleted' FOR NO KEY UPDATE",
    )
    .bind::<Uuid, _>(org_id);
    let member = statement::<(Text,)>(
        "SELECT role FROM memberships WHERE org_id = ? AND user_id = ? FOR NO KEY UPDATE",
    )
    .bind::<Uuid, _>(org_id)
    .bind::<Uuid, _>(user_id);
    // Begun after both locks: whoever was deactivated while they were waited for does nothing more.
    let active = statement::<Bool>("SELECT user_is_active(?)").bind::<Uuid, _>(user_id);
    // Sent at once, in the lock order: the server begins the second when it has the first lock.
    let (orgs, members, active) = join3(
        org.load::<(OrgStatus, String, Option<i32>, Option<i32>, Option<i32>, Option<i32>, bool)>(&mut first),
        member.load::<(OrgRole,)>(&mut second),
        active.load::<bool>(&mut third),
    )
    .await;
    // In their order: what failed first tells why.
    let (status, k8s_namespace, idle, most_idle, duration, most_duration, asks_plugins) =
        orgs?.into_iter().next().ok_or(Error::NotFound)?;
    let (role,) = members?.into_iter().next().ok_or(Error::NotFound)?;
    if active? != [true] {
        return Err(Error::NotFound);
    }
    let limits = rules((idle, most_idle, duration, most_duration))?;
    Ok(Locked { status, k8s_namespace, role, limits, asks_plugins })
}

/// The organization's lock alone, for whoever entered it and is no member: they act as an `org_admin`.
pub(crate) async fn lock_entered(tx: &mut OrgTx) -> Result<Locked> {
    let org = lock_own(tx).await?;
    let limits = session_limits(tx).await?;
    let asks: Vec<bool> =
        statement::<Bool>("SELECT EXISTS (SELECT 1 FROM installed_plugins p WHERE p.enabled AND p.vetoes)")
            .load(tx.conn()?)
            .await?;
    let asks_plugins = asks == [true];
    let k8s_namespace = org.k8s_namespace;
    Ok(Locked { status: org.status, k8s_namespace, role: OrgRole::Admin, limits, asks_plugins })
}

/// Whether the transaction's user owns its organization.
pub async fn is_owned(tx: &mut OrgTx) -> Result<bool> {
    let (org, user) = (tx.org_id(), tx.user_id()?);
    let rows: Vec<(bool,)> =
        statement::<(Bool,)>("SELECT COALESCE(owner_user_id = ?, false) FROM organizations WHERE id = ?")
            .bind::<Uuid, _>(user)
            .bind::<Uuid, _>(org)
            .load(tx.conn()?)
            .await?;
    Ok(rows.into_iter().next().is_some_and(|row| row.0))
}

/// The oldest organization that the user of the transaction owns (seed B, `FirstOwnedAccountFor`).
pub async fn first_owned(tx: &mut UserTx) -> Result<Organization> {
    let user = tx.user_id;
    let rows: Vec<Row> = statement::<Columns>(
        "SELECT id, name, display_name, description, k8s_namespace, status, owner_user_id, created_at, updated_at
         FROM organizations WHERE owner_user_id = ? AND status <> 'deleted' ORDER BY created_at, id LIMIT 1",
    )
    .bind::<Uuid, _>(user)
    .load(tx.conn()?)
    .await?;
    rows.into_iter().next().map(organization).ok_or(Error::NotFound)
}
