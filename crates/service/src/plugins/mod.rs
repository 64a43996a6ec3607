//! Plugins: installed, configured, upgraded and ended by operators; running wherever somebody asks for one and its row says
//! that it does. Nothing of it is kept in a process' memory but what its package holds.

mod catalog;
mod check;
mod courier;
mod host;
mod options;
mod package;
mod runtime;
mod serve;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use semver::Version;
use serde_json::{Map, Value, json};
use tidegate_model::{
    CatalogPluginId, DeliveryStatus, FieldErrors, InstallPluginRequest, InstalledPlugin, InstalledPluginId,
    Operation, OrgId, OrgStatus, PluginDelivery, PluginDeliveryId, PluginManifest, UpdatePluginRequest,
    UpgradePluginRequest,
};
use tidegate_persistence::{
    Operator, PlatformTx, audit,
    installed_plugin::{self, New, Previous, Stored},
    organization, plugin_delivery,
};

use crate::{
    Caller, Core, Error, Idempotency, Listed, Made, Nudge, Paging, Result, error::Named, page::moment,
    permissions::require_platform, secrets::random_token,
};
use check::{Place, Wanted};
use package::Package;

pub use options::PluginOptions;
pub(crate) use runtime::Runtime;
pub use serve::{PluginAnswer, PluginAsked, PluginFile, PluginIcon};

/// Plugins of the platform and of its organizations.
#[derive(Debug, Clone)]
pub struct Plugins(pub(crate) Arc<Core>);

/// A package that may become a plugin, and where it came from.
pub(crate) struct Source {
    pub(crate) catalog: Option<CatalogPluginId>,
    pub(crate) manifest: PluginManifest,
    pub(crate) content: Vec<u8>,
}

