//! This end of a terminal: raw mode that always ends, keys, window, the loop that attaches to a session, and those that
//! share a terminal over pipes and watch one.

mod attach;
mod detach;
mod keyboard;
mod lines;
mod modes;
mod own;
mod raw;
mod shared;
mod watched;

pub(crate) use self::{
    attach::{Left, Viewer, attach},
    lines::Lines,
    raw::{RawTerminal, restore_on_panic},
    shared::{Share, share},
    watched::{Shown, Watch, WatchEnd, Watched, is_forbidden, watch},
};

use std::io::IsTerminal;

use tidegate_model::TerminalSize;

/// Whether a person sits at both ends of this program.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The size of the window here; none where there is no window.
pub(crate) fn window_size() -> Option<TerminalSize> {
    let (cols, rows) = crossterm::terminal::size().ok()?;
    let side = |side: u16| side.clamp(1, TerminalSize::MAX_SIDE);
    (cols > 0 && rows > 0).then(|| TerminalSize { cols: side(cols), rows: side(rows) })
}
