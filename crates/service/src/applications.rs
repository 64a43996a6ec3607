//! Installed applications: templates of the catalog that an organization made its own. Those who manage them install, change
//! and remove them, and say which groups may see, launch and change which; whoever no group lets in finds nothing.

mod groups;
mod install;

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tidegate_model::{
    AccessLevel, ApplicationId, InstallApplicationRequest, InstallStatus, InstalledApplication, Operation,
    OrgRole, Scope, SessionState, TemplateManifest, TemplatePlatform, UpdateApplicationRequest,
};
use tidegate_persistence::{
    Error as DbError, OrgScope, OrgTx,
    application::{self, Change, Found, Icon, Looking, NewApplication, Page},
    audit, group,
    session_end::EndOf,
};

use crate::{
    Core, Error, Idempotency, Listed, Made, Nudge, Paging, Result,
    error::Named,
    launch::{self, Source},
    organizations::{conflict, end_sessions_in},
    permissions::{require, standing},
};

pub use groups::ChangedAccess;

/// Installed applications of an organization.
#[derive(Debug, Clone)]
pub struct Applications(pub(crate) Arc<Core>);

/// Which applications are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplicationsPage {
    /// What the caller may see, with what they may change in whatever state it is.
    Organization,
    /// What the caller may see and somebody can launch at this moment.
    Users,
}

/// What becomes of the sessions of an application that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// They keep it from being removed while they run. Those that sleep stay, and can be woken.
    Refused,
    /// They are ended, those that sleep too.
    Forced,
}

/// Applications of an organization at most.
const MOST: i64 = 1_000;
/// Sessions in these states keep an application from being removed.
const RUNNING: &[SessionState] =
    &[SessionState::Pending, SessionState::Running, SessionState::Waking, SessionState::Hibernating];