impl Plugins {
    /// Plugins by name: every one, or those that an organization may use.
    pub async fn list(&self, caller: &Caller, org: Option<OrgId>) -> Result<Vec<InstalledPlugin>> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let listed = async |tx: &mut PlatformTx| installed_plugin::list(tx, org).await;
        let stored = self.0.db.in_platform(&operator, listed).await?;
        Ok(stored.into_iter().map(|stored| stored.plugin).collect())
    }

    /// One plugin.
    pub async fn get(&self, caller: &Caller, id: InstalledPluginId) -> Result<InstalledPlugin> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let found = async |tx: &mut PlatformTx| find(tx, id).await;
        Ok(self.0.db.in_platform(&operator, found).await?.plugin)
    }

    /// What signs the events of a webhook, as its receiver has to know it: `whsec_…`.
    pub async fn secret(&self, caller: &Caller, id: InstalledPluginId) -> Result<String> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let found = self.0.db.in_platform(&operator, async |tx: &mut PlatformTx| find(tx, id).await).await?;
        let none = || Error::not_found(format_args!("a signing secret of plugin {id}"));
        courier::secret_text(&self.0, &found.secret.ok_or_else(none)?)
    }

    /// Installs a package that somebody brings by hand.
    pub async fn upload(
        &self,
        caller: &Caller,
        archive: Vec<u8>,
        request: InstallPluginRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&InstalledPlugin) -> Value + Send + Sync,
    ) -> Result<Made<InstalledPlugin>> {
        require_platform(Operation::ManagePlugins, caller)?;
        let source = brought(archive).await?;
        is_version(request.version.as_ref(), &source.manifest)?;
        self.install_from(caller, source, request, idempotency, &answer).await
    }

    /// Installs what was found somewhere: checked whole, then written at once with what it consists of.
    pub(crate) async fn install_from(
        &self,
        caller: &Caller,
        source: Source,
        request: InstallPluginRequest,
        idempotency: Option<&Idempotency>,
        answer: &(impl Fn(&InstalledPlugin) -> Value + Send + Sync),
    ) -> Result<Made<InstalledPlugin>> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let Source { catalog, manifest, content } = source;
        let org = request.organization_id;
        let digest = package::digest(&content);
        let package = self.package(content.clone()).await?;
        let wanted = Wanted {
            manifest,
            package: &package,
            digest: digest.clone(),
            config: &request.config,
            granted: &request.permissions,
            previous: None,
        };
        let written = check::settle(wanted).map_err(Error::Invalid)?;
        self.loads(&written.manifest, &package).await?;
        let secret = self.0.vault.seal(courier::PLACE, random_token()?.as_bytes())?;
        let (now, name, by) =
            (self.0.clock.now(), written.manifest.name.clone(), caller.user().username().to_owned());
        let made = self
            .0
            .db
            .in_platform(&operator, async |tx| {
                // Before the key is looked for: a repeat that races finds the answer, and not that the plugin is there.
                installed_plugin::take_turns(tx).await?;
                if let Some(key) = idempotency
                    && let Some(replay) = key.find_operators_in(tx, now).await?
                {
                    return Ok(Made::Replay(replay));
                }
                if let Some(org) = org {
                    let found =
                        organization::find_any(tx, org).await.named(format_args!("organization {org}"))?;
                    if found.status == OrgStatus::Deleted {
                        return Err(Error::not_found(format_args!("organization {org}")));
                    }
                }
                let there = there(tx).await?;
                if there.iter().any(|other| {
                    other.name == name
                        && (org.is_none() || other.organization_id.is_none() || other.organization_id == org)
                }) {
                    return Err(installed_already(&name));
                }
                if there.len() >= installed_plugin::MOST {
                    let most = installed_plugin::MOST;
                    let message =
                        format!("{most} plugins are installed, the most there may be: uninstall one first");
                    return Err(Error::Conflict { code: "E_PLUGIN_LIMIT", message });
                }
                let place = Place { name: &name, manifest: &written.manifest, org };
                check::dependencies(&place, &there).into_result().map_err(Error::Invalid)?;
                installed_plugin::put_package(tx, digest, content, now).await?;
                let new = New {
                    catalog_plugin_id: catalog,
                    org_id: org,
                    enabled: request.enabled.unwrap_or(true),
                    written,
                    secret: Some(secret),
                    installed_by: by,
                };
                let id = installed_plugin::insert(tx, new, now).await?;
                if let Some(entry) = catalog {
                    tidegate_persistence::catalog::count_plugin_install(tx, entry, now).await?;
                }
                let made = installed_plugin::find(tx, id).await?.plugin;
                let detail = json!({"after": shown(&made)});
                audit_in(tx, &made, "plugin.install", detail, now).await?;
                if let Some(key) = idempotency {
                    key.keep_operators_in(tx, 201, answer(&made), now).await?;
                }
                Ok::<_, Error>(Made::New(made))
            })
            .await?;
        self.0.nudges.send(Nudge::Plugins);
        Ok(made)
    }

    /// Changes whether it runs, and how it is configured. What is absent stays.
    pub async fn update(
        &self,
        caller: &Caller,
        id: InstalledPluginId,
        change: UpdatePluginRequest,
    ) -> Result<InstalledPlugin> {
        let UpdatePluginRequest { config, enabled } = change;
        if let Some(config) = config {
            let keep = async |old: &Stored| {
                let content = self.content(caller, old).await?;
                let (manifest, granted) = (old.plugin.manifest.clone(), old.plugin.permissions.clone());
                let previous = old.previous.clone();
                Ok(Next { manifest, content, config: config.clone(), granted, previous, enabled })
            };
            return self.replace(caller, id, "plugin.configure", keep).await;
        }
        match enabled {
            Some(on) => self.switch(caller, id, on).await,
            None => self.get(caller, id).await,
        }
    }

    /// Lets it run, on every replica from this moment on.
    pub async fn enable(&self, caller: &Caller, id: InstalledPluginId) -> Result<InstalledPlugin> {
        self.switch(caller, id, true).await
    }

    /// Lets it run no more, on any replica; refused while another one that runs needs it.
    pub async fn disable(&self, caller: &Caller, id: InstalledPluginId) -> Result<InstalledPlugin> {
        self.switch(caller, id, false).await
    }

    async fn switch(&self, caller: &Caller, id: InstalledPluginId, on: bool) -> Result<InstalledPlugin> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let now = self.0.clock.now();
        let changed = self
            .0
            .db
            .in_platform(&operator, async |tx| {
                installed_plugin::take_turns(tx).await?;
                run_or_not(tx, id, on, now).await
            })
            .await?;
        self.0.nudges.send(Nudge::Plugins);
        Ok(changed)
    }

    /// Brings it to another version from an archive that somebody brings by hand.
    pub async fn upgrade_by_hand(
        &self,
        caller: &Caller,
        id: InstalledPluginId,
        archive: Vec<u8>,
        request: UpgradePluginRequest,
    ) -> Result<InstalledPlugin> {
        require_platform(Operation::ManagePlugins, caller)?;
        let source = brought(archive).await?;
        is_version(request.version.as_ref(), &source.manifest)?;
        self.upgrade_to(caller, id, source, request).await
    }

    /// Brings it to what was found somewhere. Its configuration is carried over as far as the new version knows it; what
    /// was before can be brought back.
    pub(crate) async fn upgrade_to(
        &self,
        caller: &Caller,
        id: InstalledPluginId,
        source: Source,
        request: UpgradePluginRequest,
    ) -> Result<InstalledPlugin> {
        let Source { manifest, content, .. } = source;
        let next = async |old: &Stored| {
            let has = &old.plugin;
            if manifest.name != has.name {
                let complaint = format!("is {}, and {} is installed", manifest.name, has.name);
                return Err(Error::Invalid(FieldErrors::one("name", complaint)));
            }
            if manifest.kind != has.plugin_type {
                let complaint = format!(
                    "a plugin of type {} does not become one of type {}",
                    has.plugin_type, manifest.kind
                );
                return Err(Error::Invalid(FieldErrors::one("type", complaint)));
            }
            if manifest.version == has.version {
                let message = format!("{} {} is what is installed", has.name, has.version);
                return Err(Error::Conflict { code: "E_PLUGIN_VERSION", message });
            }
            // What was granted before stays so.
            let mut granted = request.permissions.clone();
            granted
                .extend(has.permissions.iter().filter(|word| manifest.permissions.contains(word)).cloned());
            granted.sort_unstable();
            granted.dedup();
            let config = match &request.config {
                Some(config) => config.clone(),
                None => check::known_part(&manifest, &has.config),
            };
            let previous = Some(Previous {
                manifest: has.manifest.clone(),
                config: has.config.clone(),
                permissions: has.permissions.clone(),
                package: old.package.clone(),
            });
            let (manifest, content) = (manifest.clone(), content.clone());
            Ok(Next { manifest, content, config, granted, previous, enabled: None })
        };
        self.replace(caller, id, "plugin.upgrade", next).await
    }

    /// Brings back what it was before the last upgrade.
    pub async fn roll_back(&self, caller: &Caller, id: InstalledPluginId) -> Result<InstalledPlugin> {
        let next = async |old: &Stored| {
            let Some(before) = &old.previous else {
                let message = format!("{} was not upgraded: there is nothing to bring back", old.plugin.name);
                return Err(Error::Conflict { code: "E_PLUGIN_VERSION", message });
            };
            let system = Operator::system();
            let digest = before.package.clone();
            let read = async |tx: &mut PlatformTx| installed_plugin::package(tx, digest).await;
            let content = self.0.db.in_platform(&system, read).await?;
            Ok(Next {
                manifest: before.manifest.clone(),
                content,
                config: before.config.clone(),
                granted: before.permissions.clone(),
                previous: None,
                enabled: None,
            })
        };
        self.replace(caller, id, "plugin.roll_back", next).await
    }

    /// Uninstalls it, with what it kept; refused while another one needs it.
    pub async fn uninstall(&self, caller: &Caller, id: InstalledPluginId) -> Result<()> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let now = self.0.clock.now();
        self.0
            .db
            .in_platform(&operator, async |tx| {
                installed_plugin::take_turns(tx).await?;
                let (found, there) = (find(tx, id).await?.plugin, there(tx).await?);
                let (name, org) = (found.name.as_str(), found.organization_id);
                let place = Place { name, manifest: &found.manifest, org };
                needed(&found.name, &check::dependents(&place, None, &there))?;
                installed_plugin::delete(tx, id).await?;
                installed_plugin::forget_packages(tx).await?;
                let detail = json!({"before": shown(&found)});
                audit_in(tx, &found, "plugin.uninstall", detail, now).await
            })
            .await?;
        self.0.nudges.send(Nudge::Plugins);
        Ok(())
    }

    /// What it was told, the newest first.
    pub async fn deliveries(
        &self,
        caller: &Caller,
        id: InstalledPluginId,
        status: Option<DeliveryStatus>,
        paging: &Paging,
    ) -> Result<Listed<PluginDelivery>> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let (before, rows) = (paging.after_moment()?, paging.rows());
        let listed = self
            .0
            .db
            .in_platform(&operator, async |tx| {
                find(tx, id).await?;
                Ok::<_, Error>(plugin_delivery::list(tx, id, status, before, rows).await?)
            })
            .await?;
        Ok(paging.page(listed.0, listed.1, |it: &PluginDelivery| moment(it.created_at, it.id)))
    }

    /// Delivers something again, with the same id.
    pub async fn redeliver(
        &self,
        caller: &Caller,
        id: InstalledPluginId,
        delivery: PluginDeliveryId,
    ) -> Result<PluginDelivery> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let now = self.0.clock.now();
        let again = self
            .0
            .db
            .in_platform(&operator, async |tx| {
                let found = find(tx, id).await?.plugin;
                let again = plugin_delivery::again(tx, id, delivery, now);
                let again = again.await.named(format_args!("delivery {delivery}"))?;
                let detail = json!({"delivery": delivery, "event": again.event});
                audit_in(tx, &found, "plugin.redeliver", detail, now).await?;
                Ok::<_, Error>(again)
            })
            .await?;
        self.0.nudges.send(Nudge::Plugins);
        Ok(again)
    }

    async fn content(&self, caller: &Caller, old: &Stored) -> Result<Vec<u8>> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let digest = old.package.clone();
        let read = async |tx: &mut PlatformTx| installed_plugin::package(tx, digest).await;
        Ok(self.0.db.in_platform(&operator, read).await?)
    }

    async fn package(&self, content: Vec<u8>) -> Result<Package> {
        let read = tokio::task::spawn_blocking(move || Package::read(&content)).await;
        let read = read.map_err(Error::internal)?;
        read.map_err(|complaint| Error::Invalid(FieldErrors::one("archive", complaint)))
    }

    /// Refuses a module that could not be run.
    async fn loads(&self, manifest: &PluginManifest, package: &Package) -> Result<()> {
        let Some(path) = check::module_path(manifest) else { return Ok(()) };
        let bytes = package.file(path).unwrap_or_default().to_vec();
        let checked = self.0.plugins.check(bytes).await;
        checked.map_err(|complaint| Error::Invalid(FieldErrors::one(path, complaint)))
    }

    /// Replaces what a plugin is, in one statement: a crash leaves the old or the new. What is slow is done before, and the
    /// row must not have changed meanwhile.
    async fn replace(
        &self,
        caller: &Caller,
        id: InstalledPluginId,
        action: &'static str,
        next: impl AsyncFn(&Stored) -> Result<Next>,
    ) -> Result<InstalledPlugin> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let old = self.0.db.in_platform(&operator, async |tx: &mut PlatformTx| find(tx, id).await).await?;
        let Next { manifest, content, config, granted, previous, enabled } = next(&old).await?;
        let (digest, package) = (package::digest(&content), self.package(content.clone()).await?);
        let wanted = Wanted {
            manifest,
            package: &package,
            digest: digest.clone(),
            config: &config,
            granted: &granted,
            previous,
        };
        let written = check::settle(wanted).map_err(Error::Invalid)?;
        self.loads(&written.manifest, &package).await?;
        let (now, name, org) = (self.0.clock.now(), old.plugin.name.clone(), old.plugin.organization_id);
        let changed = self
            .0
            .db
            .in_platform(&operator, async |tx| {
                installed_plugin::take_turns(tx).await?;
                let (before, there) = (find(tx, id).await?, there(tx).await?);
                if before.revision != old.revision {
                    let message = format!("{name} was changed meanwhile: look at it, and try again");
                    return Err(Error::Conflict { code: "E_PLUGIN_CHANGED", message });
                }
                let place = Place { name: &name, manifest: &written.manifest, org };
                check::dependencies(&place, &there).into_result().map_err(Error::Invalid)?;
                needed(&name, &check::dependents(&place, Some(&written.manifest.version), &there))?;
                installed_plugin::put_package(tx, digest, content, now).await?;
                installed_plugin::update(tx, id, written, now).await?;
                installed_plugin::forget_packages(tx).await?;
                let after = installed_plugin::find(tx, id).await?.plugin;
                let detail = json!({"before": shown(&before.plugin), "after": shown(&after)});
                audit_in(tx, &after, action, detail, now).await?;
                match enabled {
                    Some(on) => Box::pin(run_or_not(tx, id, on, now)).await,
                    None => Ok(after),
                }
            })
            .await?;
        self.0.nudges.send(Nudge::Plugins);
        Ok(changed)
    }
}

