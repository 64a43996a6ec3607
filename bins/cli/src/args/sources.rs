//! The words about sources and pipes.

use std::{fmt::Display, str::FromStr};

use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use tidegate_model::{Handle, PipeName, Quantity, SourceKind, SourceRight};

/// `source …`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    tidegate source create build\n  \
    tidegate source grant build read --group crew\n  \
    tidegate source show build\n\n\
    Every member may send to a source's inbox, and whoever made the source reads it. Everything else is given with\n\
    `tidegate source grant`.")]
pub(crate) enum SourceVerb {
    /// List the sources of the organization
    #[command(visible_alias = "list")]
    Ls {
        /// All pages, not only the first hundred.
        #[arg(long)]
        all: bool,
    },
    /// Make a source of yours
    Create {
        #[command(flatten)]
        source: SourceArg,
        /// `message` for what gets messages, or `pty` for a terminal that is watched and typed into.
        #[arg(long, default_value = "message")]
        kind: SourceKind,
    },
    /// Show a source with its pipes
    Show(SourceArg),
    /// End a source with its pipes and their messages
    #[command(visible_alias = "delete")]
    Rm(SourceArg),
    /// Give a member, a group or everyone a right to a source of yours
    Grant(GrantArgs),
    /// Take a right to a source of yours away
    Revoke(RevokeArgs),
    /// Show who may do what with a source of yours
    Grants(SourceArg),
}

/// A source.
#[derive(Debug, ClapArgs)]
pub(crate) struct SourceArg {
    /// Its handle: 1 to 32 of a-z, 0-9 and -.
    pub(crate) handle: Handle,
}

/// `source grant`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidegate source grant build read --everyone\n  \
    tidegate source grant build type --user ada")]
#[command(group = ArgGroup::new("to").args(["user", "group", "everyone"]).required(true))]
pub(crate) struct GrantArgs {
    #[command(flatten)]
    pub(crate) source: SourceArg,
    /// `read` its output and the pipes made at it, `write` to the pipes made at it, or `type` into its terminal.
    pub(crate) right: SourceRight,
    #[command(flatten)]
    pub(crate) to: Whom,
}

/// Whose right it is.
#[derive(Debug, ClapArgs)]
#[group(multiple = false)]
pub(crate) struct Whom {
    /// A member of the organization, by username.
    #[arg(long, value_name = "USERNAME")]
    pub(crate) user: Option<String>,
    /// A group with those below it, by id or name.
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Every member of the organization.
    #[arg(long)]
    pub(crate) everyone: bool,
}

/// `source revoke`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidegate source revoke build read --everyone\n  \
    tidegate source revoke build 0197c0de-0000-7000-8000-000000000001")]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    pub(crate) source: SourceArg,
    /// `read`, `write` or `type` of somebody who is named; or the grant's id, as `source grants` shows it.
    #[arg(value_name = "RIGHT|ID")]
    pub(crate) grant: String,
    #[command(flatten)]
    pub(crate) of: Whom,
}

/// `pipe …`.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
    tidegate pipe create build/results --ttl 7d --max-bytes 64Mi\n  \
    tidegate pipe set build/results --max-msgs default\n  \
    tidegate pipe ls build\n\n\
    What is older than a pipe's time, or more than it keeps, is gone, the oldest first.")]
pub(crate) enum PipeVerb {
    /// List the pipes of a source
    #[command(visible_alias = "list")]
    Ls(SourceArg),
    /// Make a pipe at a source of yours
    Create(NewPipeArgs),
    /// Change what a pipe keeps
    Set(PipeSetArgs),
    /// End a pipe with its messages
    #[command(visible_alias = "delete")]
    Rm {
        /// The pipe.
        #[arg(value_name = "HANDLE/PIPE")]
        pipe: At<String>,
    },
}

/// A pipe by its source's handle and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<N> {
    pub(crate) handle: Handle,
    pub(crate) name: N,
}

