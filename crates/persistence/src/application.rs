//! Installed applications, the groups that may use them, and the lease of whoever installs one.

mod groups;
mod install;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Bytea, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_model::{
    AccessLevel, AppType, ApplicationGroupAccess, ApplicationGroupId, ApplicationId, CatalogTemplateId,
    GroupId, InstallStatus, InstalledApplication, OrgId, SessionState, TemplateManifest, TemplatePlatform,
    UserId,
};

use crate::{Error, OrgTx, Result, statement::statement};

pub use groups::{find_group, groups, put_group, remove_group};
pub use install::{
    Brought, Claimed, Offered, claim, fail, finish, first_served, offered, offered_named, picture, retry,
};

/// A row as PostgreSQL tells it in JSON: with its groups, of which there are any number, it is one value.
#[derive(Deserialize)]
struct Row {
    id: ApplicationId,
    org_id: OrgId,
    catalog_template_id: CatalogTemplateId,
    name: String,
    display_name: String,
    folder_path: String,
    enabled: bool,
    platform: TemplatePlatform,
    configuration: Map<String, Value>,
    created_by: UserId,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    template_name: String,
    template_display_name: String,
    description: String,
    category: String,
    app_type: AppType,
    has_icon: bool,
    install_status: InstallStatus,
    install_message: Option<String>,
    access: AccessLevel,
    groups: Option<Vec<GroupRow>>,
}

#[derive(Deserialize)]
struct GroupRow {
    id: ApplicationGroupId,
    application_id: ApplicationId,
    group_id: GroupId,
    access_level: AccessLevel,
    created_at: DateTime<Utc>,
    group_name: String,
    group_display_name: String,
}

impl From<Row> for InstalledApplication {
    fn from(row: Row) -> Self {
        // What it is set to, and who may use it, is for those who may change it.
        let changes = row.access == AccessLevel::Admin;
        let icon = row.has_icon.then(|| format!("/api/v1/applications/{}/icon", row.id));
        let groups = row.groups.unwrap_or_default().into_iter().map(ApplicationGroupAccess::from).collect();
        Self {
            id: row.id,
            org_id: row.org_id,
            catalog_template_id: row.catalog_template_id,
            name: row.name,
            display_name: row.display_name,
            folder_path: row.folder_path,
            enabled: row.enabled,
            platform: row.platform,
            configuration: changes.then_some(row.configuration),
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
            template_name: row.template_name,
            template_display_name: row.template_display_name,
            description: row.description,
            category: row.category,
            app_type: row.app_type,
            icon,
            manifest: None,
            install_status: row.install_status,
            install_message: row.install_message,
            access: row.access,
            groups: changes.then_some(groups),
        }
    }
}

impl From<GroupRow> for ApplicationGroupAccess {
    fn from(row: GroupRow) -> Self {
        Self {
            id: row.id,
            application_id: row.application_id,
            group_id: row.group_id,
            access_level: row.access_level,
            created_at: row.created_at,
            group_name: row.group_name,
            group_display_name: row.group_display_name,
        }
    }
}

fn corrupt(error: serde_json::Error) -> Error {
    Error::corrupt("application", error)
}

/// Who looks at applications, and by what right.
#[derive(Debug, Clone, Copy)]
pub struct Looking {
    /// The member; groups give them what they give.
    pub user: UserId,
    /// Whether they manage the organization's applications, and so may do everything with each.
    pub manages: bool,
}

/// A page of applications.
#[derive(Debug, Clone)]
pub struct Page {
    /// Who asks.
    pub looking: Looking,
    /// Only what can be launched by somebody at this moment; else what the caller may change, too, in whatever state.
    pub ready: bool,
    /// Only those whose names come after this one.
    pub after: String,
    /// Rows at most.
    pub limit: i64,
}

/// The columns of [`Row`], of an application `a` whose `access` is known.
macro_rules! shown {
    () => {
        "a.id, a.org_id, a.catalog_template_id, a.name, a.display_name, a.folder_path, a.enabled, a.platform, a.configuration, a.created_by,
         a.created_at, a.updated_at, a.template_name, a.template_display_name, a.description, a.category, a.app_type,
         a.icon IS NOT NULL AS has_icon, a.install_status, a.install_message, a.access,
         CASE WHEN a.access = 'admin' THEN (
             SELECT jsonb_agg(jsonb_build_object('id', x.id, 'application_id', x.application_id, 'group_id', x.group_id,
                 'access_level', x.access_level, 'created_at', x.created_at, 'group_name', g.name, 'group_display_name', g.display_name) ORDER BY g.name)
             FROM application_groups x JOIN groups g ON g.org_id = x.org_id AND g.id = x.group_id
             WHERE x.org_id = a.org_id AND x.application_id = a.id) END AS groups"
    };
}