/// What an archive of any kind holds, as it is kept.
async fn brought(archive: Vec<u8>) -> Result<Source> {
    let read = tokio::task::spawn_blocking(move || {
        let wrong = |complaint: String| FieldErrors::one("archive", complaint);
        let package = Package::read(&archive).map_err(wrong)?;
        let (manifest, content) = (package.manifest()?, package.to_tar().map_err(wrong)?);
        Ok(Source { catalog: None, manifest, content })
    });
    read.await.map_err(Error::internal)?.map_err(Error::Invalid)
}

/// What a plugin is to become.
struct Next {
    manifest: PluginManifest,
    content: Vec<u8>,
    config: Map<String, Value>,
    granted: Vec<String>,
    previous: Option<Previous>,
    /// Whether it runs from then on; none where that stays as it is.
    enabled: Option<bool>,
}

async fn find(tx: &mut PlatformTx, id: InstalledPluginId) -> Result<Stored> {
    installed_plugin::find(tx, id).await.named(format_args!("plugin {id}"))
}

/// Enables or disables a plugin, if what it needs and who needs it allow that.
async fn run_or_not(
    tx: &mut PlatformTx,
    id: InstalledPluginId,
    on: bool,
    now: DateTime<Utc>,
) -> Result<InstalledPlugin> {
    let (found, there) = (find(tx, id).await?.plugin, there(tx).await?);
    let (name, org) = (found.name.as_str(), found.organization_id);
    let place = Place { name, manifest: &found.manifest, org };
    if on {
        check::dependencies(&place, &there).into_result().map_err(|errors| stands_in_the_way(&errors))?;
    } else {
        let running: Vec<InstalledPlugin> = there.into_iter().filter(|other| other.enabled).collect();
        needed(&found.name, &check::dependents(&place, None, &running))?;
    }
    switch(tx, id, on, None, now).await?;
    Ok(installed_plugin::find(tx, id).await?.plugin)
}

