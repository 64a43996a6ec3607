//! This end of a session's terminal: raw mode that always ends, keys, window, and the loop that attaches.

mod attach;
mod detach;
mod keyboard;
mod modes;
mod raw;

pub(crate) use self::{
    attach::{Left, Viewer, attach},
    raw::restore_on_panic,
};

use std::io::IsTerminal;

/// Whether a person sits at both ends of this program.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
