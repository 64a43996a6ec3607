//! The screen as a terminal would show it. Following it costs more than carrying its bytes, so it lags behind them,
//! and a burst that outruns it is passed over: of what scrolls by, only the control sequences count.

use std::{
    num::NonZeroU16,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;

/// The screen after a number of bytes.
pub(super) struct Screen {
    parser: vt100::Parser,
    /// Offset after the last byte it shows.
    pub(super) shown: u64,
}

impl Screen {
    pub(super) fn new(rows: NonZeroU16, cols: NonZeroU16) -> Self {
        Self { parser: vt100::Parser::new(rows, cols, 0), shown: 0 }
    }

    pub(super) fn resize(&mut self, rows: NonZeroU16, cols: NonZeroU16) {
        self.parser.set_size(rows, cols);
    }

    /// Shows the next bytes.
    pub(super) fn show(&mut self, bytes: &[u8]) {
        self.feed(bytes);
        self.shown += bytes.len() as u64;
    }

    /// Passes over the next bytes: modes and colours they set hold, what they print is not drawn.
    pub(super) fn pass_over(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == 0x1b) {
            let length = sequence(&rest[at..]);
            self.feed(&rest[at..at + length]);
            rest = &rest[at + length..];
        }
        self.shown += bytes.len() as u64;
    }

    fn feed(&mut self, bytes: &[u8]) {
        // A screen that cannot be followed must cost the picture, never the session.
        if catch_unwind(AssertUnwindSafe(|| self.parser.process(bytes))).is_err() {
            let (rows, cols) = self.parser.screen().size();
            self.parser = vt100::Parser::new(rows, cols, 0);
        }
    }

    /// The screen as one string of bytes: an end to any sequence that was cut, reset, contents, cursor, modes.
    pub(super) fn repaint(&self) -> Bytes {
        let screen = self.parser.screen();
        let alternate = if screen.alternate_screen() { "\x1b[?1049h" } else { "\x1b[?1049l" };
        let text = ["\x18\x1b[!p", alternate, "\x1b[H\x1b[2J", &screen.state_formatted()].concat();
        Bytes::from(text)
    }
}

/// Length of the control sequence that these bytes begin with.
fn sequence(bytes: &[u8]) -> usize {
    let end = match bytes.get(1) {
        Some(b'[') => bytes.iter().skip(2).position(|byte| !(0x20..=0x3f).contains(byte)).map(|at| at + 3),
        Some(_) => bytes.iter().skip(1).position(|byte| !(0x20..=0x2f).contains(byte)).map(|at| at + 2),
        None => None,
    };
    end.unwrap_or(bytes.len()).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_survive_what_is_passed_over() {
        let side = NonZeroU16::new(20).unwrap();
        let mut screen = Screen::new(side, side);
        screen.pass_over(b"lost\x1b[?1049hlost\x1b[?2004h\x1b(Blost\x1b[?25l");
        screen.show(b"seen");
        let state = screen.parser.screen();
        assert!(state.alternate_screen() && state.bracketed_paste() && state.hide_cursor());
        assert_eq!((state.contents().trim(), screen.shown), ("seen", 41));
    }
}