async fn there(tx: &mut PlatformTx) -> Result<Vec<InstalledPlugin>> {
    let stored = installed_plugin::list(tx, None).await?;
    Ok(stored.into_iter().map(|stored| stored.plugin).collect())
}

/// Enables or disables a plugin, with a line in the log where that changed something.
pub(crate) async fn switch(
    tx: &mut PlatformTx,
    id: InstalledPluginId,
    on: bool,
    reason: Option<String>,
    now: DateTime<Utc>,
) -> Result<()> {
    let said = reason.map(|reason| reason.chars().take(500).collect::<String>());
    if !installed_plugin::set_enabled(tx, id, on, said.clone(), now).await? {
        return Ok(());
    }
    let plugin = installed_plugin::find(tx, id).await?.plugin;
    let action = if on { "plugin.enable" } else { "plugin.disable" };
    let detail = json!({"before": {"enabled": !on}, "after": {"enabled": on}, "reason": said});
    audit_in(tx, &plugin, action, detail, now).await
}

/// A line of the platform's log, and of the organization's whose plugin it is.
async fn audit_in(
    tx: &mut PlatformTx,
    plugin: &InstalledPlugin,
    action: &'static str,
    detail: Value,
    at: DateTime<Utc>,
) -> Result<()> {
    let resource = format!("plugin:{}", plugin.name);
    let entry = audit::Entry { action, resource, address: None, detail, at };
    if let Some(org) = plugin.organization_id {
        audit::insert_platform_about(tx, org, entry.clone()).await?;
    }
    Ok(audit::insert_platform(tx, entry).await?)
}

