//! Lines of what a terminal showed, without what it obeyed: colours, movements, titles.

use std::{cell::RefCell, io, rc::Rc};

use strip_ansi_escapes::Writer;

/// Longest line that is kept together.
const LONGEST: usize = 64 * 1_024;

/// Cuts bytes that come in pieces into lines of text. Sequences and characters may be split anywhere.
pub(crate) struct Lines {
    stripping: Writer<Sink>,
    text: Sink,
}

#[derive(Debug, Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub(crate) fn new() -> Self {
        let text = Sink::default();
        Self { stripping: Writer::new(text.clone()), text }
    }

    /// Takes the next piece, and gives the lines that are whole with it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> io::Result<Vec<String>> {
        io::Write::write_all(&mut self.stripping, bytes)?;
        let mut text = self.text.0.borrow_mut();
        let end = match text.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => newline + 1,
            None if text.len() > LONGEST => text.len(),
            None => return Ok(Vec::new()),
        };
        let whole: Vec<u8> = text.drain(..end).collect();
        Ok(whole.split_inclusive(|byte| *byte == b'\n').map(line).collect())
    }

    /// Gives what is left, which no line's end follows.
    pub(crate) fn rest(mut self) -> io::Result<Option<String>> {
        io::Write::flush(&mut self.stripping)?;
        let text = self.text.0.take();
        Ok((!text.is_empty()).then(|| line(&text)))
    }
}

fn line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::new();
        let mut all: Vec<String> = pieces.iter().flat_map(|piece| lines.feed(piece).unwrap()).collect();
        all.extend(lines.rest().unwrap());
        all
    }

    #[test]
    fn colours_titles_and_split_characters_are_no_obstacle() {
        let text = "\x1b]0;title\x07\x1b[1;31merror\x1b[0m: k\u{e4}se\r\n\x1b[2Kdone".as_bytes();
        for at in 0..text.len() {
            let (one, two) = text.split_at(at);
            assert_eq!(lines(&[one, two]), ["error: k\u{e4}se", "done"], "split at {at}");
        }
    }

    #[test]
    fn what_is_no_text_is_a_line_all_the_same() {
        assert_eq!(lines(&[b"a\xffb\n\n", b"\x00c"]), ["a\u{fffd}b", "", "c"]);
        assert_eq!(lines(&[]), [] as [&str; 0]);
    }
}
