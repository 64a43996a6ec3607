//! The words of `plugins`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use semver::Version;
use tidegate_model::PluginDeliveryId;

/// `plugins …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PluginsVerb {
    /// List the plugins that are installed
    #[command(alias = "ls")]
    List {
        /// Only those that this organization may use, by id, or by the name of one of yours.
        #[arg(long, value_name = "ORGANIZATION")]
        organization: Option<String>,
    },
    /// Show a plugin, with its configuration and why it was disabled
    Show(PluginArg),
    /// Install a plugin of the catalog
    #[command(disable_version_flag = true)]
    Install(InstallPluginArgs),
    /// Let a plugin run
    Enable(PluginArg),
    /// Let a plugin run no more
    Disable(PluginArg),
    /// Configure a plugin anew
    Configure {
        #[command(flatten)]
        plugin: PluginArg,
        /// File with the whole configuration, a JSON object.
        #[arg(value_name = "FILE")]
        values: PathBuf,
    },
    /// Bring a plugin to another version of the catalog
    #[command(disable_version_flag = true)]
    Upgrade {
        #[command(flatten)]
        plugin: PluginArg,
        #[command(flatten)]
        wanted: PluginWanted,
    },
    /// Bring back what a plugin was before its last upgrade
    Rollback(PluginArg),
    /// Uninstall a plugin, with what it kept
    #[command(alias = "rm")]
    Uninstall(PluginArg),
    /// What a plugin was told, the newest first
    Deliveries {
        #[command(flatten)]
        plugin: PluginArg,
        /// All of them, instead of the newest hundred.
        #[arg(long)]
        all: bool,
    },
    /// Tell a plugin something again, with the same id
    Redeliver {
        #[command(flatten)]
        plugin: PluginArg,
        /// Id of the delivery.
        delivery: PluginDeliveryId,
    },
}

/// A plugin that is installed.
#[derive(Debug, ClapArgs)]
pub(crate) struct PluginArg {
    /// Number or name.
    pub(crate) plugin: String,
}

/// `plugins install`.
#[derive(Debug, ClapArgs)]
pub(crate) struct InstallPluginArgs {
    /// Name or number in the catalog; `tidegate catalog search --plugins` finds them.
    pub(crate) entry: String,
    #[command(flatten)]
    pub(crate) wanted: PluginWanted,
    /// Organization that it is for, by id, or by the name of one of yours [default: the whole platform]
    #[arg(long, value_name = "ORGANIZATION")]
    pub(crate) organization: Option<String>,
    /// Do not let it run yet.
    #[arg(long)]
    pub(crate) disabled: bool,
}

/// What it is to be.
#[derive(Debug, ClapArgs)]
pub(crate) struct PluginWanted {
    /// File with its configuration, a JSON object that is laid over the defaults.
    #[arg(long, value_name = "FILE")]
    pub(crate) values: Option<PathBuf>,
    /// Something that it asks for and is granted, for example sessions:read. May be repeated.
    #[arg(long = "grant", value_name = "PERMISSION")]
    pub(crate) grants: Vec<String>,
    /// Another version than the newest.
    #[arg(long)]
    pub(crate) version: Option<Version>,
}
