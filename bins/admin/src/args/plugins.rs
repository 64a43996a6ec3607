//! The words about plugins.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use semver::Version;
use tidegate_model::{CatalogPluginId, DeliveryStatus, InstalledPluginId, PluginDeliveryId};

/// What to do with plugins.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginVerb {
    /// Every plugin
    List,
    /// One plugin, with its configuration and why it was disabled
    Show {
        /// Number of the plugin, as `plugins list` shows it
        plugin: InstalledPluginId,
    },
    /// Install a plugin: of the catalog, or from an archive of its folder
    Install {
        #[command(flatten)]
        from: From,
        #[command(flatten)]
        options: Options,
        /// Organization that it is for, by id or name [default: the whole platform]
        #[arg(long, value_name = "ORGANIZATION")]
        organization: Option<String>,
        /// Do not let it run yet
        #[arg(long)]
        disabled: bool,
    },
    /// Let a plugin run
    Enable {
        /// Number of the plugin
        plugin: InstalledPluginId,
    },
    /// Let a plugin run no more
    Disable {
        /// Number of the plugin
        plugin: InstalledPluginId,
    },
    /// Configure a plugin anew
    Configure {
        /// Number of the plugin
        plugin: InstalledPluginId,
        /// File with the whole configuration as JSON
        values: PathBuf,
    },
    /// Bring a plugin to another version: of the catalog, or from an archive of its folder
    Upgrade {
        /// Number of the plugin
        plugin: InstalledPluginId,
        /// Archive of the plugin's folder: tar, tar.gz or zip [default: the catalog]
        #[arg(long, value_name = "FILE")]
        archive: Option<PathBuf>,
        #[command(flatten)]
        options: Options,
    },
    /// Bring back what a plugin was before its last upgrade
    Rollback {
        /// Number of the plugin
        plugin: InstalledPluginId,
    },
    /// Uninstall a plugin, with what it kept
    Uninstall {
        /// Number of the plugin
        plugin: InstalledPluginId,
    },
    /// What a plugin was told, the newest first
    Deliveries {
        /// Number of the plugin
        plugin: InstalledPluginId,
        /// pending, delivered or failed
        #[arg(long)]
        status: Option<DeliveryStatus>,
    },
    /// Tell a plugin something again, with the same id
    Redeliver {
        /// Number of the plugin
        plugin: InstalledPluginId,
        /// Id of the delivery
        delivery: PluginDeliveryId,
    },
}

/// Where a plugin comes from.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct From {
    /// Number in the catalog
    #[arg(long, value_name = "NUMBER")]
    pub(crate) catalog: Option<CatalogPluginId>,
    /// Archive of the plugin's folder: tar, tar.gz or zip
    #[arg(long, value_name = "FILE")]
    pub(crate) archive: Option<PathBuf>,
}

/// What it is to be.
#[derive(Debug, ClapArgs)]
pub(crate) struct Options {
    /// File with its configuration as JSON, over the defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) values: Option<PathBuf>,
    /// Something that it asks for and is granted, for example sessions:read; once for each
    #[arg(long = "grant", value_name = "PERMISSION")]
    pub(crate) grants: Vec<String>,
    /// Another version than the newest of the catalog
    #[arg(long)]
    pub(crate) version: Option<Version>,
}