/// What the log says of a plugin: how it is configured is not everybody's to read who reads the log.
fn shown(plugin: &InstalledPlugin) -> Value {
    json!({
        "name": plugin.name, "version": plugin.version, "type": plugin.plugin_type, "enabled": plugin.enabled,
        "permissions": plugin.permissions, "options": plugin.config.keys().collect::<Vec<_>>(),
    })
}

/// Refuses an archive that holds another version than the one that is asked for.
fn is_version(wanted: Option<&Version>, manifest: &PluginManifest) -> Result<()> {
    if wanted.is_none_or(|wanted| *wanted == manifest.version) {
        return Ok(());
    }
    let complaint = format!("the archive holds {}", manifest.version);
    Err(Error::Invalid(FieldErrors::one("version", complaint)))
}

fn installed_already(name: &str) -> Error {
    let message = format!("{name} is installed already: upgrade it, or uninstall it first");
    Error::Conflict { code: "E_PLUGIN_INSTALLED", message }
}

fn stands_in_the_way(errors: &FieldErrors) -> Error {
    Error::Conflict { code: "E_PLUGIN_DEPENDENCIES", message: errors.to_string() }
}

fn needed(name: &str, by: &[String]) -> Result<()> {
    if by.is_empty() {
        return Ok(());
    }
    let message = format!("{name} is needed: {}", by.join("; "));
    Err(Error::Conflict { code: "E_PLUGIN_NEEDED", message })
}
