//! Plugins out of the catalog: found by their number there, installed and upgraded as those that are brought by hand.

use semver::Version;
use serde_json::Value;
use tidegate_model::{
    CatalogPluginId, FieldErrors, InstallPluginRequest, InstalledPlugin, InstalledPluginId, Operation,
    UpgradePluginRequest,
};
use tidegate_persistence::{
    Operator, PlatformTx,
    catalog::{self, StoredPlugin},
};

use super::{Plugins, Source, find};
use crate::{Caller, Error, Idempotency, Made, Result, error::Named, permissions::require_platform};

impl Plugins {
    /// Installs a plugin of the catalog: the newest version, or the one that is asked for.
    pub async fn install(
        &self,
        caller: &Caller,
        id: CatalogPluginId,
        request: InstallPluginRequest,
        idempotency: Option<&Idempotency>,
        answer: impl Fn(&InstalledPlugin) -> Value + Send + Sync,
    ) -> Result<Made<InstalledPlugin>> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        if request.plugin_id.is_some_and(|named| named != id) {
            return Err(Error::Invalid(FieldErrors::one(
                "pluginId",
                format_args!("is not {id}, which the path names"),
            )));
        }
        let source = self.source(&operator, id, request.version.as_ref()).await?;
        self.install_from(caller, source, request, idempotency, &answer).await
    }

    /// Whether the catalog has a plugin, withdrawn or not: else it is not found.
    pub async fn is_in_catalog(&self, caller: &Caller, id: CatalogPluginId) -> Result<()> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let read = async |tx: &mut PlatformTx| entry(tx, id).await.map(drop);
        self.0.db.in_platform(&operator, read).await
    }

    /// Brings it to another version of the catalog: the newest, or the one that is asked for.
    pub async fn upgrade(
        &self,
        caller: &Caller,
        id: InstalledPluginId,
        request: UpgradePluginRequest,
    ) -> Result<InstalledPlugin> {
        let operator = require_platform(Operation::ManagePlugins, caller)?;
        let found =
            self.0.db.in_platform(&operator, async |tx: &mut PlatformTx| find(tx, id).await).await?.plugin;
        let Some(catalog) = found.catalog_plugin_id else {
            let message =
                format!("{} was brought by hand: bring an archive of its next version, too", found.name);
            return Err(Error::Conflict { code: "E_PLUGIN_VERSION", message });
        };
        let source = self.source(&operator, catalog, request.version.as_ref()).await?;
        self.upgrade_to(caller, id, source, request).await
    }

    async fn source(
        &self,
        operator: &Operator,
        id: CatalogPluginId,
        version: Option<&Version>,
    ) -> Result<Source> {
        let read = async |tx: &mut PlatformTx| {
            let entry = entry(tx, id).await?;
            let newest = entry.plugin.version.clone();
            let wanted = version.unwrap_or(&newest);
            if entry.plugin.withdrawn_at.is_some() && version.is_none() {
                let name = &entry.plugin.name;
                let message = format!(
                    "{name} was withdrawn from its repository: name the version if you want it all the same"
                );
                return Err(Error::Conflict { code: "E_PLUGIN_WITHDRAWN", message });
            }
            let of = &entry.plugin.repository;
            if !of.enabled && version.is_none() {
                let (name, of) = (&entry.plugin.name, &of.name);
                let message = format!(
                    "{name} is of the repository {of}, which is disabled: enable it, or name the version if you want it all the same"
                );
                return Err(Error::Conflict { code: "E_REPOSITORY_DISABLED", message });
            }
            let name = format!("version {wanted} of {}", entry.plugin.name);
            let found = catalog::plugin_version(tx, id, wanted).await.named(name)?;
            let content = catalog::blob(tx, found.package).await?.content;
            Ok(Source { catalog: Some(id), manifest: found.version.manifest, content })
        };
        self.0.db.in_platform(operator, read).await
    }
}

async fn entry(tx: &mut PlatformTx, id: CatalogPluginId) -> Result<StoredPlugin> {
    catalog::plugin(tx, id).await.named(format_args!("plugin {id} of the catalog"))
}