/// The applications that somebody may see, by name, with how many there are on all pages: all of it in one statement.
pub async fn list(tx: &mut OrgTx, page: &Page) -> Result<(Vec<InstalledApplication>, i64)> {
    let org = tx.org_id();
    let rows: Vec<(Value, i64)> = statement::<(Jsonb, BigInt)>(concat!(
        "WITH w AS (SELECT ?::uuid AS org, ?::uuid AS person, ?::boolean AS manages, ?::boolean AS ready, ?::text AS after, ?::bigint AS few),
         granted AS MATERIALIZED (SELECT x.application_id, x.access_level FROM w, applications_of(w.org, w.person) x),
         seen AS MATERIALIZED (
             SELECT i.*, CASE WHEN w.manages THEN 'admin' ELSE c.access_level END AS access
             FROM w JOIN installed_applications i ON i.org_id = w.org LEFT JOIN granted c ON c.application_id = i.id
             WHERE i.removed_at IS NULL AND (w.manages OR c.application_id IS NOT NULL)
               AND ((i.enabled AND i.install_status = 'installed') OR (NOT w.ready AND (w.manages OR c.access_level = 'admin')))),
         page AS (SELECT ",
        shown!(),
        " FROM w, seen a WHERE a.name > w.after ORDER BY a.name LIMIT (SELECT few FROM w))
         SELECT COALESCE((SELECT jsonb_agg(to_jsonb(p) ORDER BY p.name) FROM page p), '[]'), (SELECT count(*) FROM (SELECT 1 FROM seen LIMIT 10001) s)"
    ))
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(page.looking.user)
    .bind::<Bool, _>(page.looking.manages)
    .bind::<Bool, _>(page.ready)
    .bind::<Text, _>(page.after.clone())
    .bind::<BigInt, _>(page.limit)
    .load(tx.conn()?)
    .await?;
    let Some((found, total)) = rows.into_iter().next() else { return Ok((Vec::new(), 0)) };
    let found: Vec<Row> = serde_json::from_value(found).map_err(corrupt)?;
    Ok((found.into_iter().map(InstalledApplication::from).collect(), total))
}

/// An application with what it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// As the caller may see it.
    pub application: InstalledApplication,
    /// The template as it was when it was installed.
    pub manifest: TemplateManifest,
    /// What its options are set to, whoever looks.
    pub configuration: Map<String, Value>,
}

/// An application that somebody may see; for everybody else it is not there.
pub async fn find(tx: &mut OrgTx, id: ApplicationId, looking: Looking) -> Result<Found> {
    let org = tx.org_id();
    let rows: Vec<(Value, Value, Value)> = statement::<(Jsonb, Jsonb, Jsonb)>(concat!(
        "WITH w AS (SELECT ?::uuid AS org, ?::uuid AS person, ?::boolean AS manages, ?::uuid AS id),
         seen AS (
             SELECT i.*, CASE WHEN w.manages THEN 'admin' ELSE (SELECT x.access_level FROM applications_of(w.org, w.person) x WHERE x.application_id = i.id) END AS access
             FROM w JOIN installed_applications i ON i.org_id = w.org AND i.id = w.id WHERE i.removed_at IS NULL),
         one AS (SELECT ",
        shown!(),
        ", a.manifest FROM seen a WHERE a.access IS NOT NULL)
         SELECT to_jsonb(o) - 'manifest', o.manifest, o.configuration FROM one o"
    ))
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(looking.user)
    .bind::<Bool, _>(looking.manages)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    let (shown, manifest, configuration) = rows.into_iter().next().ok_or(Error::NotFound)?;
    let row: Row = serde_json::from_value(shown).map_err(corrupt)?;
    Ok(Found {
        application: row.into(),
        manifest: serde_json::from_value(manifest).map_err(corrupt)?,
        configuration: serde_json::from_value(configuration).map_err(corrupt)?,
    })
}

/// Bytes of an icon, and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icon {
    /// For example `image/svg+xml`.
    pub media_type: String,
    /// The picture.
    pub content: Vec<u8>,
}

