//! What a session switched on in the terminal and would leave on: another screen, the mouse, a hidden cursor.

/// Private modes that are undone, with whether a terminal has them on from the start.
const KNOWN: &[(u16, bool)] = &[
    (1, false),    // cursor keys for applications
    (7, true),     // wrapping
    (9, false),    // mouse, X10
    (25, true),    // the cursor is seen
    (47, false),   // the other screen
    (1000, false), // mouse: buttons
    (1002, false), // mouse: drags
    (1003, false), // mouse: everything
    (1004, false), // focus
    (1005, false), // mouse, UTF-8
    (1006, false), // mouse, SGR
    (1015, false), // mouse, urxvt
    (1047, false), // the other screen, cleared
    (1049, false), // the other screen, cursor kept
    (2004, false), // pastes are marked
    (2026, false), // output is held back
];
/// Longest list of modes in one sequence that is believed.
const LONGEST: usize = 64;

/// Follows `CSI ? … h` and `CSI ? … l` through a stream that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Modes {
    place: Place,
    numbers: Vec<u8>,
    changed: Vec<u16>,
    keypad: bool,
    seen: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Text,
    Escape,
    Bracket,
    Numbers,
}

impl Modes {
    /// Sees the next piece of output.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.seen |= !bytes.is_empty();
        for &byte in bytes {
            self.place = match (self.place, byte) {
                (_, 0x1b) => Place::Escape,
                (Place::Escape, b'[') => Place::Bracket,
                (Place::Escape, b'=' | b'>') => {
                    self.keypad = byte == b'=';
                    Place::Text
                }
                (Place::Escape, b'c') => {
                    self.changed.clear();
                    self.keypad = false;
                    Place::Text
                }
                (Place::Bracket, b'?') => {
                    self.numbers.clear();
                    Place::Numbers
                }
                (Place::Numbers, b'0'..=b'9' | b';') if self.numbers.len() < LONGEST => {
                    self.numbers.push(byte);
                    Place::Numbers
                }
                (Place::Numbers, b'h' | b'l') => {
                    self.switch(byte == b'h');
                    Place::Text
                }
                _ => Place::Text,
            };
        }
    }

    fn switch(&mut self, on: bool) {
        let numbers = std::mem::take(&mut self.numbers);
        for number in numbers.split(|&byte| byte == b';') {
            let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
            let Some(&(mode, at_start)) = KNOWN.iter().find(|(mode, _)| Some(*mode) == number) else {
                continue;
            };
            self.changed.retain(|&other| other != mode);
            if on != at_start {
                self.changed.push(mode);
            }
        }
    }

    /// What brings the terminal back to where it was, the last change first; everything counts as undone then.
    pub(crate) fn undo(&mut self) -> Vec<u8> {
        let mut undo = String::new();
        for mode in self.changed.drain(..).rev() {
            let at_start = KNOWN.iter().any(|&(known, on)| known == mode && on);
            undo.push_str("\x1b[?");
            undo.push_str(&mode.to_string());
            undo.push(if at_start { 'h' } else { 'l' });
        }
        if std::mem::take(&mut self.keypad) {
            undo.push_str("\x1b>");
        }
        // Colours are not followed, and taking them off harms nothing.
        if std::mem::take(&mut self.seen) {
            undo.push_str("\x1b[0m");
        }
        self.place = Place::Text;
        undo.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(pieces: &[&[u8]]) -> String {
        let mut modes = Modes::default();
        for piece in pieces {
            modes.feed(piece);
        }
        String::from_utf8(modes.undo()).unwrap()
    }

    #[test]
    fn what_an_editor_left_on_is_undone_in_reverse() {
        let output: &[&[u8]] = &[b"\x1b[?1049h\x1b[?25", b"l\x1b[?1000;1006h\x1b=text\x1b[31m"];
        assert_eq!(undo(output), "\x1b[?1006l\x1b[?1000l\x1b[?25h\x1b[?1049l\x1b>\x1b[0m");
    }

    #[test]
    fn what_a_program_tidied_up_itself_is_left_alone() {
        assert_eq!(undo(&[b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l$ "]), "\x1b[0m");
        assert_eq!(undo(&[b"\x1b[?2004h\x1b=\x1bc"]), "\x1b[0m");
        assert_eq!(undo(&[]), "");
    }

    #[test]
    fn broken_sequences_do_no_harm() {
        let endless = [b"\x1b[?".to_vec(), vec![b'1'; 10_000], b"h".to_vec()].concat();
        assert_eq!(undo(&[&endless, b"\x1b[?;;99999h", b"\x1b[?25\x1b[h"]), "\x1b[0m");
    }
}
