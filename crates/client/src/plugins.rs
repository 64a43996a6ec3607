//! Plugins of the platform and of its organizations, for operators.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use tidegate_model::{
    CatalogPluginId, InstallPluginRequest, InstalledPlugin, InstalledPluginId, OrgId, PluginDelivery,
    PluginDeliveryId, UpdatePluginRequest, UpgradePluginRequest,
};

use crate::{Client, Error, call::Call};

/// Plugins that are installed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstalledPlugins {
    /// By name.
    pub plugins: Vec<InstalledPlugin>,
    /// How many there are.
    pub total: u64,
}

/// One page of deliveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryPage {
    /// The newest first.
    pub deliveries: Vec<PluginDelivery>,
    /// How many there are on all pages.
    pub total: u64,
    /// What asks for the next page; `None` on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

impl Client {
    /// `GET plugins`: every one, or those that an organization may use.
    pub async fn plugins(&self, org: Option<OrgId>) -> Result<InstalledPlugins, Error> {
        let org = org.map(|org| org.to_string());
        self.fetch(Call::get(&["plugins"]).query_if("organizationId", org.as_deref())).await
    }

    /// `GET plugins/{id}`.
    pub async fn plugin(&self, id: InstalledPluginId) -> Result<InstalledPlugin, Error> {
        self.fetch(Call::get(&["plugins", &id.to_string()])).await
    }

    /// `GET plugins/{id}/icon`: the picture.
    pub async fn plugin_icon(&self, id: InstalledPluginId) -> Result<Vec<u8>, Error> {
        let response = self.send(&Call::get(&["plugins", &id.to_string(), "icon"])).await?;
        self.read_any(response).await
    }

    /// `POST plugins/catalog/{id}/install`.
    pub async fn install_plugin(
        &self,
        id: CatalogPluginId,
        request: &InstallPluginRequest,
    ) -> Result<InstalledPlugin, Error> {
        let id = id.to_string();
        self.fetch(Call::new(Method::POST, &["plugins", "catalog", &id, "install"]).json(request)?).await
    }

    /// `PATCH plugins/{id}`.
    pub async fn update_plugin(
        &self,
        id: InstalledPluginId,
        request: &UpdatePluginRequest,
    ) -> Result<InstalledPlugin, Error> {
        self.fetch(Call::new(Method::PATCH, &["plugins", &id.to_string()]).json(request)?).await
    }

    /// `POST plugins/{id}/enable`.
    pub async fn enable_plugin(&self, id: InstalledPluginId) -> Result<InstalledPlugin, Error> {
        self.fetch(Call::new(Method::POST, &["plugins", &id.to_string(), "enable"])).await
    }

    /// `POST plugins/{id}/disable`.
    pub async fn disable_plugin(&self, id: InstalledPluginId) -> Result<InstalledPlugin, Error> {
        self.fetch(Call::new(Method::POST, &["plugins", &id.to_string(), "disable"])).await
    }

    /// `POST plugins/{id}/upgrade`, to a version of the catalog.
    pub async fn upgrade_plugin(
        &self,
        id: InstalledPluginId,
        request: &UpgradePluginRequest,
    ) -> Result<InstalledPlugin, Error> {
        self.fetch(Call::new(Method::POST, &["plugins", &id.to_string(), "upgrade"]).json(request)?).await
    }

    /// `POST plugins/{id}/rollback`.
    pub async fn roll_back_plugin(&self, id: InstalledPluginId) -> Result<InstalledPlugin, Error> {
        self.fetch(Call::new(Method::POST, &["plugins", &id.to_string(), "rollback"])).await
    }

    /// `DELETE plugins/{id}`.
    pub async fn uninstall_plugin(&self, id: InstalledPluginId) -> Result<(), Error> {
        self.send(&Call::new(Method::DELETE, &["plugins", &id.to_string()])).await.map(drop)
    }

    /// `GET plugins/{id}/deliveries`, one page: at most 100, from `cursor` on.
    pub async fn plugin_deliveries(
        &self,
        id: InstalledPluginId,
        cursor: Option<&str>,
    ) -> Result<DeliveryPage, Error> {
        let call = Call::get(&["plugins", &id.to_string(), "deliveries"]);
        self.fetch(call.query("limit", "100".to_owned()).query_if("cursor", cursor)).await
    }

    /// `POST plugins/{id}/deliveries/{deliveryId}/redeliver`.
    pub async fn redeliver(
        &self,
        id: InstalledPluginId,
        delivery: PluginDeliveryId,
    ) -> Result<PluginDelivery, Error> {
        let (id, delivery) = (id.to_string(), delivery.to_string());
        self.fetch(Call::new(Method::POST, &["plugins", &id, "deliveries", &delivery, "redeliver"])).await
    }
}