impl<N: FromStr<Err: Display>> FromStr for At<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = text.split_once('/').filter(|(_, name)| !name.is_empty());
        let (handle, name) = named.ok_or("must be HANDLE/PIPE, for example build/results")?;
        let handle = handle.parse().map_err(|error| format!("a handle {error}"))?;
        Ok(Self { handle, name: name.parse().map_err(|error| format!("a pipe's name {error}"))? })
    }
}

/// `pipe create`.
#[derive(Debug, ClapArgs)]
pub(crate) struct NewPipeArgs {
    /// The source, and what the pipe is to be called: 1 to 32 of a-z, 0-9 and -.
    #[arg(value_name = "HANDLE/PIPE")]
    pub(crate) pipe: At<PipeName>,
    /// For how long it keeps messages, 1s to 365d [default: 24h].
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) ttl: Option<i64>,
    /// How many messages it keeps [default: 5000].
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_msgs: Option<i64>,
    /// How many bytes it keeps, for example 64Mi [default: 16Mi].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) max_bytes: Option<i64>,
}

/// `pipe set`.
#[derive(Debug, ClapArgs)]
pub(crate) struct PipeSetArgs {
    /// The pipe.
    #[arg(value_name = "HANDLE/PIPE")]
    pub(crate) pipe: At<String>,
    #[command(flatten)]
    pub(crate) what: PipeChanges,
}

/// What of a pipe changes.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = true)]
pub(crate) struct PipeChanges {
    /// For how long it keeps messages, 1s to 365d, or `default`.
    #[arg(long, value_name = "TIME", value_parser = or_default(seconds))]
    pub(crate) ttl: Option<Kept>,
    /// How many messages it keeps, or `default`.
    #[arg(long, value_name = "NUMBER", value_parser = or_default(number))]
    pub(crate) max_msgs: Option<Kept>,
    /// How many bytes it keeps, for example 64Mi, or `default`.
    #[arg(long, value_name = "BYTES", value_parser = or_default(bytes))]
    pub(crate) max_bytes: Option<Kept>,
}

/// How much is kept; none for the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept(pub(crate) Option<i64>);

/// Reads the word `default`, or what `read` reads.
fn or_default(
    read: fn(&str) -> Result<i64, String>,
) -> impl Fn(&str) -> Result<Kept, String> + Clone + Send + Sync + 'static {
    move |text| if text == "default" { Ok(Kept(None)) } else { read(text).map(|value| Kept(Some(value))) }
}

fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{text}` must be a whole number, or `default`"))
}

fn seconds(text: &str) -> Result<i64, String> {
    let complaint = || format!("`{text}` must be a number with a unit: 90s, 30m, 12h or 7d");
    let unit = text.chars().last().ok_or_else(complaint)?;
    let number: i64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| complaint())?;
    let length = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(complaint()),
    };
    number.checked_mul(length).filter(|_| number > 0).ok_or_else(complaint)
}

fn bytes(text: &str) -> Result<i64, String> {
    let complaint = || format!("`{text}` must be a number of bytes: 65536, 64Ki, 16Mi or 1Gi");
    let quantity: Quantity = text.parse().map_err(|_| complaint())?;
    quantity.as_units().and_then(|units| i64::try_from(units).ok()).ok_or_else(complaint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        let read: Vec<i64> = ["1s", "30m", "12h", "7d"].map(|text| seconds(text).unwrap()).into();
        assert_eq!(read, [1, 1_800, 43_200, 604_800]);
        for bad in ["", "d", "10", "0s", "-1h", "1w", "1.5h", "5ä", "9223372036854775807d"] {
            assert!(seconds(bad).unwrap_err().contains("7d"), "{bad}");
        }
    }

    #[test]
    fn bytes_are_a_quantity_and_default_is_a_word() {
        assert_eq!(bytes("64Mi"), Ok(64 << 20));
        assert_eq!(bytes("2048"), Ok(2_048));
        for bad in ["", "lots", "-1", "0.5", "9Ei8"] {
            assert!(bytes(bad).unwrap_err().contains("16Mi"), "{bad}");
        }
        assert_eq!(or_default(bytes)("default"), Ok(Kept(None)));
        assert_eq!(or_default(number)("7"), Ok(Kept(Some(7))));
        assert!(or_default(seconds)("Default").is_err());
    }
}
