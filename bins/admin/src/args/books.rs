//! The words about quotas and the audit log.

use std::path::PathBuf;

use clap::{
    Args as ClapArgs, Subcommand,
    builder::{StringValueParser, TypedValueParser as _},
};
use tidegate_service::ExportFormat;

/// What to do with quotas.
#[derive(Debug, Subcommand)]
pub(crate) enum QuotaVerb {
    /// Members of all organizations who have a quota of their own
    List,
    /// What an organization, a member or a group may use, and uses
    Show {
        #[command(flatten)]
        whose: Whose,
    },
    /// Set it, as far as it is given
    Set {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        limits: Limits,
    },
    /// Go back to the default
    Reset {
        #[command(flatten)]
        whose: Whose,
    },
}

/// Whose quota is meant: the organization's own, unless something else is said.
#[derive(Debug, ClapArgs)]
pub(crate) struct Whose {
    /// The organization's id or name
    #[arg(long, value_name = "ORGANIZATION")]
    pub(crate) organization: String,
    /// That of a member, by username
    #[arg(long, value_name = "USERNAME", group = "of")]
    pub(crate) user: Option<String>,
    /// That of a group, by id or name
    #[arg(long, value_name = "GROUP", group = "of")]
    pub(crate) group: Option<String>,
    /// What the platform allows the organization, which its own quota cannot exceed
    #[arg(long, group = "of")]
    pub(crate) ceiling: bool,
}

/// Bounds to set. What they may be, the model says.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = true)]
pub(crate) struct Limits {
    /// Active sessions, or unlimited
    #[arg(long, value_name = "NUMBER", value_parser = sessions)]
    pub(crate) sessions: Option<serde_json::Value>,
    /// CPU of active sessions, for example 4000m, or unlimited
    #[arg(long, value_name = "QUANTITY", value_parser = StringValueParser::new().map(quantity))]
    pub(crate) cpu: Option<serde_json::Value>,
    /// Memory of active sessions, for example 8Gi, or unlimited
    #[arg(long, value_name = "QUANTITY", value_parser = StringValueParser::new().map(quantity))]
    pub(crate) memory: Option<serde_json::Value>,
    /// Persistent homes, for example 50Gi, or unlimited
    #[arg(long, value_name = "QUANTITY", value_parser = StringValueParser::new().map(quantity))]
    pub(crate) storage: Option<serde_json::Value>,
}

const UNLIMITED: &str = "unlimited";

fn sessions(text: &str) -> Result<serde_json::Value, &'static str> {
    if text == UNLIMITED {
        return Ok(serde_json::Value::Null);
    }
    text.parse::<u32>().map(Into::into).map_err(|_| "must be a number such as 5, or unlimited")
}

fn quantity(text: String) -> serde_json::Value {
    if text == UNLIMITED { serde_json::Value::Null } else { text.into() }
}

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// Who did what, the newest first
    List {
        #[command(flatten)]
        which: Which,
        /// Lines at most
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        limit: usize,
    },
    /// Write the whole log, or what fits of it, to a file or to standard output; that is a line of the log itself
    Export {
        #[command(flatten)]
        which: Which,
        /// jsonl, a JSON object a line, or csv, for spreadsheets
        #[arg(long, default_value = "jsonl")]
        format: ExportFormat,
        /// The file, which appears once all is in it and is its owner's alone (0600) [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Which lines: those that fit everything that is said.
#[derive(Debug, ClapArgs)]
pub(crate) struct Which {
    /// Only what this actor did: a username, `console` or `system`
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// Only this action, for example member.remove
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only what was done to this, for example user:ID
    #[arg(long)]
    pub(crate) resource: Option<String>,
    /// From this moment on, for example 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Before this moment
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only the log of this organization; its id or name [default: the platform's and every organization's]
    #[arg(long, value_name = "ORGANIZATION")]
    pub(crate) organization: Option<String>,
}