impl Applications {
    /// Asks for the installation of a template. It is installed in a moment, or fails and says why.
    pub async fn install(
        &self,
        scope: &OrgScope,
        request: InstallApplicationRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&InstalledApplication) -> Value + Send + Sync,
    ) -> Result<Made<InstalledApplication>> {
        let (core, now) = (&self.0, self.0.clock.now());
        require(Operation::ManageApplications, standing(scope, scope.role()))?;
        let new = match self.read(scope, &request, now).await {
            Ok(new) => new,
            // What was installed by the first request may not be offered any more.
            Err(error) => {
                return Idempotency::replay_or(idempotency, core, scope, error).await.map(Made::Replay);
            }
        };
        let made = core
            .db
            .in_org_locked(scope, async |tx, locked| {
                let locked = locked.named("organization")?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_in(tx, now).await?
                {
                    return Ok(Made::Replay(replay));
                }
                require(Operation::ManageApplications, standing(scope, locked.role))?;
                if application::count(tx).await? >= MOST {
                    let message =
                        format!("the organization has {MOST} applications already: remove some of them");
                    return Err(conflict("E_TOO_MANY_APPLICATIONS", &message));
                }
                let id = new.id;
                application::insert(tx, new).await?;
                for group in &request.group_ids {
                    group::find(tx, *group).await.named(format_args!("group {group}"))?;
                    application::put_group(tx, id, (*group, AccessLevel::Launch), now).await?;
                }
                let made = application::find(tx, id, looking(scope, locked.role)).await?;
                let mut after = shown(&made);
                after["groups"] = json!(request.group_ids);
                audit_in(tx, "application.install", id, json!({"after": after}), now).await?;
                let made = whole(made);
                if let Some(key) = idempotency {
                    key.keep_in(tx, 201, answer(&made), now).await?;
                }
                Ok(Made::New(made))
            })
            .await?;
        core.nudges.send(Nudge::Installation);
        Ok(made)
    }

    /// What is to be installed, held against the template: outside of the transaction that installs it, because a schema is
    /// read for it.
    async fn read(
        &self,
        scope: &OrgScope,
        request: &InstallApplicationRequest,
        now: DateTime<Utc>,
    ) -> Result<NewApplication> {
        let what = format!("catalog template {}", request.catalog_template_id);
        let (offered, served) = self
            .0
            .db
            .in_org(scope, async |tx| {
                let offered = application::offered(tx, request.catalog_template_id).await.named(&what)?;
                let served = application::first_served(tx, &launch::runnable(&offered.manifest)).await?;
                Ok::<_, Error>((offered, served))
            })
            .await?;
        let manifest = offered.manifest;
        let platform = match request.platform {
            Some(platform) => platform,
            None => launch::default_platform(&manifest, served)?,
        };
        let mut errors = tidegate_model::FieldErrors::new();
        if let Some(complaint) = launch::why_not(&manifest, platform) {
            errors.add("platform", complaint);
        }
        let configuration = match settled(&manifest, &request.configuration, platform) {
            Ok(configuration) => configuration,
            Err(Error::Invalid(complaints)) => {
                complaints.iter().for_each(|(path, complaint)| errors.add(path, complaint));
                Map::new()
            }
            Err(error) => return Err(error),
        };
        errors.into_result().map_err(Error::Invalid)?;
        let id = ApplicationId::new();
        // The end of a UUIDv7 is random.
        let digits = id.as_uuid().simple().to_string().split_off(24);
        let name = format!("{}-{digits}", manifest.name);
        Ok(NewApplication {
            id,
            template: offered.id,
            display_name: request.display_name.clone().unwrap_or_else(|| manifest.display_name.clone()),
            folder_path: format!("apps/{name}"),
            name,
            platform,
            configuration,
            created_by: scope.user_id(),
            manifest,
            now,
        })
    }

    /// The applications that the caller may see, by name.
    pub async fn list(
        &self,
        scope: &OrgScope,
        which: ApplicationsPage,
        paging: &Paging,
    ) -> Result<Listed<InstalledApplication>> {
        require(Operation::ReadApplications, standing(scope, scope.role()))?;
        let page = Page {
            looking: looking(scope, scope.role()),
            ready: which == ApplicationsPage::Users,
            after: paging.after()?.unwrap_or_default(),
            limit: paging.rows(),
        };
        let (items, total) = self.0.db.in_org(scope, async |tx| application::list(tx, &page).await).await?;
        let items = items.into_iter().map(|application| for_key(scope, application)).collect();
        Ok(paging.page(items, total, |application| application.name.clone()))
    }

    /// One application, for whoever may see it.
    pub async fn get(&self, scope: &OrgScope, id: ApplicationId) -> Result<InstalledApplication> {
        let right = looking(scope, scope.role());
        let found = self.0.db.in_org(scope, async |tx| seen_in(tx, id, right).await).await?;
        Ok(for_key(scope, whole(found)))
    }

    /// The picture of an application, for whoever may see it.
    pub async fn icon(&self, scope: &OrgScope, id: ApplicationId) -> Result<Icon> {
        let right = looking(scope, scope.role());
        self.0
            .db
            .in_org(scope, async |tx| {
                seen_in(tx, id, right).await?;
                application::icon(tx, id).await.named(format_args!("an icon of application {id}"))
            })
            .await
    }

    /// Changes an application, for those who manage them and for groups with access `admin`. One whose installation failed is
    /// installed once more.
    pub async fn update(
        &self,
        scope: &OrgScope,
        id: ApplicationId,
        request: UpdateApplicationRequest,
    ) -> Result<InstalledApplication> {
        let (core, now) = (&self.0, self.0.clock.now());
        let (settled, fits) = match &request.configuration {
            Some(given) => {
                let (manifest, platform) = self.to_fit(scope, id).await?;
                (Some(settled(&manifest, given, platform)?), Some(manifest))
            }
            None => (None, None),
        };
        let changed = core
            .db
            .in_org_locked(scope, async |tx, locked| {
                let right = looking(scope, locked.named("organization")?.role);
                let before = changeable_in(tx, id, right).await?;
                let again = match before.application.install_status {
                    InstallStatus::Pending | InstallStatus::Creating if settled.is_some() => {
                        let name = &before.application.display_name;
                        let message =
                            format!("application {name} is being installed: configure it in a moment");
                        return Err(conflict("E_APPLICATION_INSTALLING", &message));
                    }
                    // Installed anew since they were held against what it was.
                    InstallStatus::Installed if fits.is_some_and(|fits| fits != before.manifest) => {
                        let name = &before.application.display_name;
                        let message =
                            format!("application {name} was installed meanwhile: look at it, and try again");
                        return Err(conflict("E_APPLICATION_CHANGED", &message));
                    }
                    InstallStatus::Failed => true,
                    InstallStatus::Pending | InstallStatus::Creating | InstallStatus::Installed => false,
                };
                let action = match (request.enabled, &request.display_name, &settled) {
                    (Some(true), None, None) => "application.enable",
                    (Some(false), None, None) => "application.disable",
                    _ => "application.update",
                };
                let change = Change {
                    display_name: request.display_name,
                    enabled: request.enabled,
                    configuration: settled,
                };
                application::update(tx, id, change, now).await?;
                let retried = again && application::retry(tx, id, now).await?;
                let after = application::find(tx, id, right).await?;
                let detail = json!({
                    "before": shown(&before), "after": shown(&after), "changedOptions": changed_options(&before, &after),
                    "installedAgain": retried,
                });
                audit_in(tx, action, id, detail, now).await?;
                Ok::<_, Error>(whole(after))
            })
            .await?;
        if changed.install_status == InstallStatus::Pending {
            core.nudges.send(Nudge::Installation);
        }
        Ok(changed)
    }

    /// What the options of an application must fit: the template as it was installed. One that is still to be installed, or
    /// came to nothing, is given the catalog's as it is now, if it is there.
    async fn to_fit(
        &self,
        scope: &OrgScope,
        id: ApplicationId,
    ) -> Result<(TemplateManifest, TemplatePlatform)> {
        let right = looking(scope, scope.role());
        self.0
            .db
            .in_org(scope, async |tx| {
                let Found { application, manifest, .. } = changeable_in(tx, id, right).await?;
                let manifest = match application.install_status {
                    InstallStatus::Installed => manifest,
                    InstallStatus::Pending | InstallStatus::Creating | InstallStatus::Failed => {
                        match application::offered(tx, application.catalog_template_id).await {
                            Err(DbError::NotFound) => manifest,
                            offered => offered?.manifest,
                        }
                    }
                };
                Ok((manifest, application.platform))
            })
            .await
    }

    /// Removes an application, with everybody's access to it.
    pub async fn remove(&self, scope: &OrgScope, id: ApplicationId, removal: Removal) -> Result<()> {
        let (core, now) = (&self.0, self.0.clock.now());
        let agents = core
            .db
            // Under the organization's lock: no session of it is started meanwhile.
            .in_org_locked(scope, async |tx, locked| {
                let role = locked.named("organization")?.role;
                let before = managed_in(tx, scope, role, id, looking(scope, role)).await?;
                let name = &before.application.display_name;
                let running = application::sessions_in(tx, id, RUNNING).await?;
                let mut agents = Vec::new();
                if removal == Removal::Forced {
                    let reason = format!("application {name} was removed by {}", scope.username());
                    agents = end_sessions_in(core, tx, EndOf::Application(id), &reason, now).await?;
                } else if running > 0 {
                    let many = if running > 100 { "more than 100".to_owned() } else { running.to_string() };
                    let message = format!(
                        "sessions of application {name} are running: {many}; end them first, or remove it with force=true, which ends them"
                    );
                    return Err(conflict("E_APPLICATION_IN_USE", &message));
                }
                application::remove(tx, id, now).await?;
                let detail = json!({"before": shown(&before), "forced": removal == Removal::Forced, "sessionsRunning": running});
                audit_in(tx, "application.remove", id, detail, now).await?;
                Ok::<_, Error>(agents)
            })
            .await?;
        core.ended(agents);
        Ok(())
    }
}

