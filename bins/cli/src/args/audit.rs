//! The words about the audit log.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use tidegate_client::{AuditOf, AuditQuery};

/// `audit …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// List who did what, the newest first
    #[command(alias = "list")]
    Ls(AuditListArgs),
    /// Write the whole log, or what fits of it, to a file or to standard output
    Export(AuditExportArgs),
}

/// Which lines.
#[derive(Debug, ClapArgs)]
pub(crate) struct Which {
    /// Only what this actor did: a username, `console` or `system`.
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only this action, for example member.remove.
    #[arg(long)]
    action: Option<String>,
    /// Only what was done to this, for example user:ID.
    #[arg(long)]
    resource: Option<String>,
    /// From this moment on, for example 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this moment.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The log of this organization, by id or name; for operators.
    #[arg(long, value_name = "ORGANIZATION", conflicts_with = "everywhere")]
    of: Option<String>,
    /// The log of the platform and of every organization; for operators.
    #[arg(long)]
    everywhere: bool,
}

impl Which {
    /// Whose log is asked for, and for which lines.
    pub(crate) fn split(self) -> (AuditOf, AuditQuery) {
        let of = match self.of {
            Some(org) => AuditOf::Organization(org),
            None if self.everywhere => AuditOf::Everybody,
            None => AuditOf::Chosen,
        };
        let Self { actor, action, resource, since, until, .. } = self;
        (of, AuditQuery { actor, action, resource, since, until })
    }
}

/// `audit ls`.
#[derive(Debug, ClapArgs)]
pub(crate) struct AuditListArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Lines at most, 1 to 100.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: u32,
}

/// `audit export`.
#[derive(Debug, ClapArgs)]
pub(crate) struct AuditExportArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// What it is written as.
    #[arg(long, value_enum, default_value_t = AuditFormat::Jsonl)]
    pub(crate) format: AuditFormat,
    /// The file, which appears once all is in it; standard output where absent.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What an export is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditFormat {
    /// A JSON object a line.
    Jsonl,
    /// For spreadsheets.
    Csv,
}

impl AuditFormat {
    /// Its name on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}
