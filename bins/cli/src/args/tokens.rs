//! The words of `tokens`.

use clap::Subcommand;
use tidegate_model::BearerTokenId;

/// `tokens …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// List the devices that act for you
    #[command(visible_alias = "ls")]
    List {
        /// All pages, not only the newest hundred.
        #[arg(long)]
        all: bool,
    },
    /// Revoke tokens: from the next request on they open nothing
    Revoke {
        /// Their ids, as `tokens list` shows them.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<BearerTokenId>,
    },
}