/// By what right the caller looks at applications, whose role is `role` at this moment.
fn looking(scope: &OrgScope, role: OrgRole) -> Looking {
    let manages = Operation::ManageApplications.allows(standing(scope, role));
    Looking { user: scope.user_id(), manages }
}

/// The options as they hold, if a program can be told of them.
fn settled(
    manifest: &TemplateManifest,
    given: &Map<String, Value>,
    platform: TemplatePlatform,
) -> Result<Map<String, Value>> {
    let configuration = launch::settle(manifest, given)?;
    launch::check(&Source { manifest, configuration: &configuration, platform, application: None })?;
    Ok(configuration)
}

/// An application with all that its caller may see of it.
fn whole(found: Found) -> InstalledApplication {
    let changes = found.application.access == AccessLevel::Admin;
    let manifest = serde_json::to_string(&found.manifest).ok().filter(|_| changes);
    InstalledApplication { manifest, ..found.application }
}

/// The same for an API key: one that was made to start sessions learns nothing of what its owner may change.
fn for_key(scope: &OrgScope, application: InstalledApplication) -> InstalledApplication {
    let scopes = scope.scopes();
    if scopes.allow(Scope::OrgRead) || scopes.allow(Scope::OrgWrite) {
        return application;
    }
    InstalledApplication { configuration: None, manifest: None, groups: None, ..application }
}

