//! The installation of an application: what the catalog offers, and the lease of whoever installs.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::RunQueryDsl;
use serde_json::{Map, Value};
use tidegate_model::{
    ApplicationId, CatalogTemplateId, InstallStatus, OrgId, TemplateManifest, TemplatePlatform,
};

use super::{Icon, corrupt};
use crate::{Db, Error, OrgTx, Result, SystemScope, statement::statement};

/// Asks once more for an installation that came to nothing; false where it did not.
pub async fn retry(tx: &mut OrgTx, id: ApplicationId, now: DateTime<Utc>) -> Result<bool> {
    let org = tx.org_id();
    let asked = statement::<()>(
        "UPDATE installed_applications SET install_status = 'pending', install_message = NULL, install_attempt = 0, install_due_at = ?
         WHERE org_id = ? AND id = ? AND install_status = ANY(?) AND removed_at IS NULL",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Array<Text>, _>(InstallStatus::Pending.predecessors().to_vec())
    .execute(tx.conn()?)
    .await?;
    Ok(asked == 1)
}

/// Which of these platforms of templates has an approved agent that serves the organization: the first one.
pub async fn first_served(
    tx: &mut OrgTx,
    platforms: &[TemplatePlatform],
) -> Result<Option<TemplatePlatform>> {
    let agents: Vec<&'static str> = platforms.iter().map(|platform| platform.agents().as_str()).collect();
    // The policy leaves those that are approved, not removed, and serve this organization.
    let rows: Vec<i64> = statement::<BigInt>(
        "SELECT p.place FROM unnest(?::text[]) WITH ORDINALITY AS p(platform, place)
         WHERE EXISTS (SELECT 1 FROM agents a WHERE a.platform = p.platform) ORDER BY p.place LIMIT 1",
    )
    .bind::<Array<Text>, _>(agents)
    .load(tx.conn()?)
    .await?;
    let place = rows.into_iter().next().and_then(|place| usize::try_from(place - 1).ok());
    Ok(place.and_then(|place| platforms.get(place).copied()))
}

/// An installation that somebody is at.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The application.
    pub id: ApplicationId,
    /// Which try this is, from 1 on. Whoever asks once more has them counted anew.
    pub attempt: i32,
    /// Until when nobody else is at it. With the try it is the fence of whoever claimed it: no two have both.
    pub lease: DateTime<Utc>,
    /// The template.
    pub template: CatalogTemplateId,
    /// The name it has in the organization.
    pub name: String,
    /// What it is installed on.
    pub platform: TemplatePlatform,
    /// The options as they hold.
    pub configuration: Map<String, Value>,
}

impl Db {
    /// Installations that somebody should be at, the longest due first, each to be opened in its organization's own scope.
    pub async fn due_installations(
        &self,
        now: DateTime<Utc>,
        limit: i32,
    ) -> Result<Vec<(SystemScope, ApplicationId)>> {
        let mut connection = self.connection().await?;
        let rows: Vec<(OrgId, ApplicationId)> =
            statement::<(Uuid, Uuid)>("SELECT org_id, application_id FROM list_due_installations(?, ?)")
                .bind::<Timestamptz, _>(now)
                .bind::<Integer, _>(limit)
                .load(&mut connection)
                .await?;
        Ok(rows.into_iter().map(|(org_id, id)| (SystemScope { org_id }, id)).collect())
    }
}

/// Claims an installation until `lease`: nobody else is at it before, and after it anybody may. `None` where somebody is,
/// or nobody has to be.
pub async fn claim(
    tx: &mut OrgTx,
    id: ApplicationId,
    now: DateTime<Utc>,
    lease: DateTime<Utc>,
) -> Result<Option<Claimed>> {
    type Columns = (Integer, Timestamptz, BigInt, Text, Text, Jsonb);
    type Tuple = (i32, DateTime<Utc>, CatalogTemplateId, String, TemplatePlatform, Value);
    let org = tx.org_id();
    let rows: Vec<Tuple> = statement::<Columns>(
        "UPDATE installed_applications SET install_status = 'creating', install_attempt = install_attempt + 1, install_due_at = ?
         WHERE org_id = ? AND id = ? AND removed_at IS NULL AND install_status = ANY(?) AND install_due_at <= ?
         RETURNING install_attempt, install_due_at, catalog_template_id, name, platform, configuration",
    )
    .bind::<Timestamptz, _>(lease)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(id)
    .bind::<Array<Text>, _>(InstallStatus::Creating.predecessors().to_vec())
    .bind::<Timestamptz, _>(now)
    .load(tx.conn()?)
    .await?;
    // The lease as it is kept, which may be rounded.
    let Some((attempt, lease, template, name, platform, configuration)) = rows.into_iter().next() else {
        return Ok(None);
    };
    let configuration = serde_json::from_value(configuration).map_err(corrupt)?;
    Ok(Some(Claimed { id, attempt, lease, template, name, platform, configuration }))
}

/// A template of the catalog as it can be installed at this moment.
#[derive(Debug, Clone)]
pub struct Offered {
    /// The template.
    pub id: CatalogTemplateId,
    /// The repository that it is of.
    pub repository: String,
    /// What it says.
    pub manifest: TemplateManifest,
    /// Its icon, by its digest.
    pub icon: Option<Vec<u8>>,
}

type OfferedColumns = (BigInt, Text, Jsonb, Nullable<Bytea>);
type OfferedTuple = (CatalogTemplateId, String, Value, Option<Vec<u8>>);

fn offer((id, repository, manifest, icon): OfferedTuple) -> Result<Offered> {
    Ok(Offered { id, repository, manifest: serde_json::from_value(manifest).map_err(corrupt)?, icon })
}

