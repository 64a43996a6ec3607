//! The words about shared terminals.

use chrono::{DateTime, Utc};
use clap::Args as ClapArgs;
use tidegate_model::Handle;

use super::run::Resume;

/// `view`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    tidegate view build\n  \
    tidegate view build --from-now\n  \
    tidegate view build --search error\n  \
    tidegate view build --replay --speed 4 --pause 2\n  \
    tidegate view build > build.raw\n\n\
    Everybody who may read the source sees everything: nobody's place moves. It ends with the program, and leaves 0 whatever\n\
    the program's exit code is, which is said; ctrl-c and the detach key leave it. With --json every message is a line.\n\n\
    Exit codes:\n  \
    0  the program ended, or was left; lines were found\n  \
    1  something else did not work\n  \
    2  the command line is wrong\n  \
    3  refused: no such source, or not for you, or no longer logged in\n  \
    4  no answer\n  \
    5  no room is left for what it needs\n  \
    6  with --search: no line was found")]
pub(crate) struct ViewArgs {
    /// The source's handle.
    pub(crate) handle: Handle,
    /// Leave out what was written before.
    #[arg(long, conflicts_with_all = ["since", "search", "replay"])]
    pub(crate) from_now: bool,
    /// Leave out what was written before this moment, for example 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<DateTime<Utc>>,
    /// Write the lines of what is kept that have this text, without colours and the like, and end.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["replay", "stay"])]
    pub(crate) search: Option<String>,
    /// Show what is kept at the speed at which it was written, and end.
    #[arg(long, conflicts_with = "stay")]
    pub(crate) replay: bool,
    /// How many times as fast.
    #[arg(long, value_name = "FACTOR", default_value = "1", requires = "replay", value_parser = speed)]
    pub(crate) speed: f64,
    /// Make pauses no longer than so many seconds.
    #[arg(long, value_name = "SECONDS", requires = "replay")]
    pub(crate) pause: Option<u64>,
    /// Wait for the next program where one has ended.
    #[arg(long)]
    pub(crate) stay: bool,
    #[command(flatten)]
    pub(crate) resume: Resume,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (0.01..=1_000.0).contains(&speed) => Ok(speed),
        _ => Err("a speed is a number from 0.01 to 1000, for example 2".to_owned()),
    }
}