/// An application that the caller may see: what cannot be launched is seen by those alone who may change it.
async fn seen_in(tx: &mut OrgTx, id: ApplicationId, looking: Looking) -> Result<Found> {
    let what = format!("application {id}");
    let found = application::find(tx, id, looking).await.named(&what)?;
    let it = &found.application;
    let ready = it.enabled && it.install_status == InstallStatus::Installed;
    if ready || it.access == AccessLevel::Admin { Ok(found) } else { Err(Error::not_found(what)) }
}

/// An application that the caller may change.
async fn changeable_in(tx: &mut OrgTx, id: ApplicationId, looking: Looking) -> Result<Found> {
    let found = seen_in(tx, id, looking).await?;
    if found.application.access == AccessLevel::Admin {
        return Ok(found);
    }
    let who = Operation::ManageApplications.who();
    Err(Error::Forbidden(format!("this needs {who}, or a group that has access `admin` to the application")))
}

/// An application for those who manage them.
async fn managed_in(
    tx: &mut OrgTx,
    scope: &OrgScope,
    role: OrgRole,
    id: ApplicationId,
    looking: Looking,
) -> Result<Found> {
    let found = seen_in(tx, id, looking).await?;
    require(Operation::ManageApplications, standing(scope, role))?;
    Ok(found)
}

/// What the audit log says of an application: which options are set, and not to what. They may be secrets, and the log is
/// read by more people, told to plugins, and kept longer.
fn shown(found: &Found) -> Value {
    let it = &found.application;
    json!({
        "name": it.name, "displayName": it.display_name, "template": it.template_name, "catalogTemplateId": it.catalog_template_id,
        "platform": it.platform, "enabled": it.enabled, "installStatus": it.install_status,
        "options": found.configuration.keys().collect::<Vec<_>>(),
    })
}

/// The names of the options that are not what they were.
fn changed_options(before: &Found, after: &Found) -> Vec<String> {
    let (before, after) = (&before.configuration, &after.configuration);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

async fn audit_in(
    tx: &mut OrgTx,
    action: &'static str,
    id: ApplicationId,
    detail: Value,
    at: DateTime<Utc>,
) -> Result<()> {
    let resource = format!("application:{id}");
    Ok(audit::insert_org(tx, audit::Entry { action, resource, address: None, detail, at }).await?)
}
