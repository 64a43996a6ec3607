//! The words of `catalog`.

use clap::{Args as ClapArgs, Subcommand};
use tidegate_model::{AppType, CatalogSort, PluginType};

/// `catalog …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CatalogVerb {
    /// Search templates, or plugins
    #[command(visible_alias = "ls")]
    Search(CatalogSearchArgs),
    /// Show a template, or a plugin, and what people think of it
    Show(CatalogEntry),
    /// Rate a template, or a plugin; a second rating replaces the first
    Rate(RateArgs),
}

/// What is looked for.
#[derive(Debug, ClapArgs)]
pub(crate) struct CatalogSearchArgs {
    /// Words, their beginnings, or what is nearly the same; everything without any.
    #[arg(value_name = "WORDS")]
    pub(crate) words: Vec<String>,
    /// Plugins instead of templates.
    #[arg(long)]
    pub(crate) plugins: bool,
    /// In this category only.
    #[arg(long, value_name = "NAME")]
    pub(crate) category: Option<String>,
    /// With this tag only.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Templates of this kind only: desktop, webapp or terminal.
    #[arg(long, value_name = "KIND", conflicts_with = "plugins")]
    pub(crate) app_type: Option<AppType>,
    /// Plugins of this kind only: extension, webhook, api, ui or theme.
    #[arg(long = "type", value_name = "KIND", requires = "plugins")]
    pub(crate) plugin_type: Option<PluginType>,
    /// relevance, popular, rating, newest or name.
    #[arg(long, value_name = "ORDER")]
    pub(crate) sort: Option<CatalogSort>,
    /// All pages, not only the first hundred.
    #[arg(long)]
    pub(crate) all: bool,
}

/// One entry.
#[derive(Debug, ClapArgs)]
pub(crate) struct CatalogEntry {
    /// Its name, or its number as `catalog search` shows it.
    #[arg(value_name = "NAME")]
    pub(crate) entry: String,
    /// A plugin instead of a template.
    #[arg(long)]
    pub(crate) plugin: bool,
}

/// A rating.
#[derive(Debug, ClapArgs)]
pub(crate) struct RateArgs {
    #[command(flatten)]
    pub(crate) what: CatalogEntry,
    /// 1 to 5.
    #[arg(value_parser = clap::value_parser!(u8).range(1..=5), required_unless_present = "remove")]
    pub(crate) stars: Option<u8>,
    /// Why, in your words.
    #[arg(long, value_name = "TEXT", conflicts_with = "remove")]
    pub(crate) review: Option<String>,
    /// Take your rating back instead.
    #[arg(long, conflicts_with = "stars")]
    pub(crate) remove: bool,
}
