//! Finding the detach keys in what is typed.

/// Looks for a sequence of bytes in a stream that comes in pieces.
#[derive(Debug)]
pub(crate) struct Detector {
    keys: Vec<u8>,
    matched: usize,
}

/// What a piece of input came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    /// For the session.
    pub(crate) bytes: Vec<u8>,
    /// Whether the keys were pressed; what was typed after them is nobody's.
    pub(crate) detached: bool,
}

impl Detector {
    /// Looks for `keys`; never finds anything where there are none.
    pub(crate) fn new(keys: &[u8]) -> Self {
        Self { keys: keys.to_vec(), matched: 0 }
    }

    /// Takes the next piece. The beginning of a sequence is held back until it is clear what it is.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(input.len());
        if self.keys.is_empty() {
            bytes.extend_from_slice(input);
            return Typed { bytes, detached: false };
        }
        for &byte in input {
            self.step(byte, &mut bytes);
            if self.matched == self.keys.len() {
                self.matched = 0;
                return Typed { bytes, detached: true };
            }
        }
        Typed { bytes, detached: false }
    }

    /// Lets go of as much of the held beginning as `byte` shows to be none.
    fn step(&mut self, byte: u8, bytes: &mut Vec<u8>) {
        while self.matched > 0 && self.keys[self.matched] != byte {
            let held = self.matched;
            // The longest shorter beginning that the held bytes also end with.
            self.matched =
                (0..held).rev().find(|&n| self.keys[..n] == self.keys[held - n..held]).unwrap_or(0);
            bytes.extend_from_slice(&self.keys[..held - self.matched]);
        }
        if self.keys[self.matched] == byte {
            self.matched += 1;
        } else {
            bytes.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &[u8], pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut detector = Detector::new(keys);
        let mut bytes = Vec::new();
        for piece in pieces {
            let typed = detector.feed(piece);
            bytes.extend(typed.bytes);
            if typed.detached {
                return (bytes, true);
            }
        }
        (bytes, false)
    }

    #[test]
    fn one_key_leaves_at_once_and_takes_nothing_with_it() {
        assert_eq!(run(b"\x1d", &[b"ls\r", b"exit\x1dnot sent"]), (b"ls\rexit".to_vec(), true));
        assert_eq!(run(b"\x1d", &[b"plain"]), (b"plain".to_vec(), false));
    }

    #[test]
    fn a_sequence_may_come_in_pieces() {
        assert_eq!(run(b"\x10\x11", &[b"a\x10", b"\x11b"]), (b"a".to_vec(), true));
    }

    #[test]
    fn half_a_sequence_is_sent_once_something_else_follows() {
        assert_eq!(run(b"\x10\x11", &[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(run(b"\x10\x11", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(run(b"aab", &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(run(b"abac", &[b"ababx"]), (b"ababx".to_vec(), false));
    }

    #[test]
    fn without_keys_everything_is_sent() {
        assert_eq!(run(b"", &[b"\x1d\x10"]), (b"\x1d\x10".to_vec(), false));
    }
}
