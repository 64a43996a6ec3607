//! The words of `homes`.

use clap::Subcommand;
use tidegate_model::HomeId;

/// `homes …`.
#[derive(Debug, Subcommand)]
pub(crate) enum HomeVerb {
    /// List your persistent homes, or everybody's if you manage their sessions
    #[command(visible_alias = "ls")]
    List {
        /// All pages, not only the first hundred.
        #[arg(long)]
        all: bool,
    },
    /// Delete homes with everything in them; sessions that live there must have ended
    #[command(name = "rm", visible_alias = "delete")]
    Remove {
        /// Their ids, as `homes ls` shows them.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<HomeId>,
    },
}
