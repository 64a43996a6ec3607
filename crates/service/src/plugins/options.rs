//! Settings of plugins.

use ipnet::IpNet;

/// Settings with their defaults.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginOptions {
    /// Networks of one's own that plugins may send to, for example `["10.0.0.0/8"]`. Default none.
    #[serde(deserialize_with = "tidegate_repositories::networks")]
    pub private_networks: Vec<IpNet>,
    /// Seconds that a webhook's receiver has to answer. Default 15.
    pub webhook_seconds: u32,
    /// Modules that run at one time, each on a thread of its own. Default 2.
    pub workers: usize,
    /// Faults one after the other that disable a plugin. Default 5.
    pub faults: u32,
}

impl Default for PluginOptions {
    fn default() -> Self {
        Self { private_networks: Vec::new(), webhook_seconds: 15, workers: 2, faults: 5 }
    }
}