/// A template that the catalog shows to people; none where it was withdrawn, or its repository is not there for them.
pub async fn offered(tx: &mut OrgTx, id: CatalogTemplateId) -> Result<Offered> {
    // The policy of the repositories leaves those that people see.
    let rows: Vec<OfferedTuple> = statement::<OfferedColumns>(
        "SELECT t.id, r.name, t.manifest, t.icon FROM catalog_templates t JOIN repositories r ON r.id = t.repository_id
         WHERE t.id = ? AND t.withdrawn_at IS NULL",
    )
    .bind::<BigInt, _>(id)
    .load(tx.conn()?)
    .await?;
    offer(rows.into_iter().next().ok_or(Error::NotFound)?)
}

/// The templates of a name, of one repository where it is named; at most ten, the first one that was there first.
pub async fn offered_named(tx: &mut OrgTx, repository: Option<&str>, name: &str) -> Result<Vec<Offered>> {
    let rows: Vec<OfferedTuple> = statement::<OfferedColumns>(
        "SELECT t.id, r.name, t.manifest, t.icon FROM repositories r JOIN catalog_templates t ON t.repository_id = r.id AND t.name = ?
         WHERE t.withdrawn_at IS NULL AND (?::text IS NULL OR lower(r.name) = lower(?)) ORDER BY t.id LIMIT 10",
    )
    .bind::<Text, _>(name.to_owned())
    .bind::<Nullable<Text>, _>(repository.map(str::to_owned))
    .bind::<Nullable<Text>, _>(repository.map(str::to_owned))
    .load(tx.conn()?)
    .await?;
    rows.into_iter().map(offer).collect()
}

/// A picture of the catalog.
pub async fn picture(tx: &mut OrgTx, digest: Vec<u8>) -> Result<Option<Icon>> {
    let rows: Vec<(String, Vec<u8>)> =
        statement::<(Text, Bytea)>("SELECT media_type, content FROM catalog_blobs WHERE digest = ?")
            .bind::<Bytea, _>(digest)
            .load(tx.conn()?)
            .await?;
    Ok(rows.into_iter().next().map(|(media_type, content)| Icon { media_type, content }))
}

/// What an installation brought with it.
#[derive(Debug, Clone)]
pub struct Brought {
    /// The template as it is from now on.
    pub manifest: TemplateManifest,
    /// The options as they hold under it.
    pub configuration: Map<String, Value>,
    /// Its icon.
    pub icon: Option<Icon>,
}

/// Ends an installation that was claimed so; false where another try began, or ended it, or it was removed.
pub async fn finish(tx: &mut OrgTx, claimed: &Claimed, brought: Brought, now: DateTime<Utc>) -> Result<bool> {
    let org = tx.org_id();
    let manifest = serde_json::to_value(&brought.manifest).map_err(corrupt)?;
    let (media_type, content) = brought.icon.map(|icon| (icon.media_type, icon.content)).unzip();
    let ended = statement::<()>(
        "UPDATE installed_applications SET install_status = 'installed', install_message = NULL, install_due_at = NULL, manifest = ?,
                configuration = ?, template_display_name = ?, description = ?, category = ?, app_type = ?, icon = ?, icon_media_type = ?, updated_at = ?
         WHERE org_id = ? AND id = ? AND install_attempt = ? AND install_due_at = ? AND install_status = ANY(?) AND removed_at IS NULL",
    )
    .bind::<Jsonb, _>(manifest)
    .bind::<Jsonb, _>(Value::Object(brought.configuration))
    .bind::<Text, _>(brought.manifest.display_name)
    .bind::<Text, _>(brought.manifest.description)
    .bind::<Text, _>(brought.manifest.category)
    .bind::<Text, _>(brought.manifest.app_type)
    .bind::<Nullable<Bytea>, _>(content)
    .bind::<Nullable<Text>, _>(media_type)
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(claimed.id)
    .bind::<Integer, _>(claimed.attempt)
    .bind::<Timestamptz, _>(claimed.lease)
    .bind::<Array<Text>, _>(InstallStatus::Installed.predecessors().to_vec())
    .execute(tx.conn()?)
    .await?;
    if ended == 1 {
        statement::<()>("SELECT catalog_template_installed(catalog_template_id, ?) FROM installed_applications WHERE org_id = ? AND id = ?")
            .bind::<Timestamptz, _>(now)
            .bind::<Uuid, _>(org)
            .bind::<Uuid, _>(claimed.id)
            .execute(tx.conn()?)
            .await?;
    }
    Ok(ended == 1)
}

/// Ends one that comes to nothing, with what is said of it to people; false as for [`finish`].
pub async fn fail(tx: &mut OrgTx, claimed: &Claimed, message: &str, now: DateTime<Utc>) -> Result<bool> {
    let org = tx.org_id();
    let ended = statement::<()>(
        "UPDATE installed_applications SET install_status = 'failed', install_message = ?, install_due_at = NULL, updated_at = ?
         WHERE org_id = ? AND id = ? AND install_attempt = ? AND install_due_at = ? AND install_status = ANY(?) AND removed_at IS NULL",
    )
    .bind::<Text, _>(message.to_owned())
    .bind::<Timestamptz, _>(now)
    .bind::<Uuid, _>(org)
    .bind::<Uuid, _>(claimed.id)
    .bind::<Integer, _>(claimed.attempt)
    .bind::<Timestamptz, _>(claimed.lease)
    .bind::<Array<Text>, _>(InstallStatus::Failed.predecessors().to_vec())
    .execute(tx.conn()?)
    .await?;
    Ok(ended == 1)
}
