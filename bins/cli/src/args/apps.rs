//! The words about installed applications.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::Value;
use tidegate_model::{AccessLevel, TemplatePlatform};

/// `apps …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AppVerb {
    /// List the applications that you may see
    #[command(alias = "ls")]
    List {
        /// Only what can be started at this moment, and by you; else what you may change, too, in whatever state.
        #[arg(long)]
        mine: bool,
    },
    /// Show an application with its options and the groups that may use it
    Show(AppArg),
    /// Install a template of the catalog
    Install(InstallArgs),
    /// Change an application
    Update(UpdateArgs),
    /// Let people start an application
    Enable(AppArg),
    /// Keep people from starting an application; its sessions go on
    Disable(AppArg),
    /// Remove an application
    #[command(alias = "rm")]
    Remove {
        #[command(flatten)]
        app: AppArg,
        /// End its sessions; else running ones keep it from being removed.
        #[arg(long)]
        force: bool,
    },
    /// Which groups may do what with an application
    #[command(subcommand)]
    Groups(AppGroupVerb),
}

/// `apps groups …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AppGroupVerb {
    /// List them
    #[command(alias = "ls")]
    List(AppArg),
    /// Let a group do something with an application
    Add {
        #[command(flatten)]
        who: AppGroup,
        /// `view`, `launch` or `admin`.
        #[arg(long, default_value = "launch", value_name = "LEVEL")]
        access: AccessLevel,
    },
    /// Give a group that has access another level
    Change {
        #[command(flatten)]
        who: AppGroup,
        /// `view`, `launch` or `admin`.
        #[arg(value_name = "LEVEL")]
        access: AccessLevel,
    },
    /// Take a group's access away
    #[command(alias = "rm")]
    Remove(AppGroup),
}

/// An application.
#[derive(Debug, ClapArgs)]
pub(crate) struct AppArg {
    /// Id, name, or what it is called for people.
    #[arg(value_name = "APPLICATION")]
    pub(crate) app: String,
}

/// An application and a group.
#[derive(Debug, ClapArgs)]
pub(crate) struct AppGroup {
    #[command(flatten)]
    pub(crate) app: AppArg,
    /// Id or name.
    pub(crate) group: String,
}

/// `apps install`.
#[derive(Debug, ClapArgs)]
pub(crate) struct InstallArgs {
    /// The template's name or number in the catalog; `tidegate catalog search` finds them.
    pub(crate) template: String,
    /// What people know it by; what the template calls itself where absent.
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// One of the template's [default: its first one that has an agent].
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<TemplatePlatform>,
    #[command(flatten)]
    pub(crate) options: Settings,
    /// A group whose members may start it, by id or name. May be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// Do not wait until it is installed.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Values of a template's options.
#[derive(Debug, ClapArgs)]
pub(crate) struct Settings {
    /// An option's value, as JSON or else as a text. May be repeated.
    #[arg(long = "set", value_name = "OPTION=VALUE", value_parser = setting)]
    pub(crate) set: Vec<(String, Value)>,
    /// Read options from this file, a JSON object; `--set` is laid over them.
    #[arg(long, value_name = "FILE")]
    pub(crate) options_file: Option<PathBuf>,
}

/// `apps update`.
#[derive(Debug, ClapArgs)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) app: AppArg,
    /// What people know it by.
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    #[command(flatten)]
    pub(crate) options: Settings,
    /// Forget all options but those that are given here.
    #[arg(long)]
    pub(crate) reset: bool,
    /// Install it once more, where that failed.
    #[arg(long)]
    pub(crate) retry: bool,
}

fn setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) =
        text.split_once('=').ok_or("must be OPTION=VALUE, for example homepage=about:blank")?;
    if name.is_empty() {
        return Err("must be OPTION=VALUE, for example homepage=about:blank".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_json_or_a_text() {
        assert_eq!(setting("tabs=3").unwrap(), ("tabs".to_owned(), json!(3)));
        assert_eq!(setting("homepage=about:blank?a=b").unwrap().1, json!("about:blank?a=b"));
        assert_eq!(setting("list=[1,2]").unwrap().1, json!([1, 2]));
        assert_eq!(setting("empty=").unwrap().1, json!(""));
        assert!(setting("tabs").is_err() && setting("=3").is_err());
    }
}
