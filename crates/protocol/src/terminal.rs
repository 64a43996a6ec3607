//! Control frames of a terminal: the text frames beside its bytes, the same from viewer to shim.

use serde::{Deserialize, Serialize};
use tidegate_model::StreamMode;

/// A text frame of a terminal stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum TerminalFrame {
    /// Viewer → session: the viewer's window changed. Dropped for viewers that only watch. Session → reader of what was
    /// printed: the terminal has this size, first after the offset and whenever it changed.
    Resize {
        /// Columns, 1–1000.
        cols: u16,
        /// Rows, 1–1000.
        rows: u16,
    },
    /// Session → viewer: the program ended; the stream closes with 1000 after it.
    Exit {
        /// Its exit code; 128 + signal where one killed it.
        code: i32,
        /// The signal's name, where one killed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    },
    /// Session → reader of what was printed, first after opening: where its first byte stands, counted from the session's
    /// first. Later than asked for where the ring has let bytes go; said again where it does so while the reader is slow.
    Offset {
        /// Bytes before it.
        offset: u64,
    },
    /// Session → viewer: what this viewer may do, first after opening.
    Mode {
        /// Control or view.
        mode: StreamMode,
    },
}

impl TerminalFrame {
    /// Longest frame read.
    pub const MAX_BYTES: usize = 4 * 1024;
    /// Most columns or rows.
    pub const MAX_SIDE: u16 = 1_000;

    /// Reads a text frame; `None` for anything unknown, too long or out of bounds, which is to be ignored.
    pub fn decode(text: &str) -> Option<Self> {
        let frame =
            if text.len() <= Self::MAX_BYTES { serde_json::from_str(text).ok()? } else { return None };
        match frame {
            Self::Resize { cols, rows } => {
                let sides = 1..=Self::MAX_SIDE;
                (sides.contains(&cols) && sides.contains(&rows)).then_some(frame)
            }
            Self::Exit { .. } | Self::Mode { .. } | Self::Offset { .. } => Some(frame),
        }
    }

    /// Writes a text frame.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