/// The icon of an application.
pub async fn icon(tx: &mut OrgTx, id: ApplicationId) -> Result<Icon> {
    let org = tx.org_id();
    let rows: Vec<(Option<String>, Option<Vec<u8>>)> = statement::<(Nullable<Text>, Nullable<Bytea>)>(
        "SELECT icon_media_type, icon FROM installed_applications WHERE org_id = ? AND id = ? AND removed_at IS NULL",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .load(tx.conn()?)
    .await?;
    match rows.into_iter().next() {
        Some((Some(media_type), Some(content))) => Ok(Icon { media_type, content }),
        _ => Err(Error::NotFound),
    }
}

/// An application to install.
#[derive(Debug, Clone)]
pub struct NewApplication {
    /// The id it gets.
    pub id: ApplicationId,
    /// The template.
    pub template: CatalogTemplateId,
    /// Unique in the organization.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// Where its configuration belongs.
    pub folder_path: String,
    /// What it is installed on.
    pub platform: TemplatePlatform,
    /// The options as they hold.
    pub configuration: Map<String, Value>,
    /// Who installs it.
    pub created_by: UserId,
    /// What the template says now.
    pub manifest: TemplateManifest,
    /// The present.
    pub now: DateTime<Utc>,
}

/// Asks for the installation of an application; a name that is taken is a violation.
pub async fn insert(tx: &mut OrgTx, new: NewApplication) -> Result<()> {
    let org = tx.org_id();
    let manifest = serde_json::to_value(&new.manifest).map_err(corrupt)?;
    statement::<()>(
        "INSERT INTO installed_applications (id, org_id, catalog_template_id, name, display_name, folder_path, platform, configuration, created_by,
             created_at, updated_at, template_name, template_display_name, description, category, app_type, manifest, install_due_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind::<Uuid, _>(new.id)
    .bind::<Uuid, _>(org)
    .bind::<BigInt, _>(new.template)
    .bind::<Text, _>(new.name)
    .bind::<Text, _>(new.display_name)
    .bind::<Text, _>(new.folder_path)
    .bind::<Text, _>(new.platform)
    .bind::<Jsonb, _>(Value::Object(new.configuration))
    .bind::<Uuid, _>(new.created_by)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Timestamptz, _>(new.now)
    .bind::<Text, _>(new.manifest.name)
    .bind::<Text, _>(new.manifest.display_name)
    .bind::<Text, _>(new.manifest.description)
    .bind::<Text, _>(new.manifest.category)
    .bind::<Text, _>(new.manifest.app_type)
    .bind::<Jsonb, _>(manifest)
    .bind::<Timestamptz, _>(new.now)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// What of an application changes; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// For people.
    pub display_name: Option<String>,
    /// Whether it can be launched.
    pub enabled: Option<bool>,
    /// The options as they hold.
    pub configuration: Option<Map<String, Value>>,
}

/// Changes an application.
pub async fn update(tx: &mut OrgTx, id: ApplicationId, change: Change, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    let changed = statement::<()>(
        "UPDATE installed_applications SET display_name = COALESCE(?, display_name), enabled = COALESCE(?, enabled),
                configuration = COALESCE(?, configuration), updated_at = ? WHERE org_id = ? AND id = ? AND removed_at IS NULL",
    )
    .bind::<Nullable<Text>, _>(change.display_name)
    .bind::<Nullable<Bool>, _>(change.enabled)
    .bind::<Nullable<Jsonb>, _>(change.configuration.map(Value::Object))
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .execute(tx.conn()?)
    .await?;
    if changed == 1 { Ok(()) } else { Err(Error::NotFound) }
}

/// Removes an application with everybody's access to it. What it was set to is forgotten; the row stays for the sessions
/// that came from it.
pub async fn remove(tx: &mut OrgTx, id: ApplicationId, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    let gone = statement::<BigInt>(
        "WITH gone AS (
             UPDATE installed_applications SET removed_at = ?, updated_at = ?, enabled = false, configuration = '{}', icon = NULL,
                 icon_media_type = NULL, install_due_at = NULL
             WHERE org_id = ? AND id = ? AND removed_at IS NULL RETURNING id),
         access AS (DELETE FROM application_groups WHERE application_id IN (SELECT id FROM gone))
         SELECT count(*) FROM gone",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .load::<i64>(tx.conn()?)
    .await?;
    if gone == [1] { Ok(()) } else { Err(Error::NotFound) }
}

/// Removes every application of the organization that ends, as [`remove`] does one.
pub async fn remove_all(tx: &mut OrgTx, now: DateTime<Utc>) -> Result<()> {
    let org = tx.org_id();
    statement::<()>(
        "WITH gone AS (
             UPDATE installed_applications SET removed_at = ?, updated_at = ?, enabled = false, configuration = '{}', icon = NULL,
                 icon_media_type = NULL, install_due_at = NULL
             WHERE org_id = ? AND removed_at IS NULL)
         DELETE FROM application_groups WHERE org_id = ?",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(org)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// How many sessions of an application are in one of these states; past a hundred they are not counted.
pub async fn sessions_in(tx: &mut OrgTx, id: ApplicationId, states: &[SessionState]) -> Result<i64> {
    let org = tx.org_id();
    let rows: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM (SELECT 1 FROM sessions WHERE org_id = ? AND installed_application_id = ? AND state = ANY(?) LIMIT 101) s",
    )
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Array<Text>, _>(states.to_vec())
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().unwrap_or(0))
}

/// How many applications the organization has.
pub async fn count(tx: &mut OrgTx) -> Result<i64> {
    let org = tx.org_id();
    let rows: Vec<i64> = statement::<BigInt>(
        "SELECT count(*) FROM installed_applications WHERE org_id = ? AND removed_at IS NULL",
    )
    .bind::<Uuid, _>(org)
    .load(tx.conn()?)
    .await?;
    Ok(rows.into_iter().next().unwrap_or(0))
}
