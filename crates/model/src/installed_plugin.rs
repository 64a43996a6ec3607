//! Plugins that are installed (seed A, `InstalledPlugin`), what is asked of them, and what they were told.

use chrono::{DateTime, Utc};
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    CatalogPluginId, Fields, FromFields, InstalledPluginId, OrgId, PluginDeliveryId, PluginManifest,
    PluginType, text_enum::text_enum,
};

/// A plugin that is installed (seed A, `InstalledPlugin`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstalledPlugin {
    /// Its id.
    pub id: InstalledPluginId,
    /// Where it stands in the catalog; absent where it was uploaded by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog_plugin_id: Option<CatalogPluginId>,
    /// The organization that it is installed for; absent where it is the whole platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<OrgId>,
    /// As in its manifest.
    pub name: String,
    /// The version that is installed.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "1.2.0"))]
    pub version: Version,
    /// Whether it runs.
    pub enabled: bool,
    /// Its configuration, defaults included.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Username of whoever installed it.
    pub installed_by: String,
    /// When it was installed.
    pub installed_at: DateTime<Utc>,
    /// When its configuration, its version or whether it is enabled last changed.
    pub updated_at: DateTime<Utc>,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// Its architecture.
    pub plugin_type: PluginType,
    /// Path of its icon on this server; empty where it has none.
    pub icon_url: String,
    /// All that it says of itself.
    pub manifest: PluginManifest,
    /// What an operator granted to it.
    pub permissions: Vec<String>,
    /// Faults since the last time that it did what it should.
    pub faults: i32,
    /// Why the platform disabled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<String>,
    /// The version that a roll-back brings back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "1.1.0"))]
    pub previous_version: Option<Version>,
}

text_enum! {
    /// What became of an event on its way to a plugin.
    DeliveryStatus, "delivery status" {
        /// It waits to be delivered, for the first time or again.
        Pending = "pending",
        /// The plugin took it.
        Delivered = "delivered",
        /// It was tried for a day and given up.
        Failed = "failed",
    }
}

/// An event on its way to a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PluginDelivery {
    /// The same at every try: `webhook-id` is `msg_` followed by it.
    pub id: PluginDeliveryId,
    /// The plugin.
    pub plugin_id: InstalledPluginId,
    /// Whose event it is; absent where it is the platform's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<OrgId>,
    /// Its name, for example `session.running`.
    pub event: String,
    /// What is sent.
    pub payload: Value,
    /// What became of it.
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub attempts: i32,
    /// When it is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<DateTime<Utc>>,
    /// When the event was handed out.
    pub created_at: DateTime<Utc>,
    /// When it was delivered or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Status of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_status: Option<i32>,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Asks for a plugin of the catalog (seed A, `InstallPluginRequest`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct InstallPluginRequest {
    /// Seed A names the plugin in the body, too: the same as in the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_id: Option<CatalogPluginId>,
    /// Which version. Default: the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub version: Option<Version>,
    /// Over the defaults.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// The organization that it is for. Default: the whole platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<OrgId>,
    /// What it may do: everything that its manifest asks for, named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
    /// Whether it runs at once. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

impl FromFields for InstallPluginRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            plugin_id: fields.optional("pluginId"),
            version: fields.optional("version"),
            config: fields.optional("config").unwrap_or_default(),
            organization_id: fields.optional("organizationId"),
            permissions: fields.optional("permissions").unwrap_or_default(),
            enabled: fields.optional("enabled"),
        })
    }
}

/// Changes a plugin (seed A, `UpdatePluginRequest`). What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UpdatePluginRequest {
    /// Whether it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The whole configuration, over the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Map<String, Value>>,
}

impl FromFields for UpdatePluginRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self { enabled: fields.optional("enabled"), config: fields.optional("config") })
    }
}

/// Brings a plugin to another version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradePluginRequest {
    /// Which version. Default: the newest of the catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub version: Option<Version>,
    /// The whole configuration. Default: the one it has, as far as the new version knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Map<String, Value>>,
    /// What it may do: everything that the new version asks for, named. What was granted before stays so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
}

impl FromFields for UpgradePluginRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            version: fields.optional("version"),
            config: fields.optional("config"),
            permissions: fields.optional("permissions").unwrap_or_default(),
        })
    }
}
