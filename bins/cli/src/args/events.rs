//! The words of `events`.

use clap::Args as ClapArgs;
use tidegate_model::{EventId, EventKind};

/// `events`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "For example:\n  \
    tidegate events --kind session\n  \
    tidegate events --after 0-0 --json | jq .\n\n\
    Every event has an id: --after goes on where an earlier one ended, without a gap and without a repeat.")]
pub(crate) struct EventArgs {
    /// Only of this session: id, beginning of the id, or name.
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
    /// Only of these kinds, with commas between: session, command, and for operators agent.
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    pub(crate) kinds: Vec<EventKind>,
    /// Begin after the event with this id, with 0-0 at the oldest that is kept; absent: now.
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<EventId>,
}
