//! What is said beside the bytes of a terminal: the messages of a pty source's `stdctrl`, each a text of one JSON object.
//! Whoever shares a terminal and the recorder of a session's terminal write them; viewers and replays read them.

use serde::{Deserialize, Serialize};

/// A message of `stdctrl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TerminalControl {
    /// `{"begin": {…}}`: a program starts. What `stdout` holds of before is of another one.
    Begin(TerminalBegin),
    /// `{"resize": {"cols": 80, "rows": 24}}`: the terminal has this size from here on.
    Resize(TerminalSize),
    /// `{"gap": {"bytes": 4096}}`: what the terminal printed here is not in `stdout`.
    Gap {
        /// How many bytes are missing.
        bytes: u64,
    },
    /// `{"end": {"exitCode": 0}}`: the program ended.
    End {
        /// Its exit code, 128 + signal where one killed it; none where nobody knows.
        #[serde(default, rename = "exitCode", skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
}

/// How a terminal begins. What is not known is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminalBegin {
    /// Its first size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<TerminalSize>,
    /// What runs in it, as people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The session whose terminal it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<crate::SessionId>,
    /// Which of the session's starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// The size of a terminal, in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns, 1–1000.
    pub cols: u16,
    /// Rows, 1–1000.
    pub rows: u16,
}

impl TerminalSize {
    /// Most columns or rows.
    pub const MAX_SIDE: u16 = 1_000;

    /// Whether a terminal may have it.
    pub fn is_sane(self) -> bool {
        let sides = 1..=Self::MAX_SIDE;
        sides.contains(&self.cols) && sides.contains(&self.rows)
    }
}

impl TerminalControl {
    /// Longest text that is read.
    pub const MAX_BYTES: usize = 4 * 1_024;

    /// Reads a message's text; none for anything unknown, too long or out of bounds, which is to be ignored.
    pub fn decode(text: &str) -> Option<Self> {
        if text.len() > Self::MAX_BYTES {
            return None;
        }
        let read: Self = serde_json::from_str(text).ok()?;
        let size = match &read {
            Self::Begin(begin) => begin.size,
            Self::Resize(size) => Some(*size),
            Self::Gap { .. } | Self::End { .. } => None,
        };
        size.is_none_or(TerminalSize::is_sane).then_some(read)
    }

    /// Writes a message's text.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_as_they_are_written() {
        let size = TerminalSize { cols: 80, rows: 24 };
        let begin =
            TerminalBegin { size: Some(size), command: Some("htop".into()), ..TerminalBegin::default() };
        for (control, text) in [
            (TerminalControl::Begin(begin), r#"{"begin":{"size":{"cols":80,"rows":24},"command":"htop"}}"#),
            (TerminalControl::Begin(TerminalBegin::default()), r#"{"begin":{}}"#),
            (TerminalControl::Resize(size), r#"{"resize":{"cols":80,"rows":24}}"#),
            (TerminalControl::Gap { bytes: 7 }, r#"{"gap":{"bytes":7}}"#),
            (TerminalControl::End { exit_code: Some(130) }, r#"{"end":{"exitCode":130}}"#),
            (TerminalControl::End { exit_code: None }, r#"{"end":{}}"#),
        ] {
            assert_eq!(control.encode(), text);
            assert_eq!(TerminalControl::decode(text), Some(control));
        }
    }

    #[test]
    fn what_is_unknown_or_out_of_bounds_is_ignored() {
        for text in [
            "",
            "resize",
            r#"{"resize":{"cols":0,"rows":24}}"#,
            r#"{"resize":{"cols":80,"rows":1001}}"#,
            r#"{"begin":{"size":{"cols":80,"rows":0}}}"#,
            r#"{"beep":{}}"#,
        ] {
            assert_eq!(TerminalControl::decode(text), None, "{text}");
        }
        let long = format!(r#"{{"begin":{{"command":"{}"}}}}"#, "x".repeat(TerminalControl::MAX_BYTES));
        assert_eq!(TerminalControl::decode(&long), None);
    }
}
