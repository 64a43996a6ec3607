//! What the viewer of a desktop says (RFB, RFC 6143, and the extensions of `TigerVNC` and QEMU), followed as far as input has
//! to be told from the rest: of those who only watch, input goes no further than here, and what a desktop is asked for
//! again and again is no sign of a person.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidegate_model::StreamMode;

/// Longest message that is kept whole: `SetEncodings` with as many encodings as no viewer has.
const LONGEST: usize = 4 + 4 * 1_024;
/// Bytes of the name of a version.
const VERSION: usize = 12;
/// A pseudo-encoding that would make the length of a pointer event a matter of what was agreed on.
const EXTENDED_BUTTONS: i32 = -316;

/// Somebody who says something this cannot follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confused;

/// What a desktop says first. One of an older version would take the words of a newer viewer for others than they are taken
/// for here: what passes could be a key to it. So nobody only watches it, and nobody answers before it has spoken.
#[derive(Debug, Default)]
pub(crate) struct Desktop {
    said: BytesMut,
}

impl Desktop {
    /// Takes what it says until its version is known; at most twelve bytes are kept.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), Confused> {
        let missing = VERSION.saturating_sub(self.said.len());
        self.said.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        if self.said.len() == VERSION && !is_followed(&self.said) { Err(Confused) } else { Ok(()) }
    }

    /// Whether it has said that its viewers can be followed.
    pub(crate) fn is_known(&self) -> bool {
        self.said.len() == VERSION && is_followed(&self.said)
    }
}

/// Whether this is the name of a version whose viewers all say the same: 3.7, or a newer one.
fn is_followed(version: &[u8]) -> bool {
    let number = |digits: &[u8]| {
        digits
            .iter()
            .try_fold(0_u16, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0')))
    };
    match version {
        [b'R', b'F', b'B', b' ', major @ .., b'\n'] if major.len() == 7 && major[3] == b'.' => {
            let (major, minor) = (number(&major[..3]), number(&major[4..]));
            major.zip(minor).is_some_and(|version| version >= (3, 7))
        }
        _ => false,
    }
}

/// What came of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    /// What goes on to the desktop.
    pub(crate) bytes: Bytes,
    /// Whether a key, a pointer or a clipboard was in it.
    pub(crate) input: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Version,
    Security,
    Response,
    Init,
    Messages,
    /// The rest of a message's body.
    Body {
        left: u64,
        passes: bool,
    },
}

/// One viewer's side of one desktop.
#[derive(Debug)]
pub(crate) struct Viewer {
    mode: StreamMode,
    /// Whether the desktop is known to speak no more than 3.7.
    older: bool,
    state: State,
    waiting: BytesMut,
}

/// What a message is.
enum Message {
    /// So many bytes that a desktop needs to be shown.
    Harmless(u64),
    /// So many bytes of input.
    Input(u64),
    /// The encodings that the viewer knows.
    Encodings(usize),
    /// Its length is not known yet.
    Incomplete,
}

impl Viewer {
    pub(crate) fn new(mode: StreamMode) -> Self {
        Self { mode, older: false, state: State::Version, waiting: BytesMut::new() }
    }

    /// Learns what desktop it is that listens; one whose version is not known listens to nobody.
    pub(crate) fn meet(&mut self, desktop: &Desktop) -> Result<(), Confused> {
        self.older = &desktop.said[..] == b"RFB 003.007\n";
        if desktop.is_known() { Ok(()) } else { Err(Confused) }
    }

    /// Takes what the viewer said. A message that is not whole yet is kept back, at most [`LONGEST`] bytes.
    pub(crate) fn take(&mut self, bytes: &Bytes) -> Result<Followed, Confused> {
        self.waiting.extend_from_slice(bytes);
        let (mut out, mut input) = (BytesMut::with_capacity(self.waiting.len()), false);
        while !self.waiting.is_empty() && self.step(&mut out, &mut input)? {}
        if self.waiting.len() > LONGEST {
            return Err(Confused);
        }
        Ok(Followed { bytes: out.freeze(), input })
    }

    /// One step; false when more has to come first.
    fn step(&mut self, out: &mut BytesMut, input: &mut bool) -> Result<bool, Confused> {
        match self.state {
            State::Version => {
                if self.waiting.len() < VERSION {
                    return Ok(false);
                }
                let version = self.waiting.split_to(VERSION);
                // Of 3.3 the server alone knows what comes next, and it takes for 3.3 whatever it does not know by name.
                match &version[..] {
                    b"RFB 003.007\n" => {}
                    b"RFB 003.008\n" if !self.older => {}
                    _ => return Err(Confused),
                }
                out.put_slice(&version);
                self.state = State::Security;
            }
            State::Security => {
                let chosen = self.waiting.get_u8();
                out.put_u8(chosen);
                self.state = match chosen {
                    1 => State::Init,
                    2 => State::Response,
                    _ => return Err(Confused),
                };
            }
            State::Response => {
                if self.waiting.len() < 16 {
                    return Ok(false);
                }
                out.put_slice(&self.waiting.split_to(16));
                self.state = State::Init;
            }
            State::Init => {
                let _ = self.waiting.get_u8();
                // Always shared: one viewer throws no other out.
                out.put_u8(1);
                self.state = State::Messages;
            }
            State::Messages => return self.message(out, input),
            State::Body { left, passes } => {
                let some = self.waiting.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let body = self.waiting.split_to(some);
                if passes {
                    out.put_slice(&body);
                }
                let left = left - some as u64;
                self.state = if left == 0 { State::Messages } else { State::Body { left, passes } };
            }
        }
        Ok(true)
    }

    fn message(&mut self, out: &mut BytesMut, input: &mut bool) -> Result<bool, Confused> {
        match next(&self.waiting)? {
            Message::Incomplete => return Ok(false),
            Message::Harmless(length) => self.state = State::Body { left: length, passes: true },
            Message::Input(length) => {
                *input = true;
                let passes = self.mode == StreamMode::Control;
                self.state = State::Body { left: length, passes };
            }
            Message::Encodings(count) => {
                let length = 4 + 4 * count;
                if length > LONGEST {
                    return Err(Confused);
                }
                if self.waiting.len() < length {
                    return Ok(false);
                }
                let message = self.waiting.split_to(length);
                let kept: Vec<i32> = message[4..]
                    .chunks_exact(4)
                    .map(|four| i32::from_be_bytes([four[0], four[1], four[2], four[3]]))
                    .filter(|encoding| *encoding != EXTENDED_BUTTONS)
                    .collect();
                out.put_slice(&[2, 0]);
                out.put_u16(u16::try_from(kept.len()).map_err(|_| Confused)?);
                for encoding in kept {
                    out.put_i32(encoding);
                }
            }
        }
        Ok(true)
    }
}

/// What the next message is.
fn next(waiting: &[u8]) -> Result<Message, Confused> {
    let byte = |at: usize| waiting.get(at).copied();
    let two = |at: usize| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
    let four = |at: usize| Some(u32::from_be_bytes([byte(at)?, byte(at + 1)?, byte(at + 2)?, byte(at + 3)?]));
    let or_wait = |message: Option<Message>| Ok(message.unwrap_or(Message::Incomplete));
    match byte(0) {
        None => Ok(Message::Incomplete),
        // SetPixelFormat, FramebufferUpdateRequest, EnableContinuousUpdates
        Some(0) => Ok(Message::Harmless(20)),
        Some(3 | 150) => Ok(Message::Harmless(10)),
        Some(2) => or_wait(two(2).map(|count| Message::Encodings(usize::from(count)))),
        // Fence
        Some(248) => or_wait(byte(8).map(|length| Message::Harmless(9 + u64::from(length)))),
        // KeyEvent, PointerEvent
        Some(4) => Ok(Message::Input(8)),
        Some(5) => Ok(Message::Input(6)),
        // ClientCutText: a negative length is one of the extended clipboard.
        Some(6) => {
            or_wait(four(4).map(|length| Message::Input(8 + u64::from(length.cast_signed().unsigned_abs()))))
        }
        // xvp: asks to shut down or reboot
        Some(250) => Ok(Message::Input(4)),
        // SetDesktopSize
        Some(251) => or_wait(byte(6).map(|screens| Message::Input(8 + 16 * u64::from(screens)))),
        // QEMU: extended keys, and audio, which is not asked for here
        Some(255) => match byte(1) {
            None => Ok(Message::Incomplete),
            Some(0) => Ok(Message::Input(12)),
            Some(1) => or_wait(two(2).map(|what| Message::Harmless(if what == 2 { 10 } else { 4 }))),
            Some(_) => Err(Confused),
        },
        Some(_) => Err(Confused),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: &[u8] = b"RFB 003.008\n\x01\x00";
    const KEY: &[u8] = &[4, 1, 0, 0, 0, 0, 0, 0x61];
    const POINTER: &[u8] = &[5, 0x81, 0, 10, 0, 20];
    const UPDATE: &[u8] = &[3, 1, 0, 0, 0, 0, 5, 0, 3, 32];
    const CUT: &[u8] = &[6, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c'];
    const EXTENDED_KEY: &[u8] = &[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 30];
    const SIZE: &[u8] = &[251, 0, 4, 0, 3, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0];

    fn encodings(all: &[i32]) -> Vec<u8> {
        let mut message = vec![2, 0];
        message.extend(u16::try_from(all.len()).unwrap().to_be_bytes());
        message.extend(all.iter().flat_map(|encoding| encoding.to_be_bytes()));
        message
    }

    /// Everything that goes on, and whether there was input, however the bytes are cut.
    fn followed(mode: StreamMode, said: &[u8], pieces: usize) -> Result<(Vec<u8>, bool), Confused> {
        let (mut viewer, mut out, mut input) = (Viewer::new(mode), Vec::new(), false);
        for piece in said.chunks(pieces) {
            let followed = viewer.take(&Bytes::copy_from_slice(piece))?;
            out.extend_from_slice(&followed.bytes);
            input |= followed.input;
        }
        Ok((out, input))
    }

    #[test]
    fn of_those_who_only_watch_no_input_goes_on() {
        let said = [HELLO, KEY, UPDATE, POINTER, CUT, EXTENDED_KEY, SIZE, UPDATE].concat();
        let wanted = [b"RFB 003.008\n\x01\x01", UPDATE, UPDATE].concat();
        for pieces in [1, 2, 7, said.len()] {
            assert_eq!(followed(StreamMode::View, &said, pieces), Ok((wanted.clone(), true)));
        }
    }

    #[test]
    fn of_those_who_control_everything_goes_on_and_is_shared() {
        let said = [HELLO, KEY, UPDATE, POINTER, CUT, EXTENDED_KEY, SIZE].concat();
        let mut wanted = said.clone();
        wanted[HELLO.len() - 1] = 1;
        for pieces in [1, 3, said.len()] {
            assert_eq!(followed(StreamMode::Control, &said, pieces), Ok((wanted.clone(), true)));
        }
    }

    #[test]
    fn asking_for_pictures_is_no_input() {
        let said = [HELLO, &encodings(&[7, 16, -239]), UPDATE, UPDATE].concat();
        assert!(!followed(StreamMode::Control, &said, 5).unwrap().1);
    }

    #[test]
    fn pointer_events_keep_the_length_that_is_followed_here() {
        let said = [HELLO, &encodings(&[7, EXTENDED_BUTTONS, 16])].concat();
        let (out, _) = followed(StreamMode::Control, &said, 4).unwrap();
        assert!(out.ends_with(&encodings(&[7, 16])), "{out:?}");
    }

    #[test]
    fn a_clipboard_of_gigabytes_is_neither_kept_nor_passed_on() {
        let mut viewer = Viewer::new(StreamMode::View);
        viewer.take(&Bytes::from_static(HELLO)).unwrap();
        viewer.take(&Bytes::from_static(&[6, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff])).unwrap();
        for _ in 0..64 {
            let followed = viewer.take(&Bytes::from(vec![b'x'; 1 << 16])).unwrap();
            assert!(followed.bytes.is_empty() && viewer.waiting.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        for said in
            [&b"RFB 003.003\n"[..], b"GET / HTTP/1.1\r\n", b"RFB 003.008\n\x13", b"RFB 003.008\n\x01\x01\x63"]
        {
            assert_eq!(followed(StreamMode::View, said, 3), Err(Confused), "{said:?}");
        }
        let too_many = [HELLO, &encodings(&vec![0; 2_000])].concat();
        assert_eq!(followed(StreamMode::View, &too_many, 64), Err(Confused));
    }

    /// Whatever a desktop does not know by name it takes for 3.3, after which other bytes come next than are followed here.
    #[test]
    fn a_version_that_desktops_take_for_an_older_one_is_refused() {
        for version in ["003.00:", "003.00\u{7f}", "003.009", "003.889", "003.003", "003.004"] {
            let said = format!("RFB {version}\n\x01\x00");
            for mode in [StreamMode::View, StreamMode::Control] {
                assert_eq!(followed(mode, said.as_bytes(), 5), Err(Confused), "{version}");
            }
        }
    }

    #[test]
    fn a_viewer_is_no_newer_than_the_desktop() {
        for (desktop, version, good) in [
            (&b"RFB 003.007\n"[..], &b"RFB 003.007\n"[..], true),
            (b"RFB 003.007\n", b"RFB 003.008\n", false),
            (b"RFB 003.008\n", b"RFB 003.007\n", true),
            (b"RFB 003.889\n", b"RFB 003.008\n", true),
            (b"RFB 003.0", b"RFB 003.008\n", false),
        ] {
            let (mut heard, mut viewer) = (Desktop::default(), Viewer::new(StreamMode::View));
            heard.take(desktop).unwrap();
            let taken = viewer.meet(&heard).and_then(|()| viewer.take(&Bytes::copy_from_slice(version)));
            assert_eq!(taken.is_ok(), good, "{desktop:?} {version:?}");
        }
    }

    #[test]
    fn a_desktop_is_watched_if_its_version_is_one_whose_viewers_can_be_followed() {
        for (version, known) in [
            (&b"RFB 003.007\n"[..], true),
            (b"RFB 003.008\n", true),
            (b"RFB 003.889\n", true),
            (b"RFB 004.001\n", true),
            (b"RFB 003.003\n", false),
            (b"RFB 003.006\n", false),
            (b"RFB 000.000\n", false),
            (b"RFB 3.8     \n", false),
            (b"RFB 003.00\xb8\n", false),
            (b"GET / HTTP/1.1\r\n", false),
            (&[0; 64], false),
        ] {
            for pieces in [1, 5, version.len()] {
                let mut desktop = Desktop::default();
                let taken = version.chunks(pieces).try_for_each(|piece| desktop.take(piece));
                assert_eq!((taken.is_ok(), desktop.is_known()), (known, known), "{version:?}");
            }
        }
    }

    /// Everything that goes on, and whether it ended in confusion.
    fn fed(mode: StreamMode, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut viewer, mut out) = (Viewer::new(mode), Vec::new());
        for piece in pieces {
            match viewer.take(&Bytes::copy_from_slice(piece)) {
                Ok(followed) => out.extend_from_slice(&followed.bytes),
                Err(Confused) => return (out, true),
            }
            assert!(viewer.waiting.len() <= LONGEST, "{} bytes are kept", viewer.waiting.len());
        }
        (out, false)
    }

    /// What a desktop reads in what goes on: the types of its messages, with the second byte of QEMU's. Written down from
    /// the protocol once more, for a whole stream at once.
    fn read_by_a_desktop(out: &[u8]) -> Vec<(u8, u8)> {
        let Some(rest) = out.get(12..).filter(|_| out.starts_with(b"RFB 003.00")) else { return Vec::new() };
        let mut rest = match rest {
            [1, _shared, rest @ ..] => rest,
            [2, rest @ ..] if rest.len() > 16 => &rest[17..],
            _ => return Vec::new(),
        };
        let mut messages = Vec::new();
        while let [kind, more @ ..] = rest {
            let at = |index: usize| usize::from(more.get(index).copied().unwrap_or(0));
            messages.push((*kind, if *kind == 255 { more.first().copied().unwrap_or(1) } else { 0 }));
            let length = match kind {
                0 => 20,
                2 => 4 + 4 * (at(1) << 8 | at(2)),
                3 | 150 => 10,
                248 => 9 + at(7),
                255 if at(0) == 1 && (at(1) << 8 | at(2)) == 2 => 10,
                255 => 4,
                // Input, or nothing that is known: the test fails on it.
                _ => rest.len(),
            };
            rest = &rest[length.min(rest.len())..];
        }
        messages
    }

    /// Handshakes as they should be, and as they should not.
    fn handshakes() -> impl Strategy<Value = Vec<u8>> {
        let answer = proptest::collection::vec(any::<u8>(), 16);
        prop_oneof![
            4 => Just(HELLO.to_vec()),
            2 => answer.prop_map(|answer| [b"RFB 003.007\n\x02", &answer[..], &[0]].concat()),
            1 => Just(b"RFB 003.003\n\x01".to_vec()),
            1 => (any::<u8>(), any::<u8>())
                .prop_map(|(security, shared)| [b"RFB 003.008\n", &[security, shared][..]].concat()),
            1 => proptest::collection::vec(any::<u8>(), 0..40),
        ]
    }

    /// Messages as they should be, with whatever in them, and what is none.
    fn messages() -> impl Strategy<Value = Vec<u8>> {
        let of = |start: Vec<u8>, length: usize| {
            proptest::collection::vec(any::<u8>(), length - start.len())
                .prop_map(move |rest| [start.clone(), rest].concat())
        };
        let lengthy = |start: Vec<u8>, unit: usize| {
            proptest::collection::vec(any::<u8>(), 0..64).prop_map(move |body| {
                let body = &body[..body.len() / unit * unit];
                let count = u8::try_from(body.len() / unit).unwrap();
                [&start[..], &[count], body].concat()
            })
        };
        prop_oneof![
            of(vec![0], 20),
            of(vec![3], 10),
            of(vec![150], 10),
            of(vec![4], 8),
            of(vec![5], 6),
            of(vec![250], 4),
            of(vec![255, 0], 12),
            of(vec![255, 1, 0, 2], 10),
            of(vec![255, 1, 0, 1], 4),
            lengthy(vec![2, 0, 0], 4),
            lengthy(vec![6, 0, 0, 0, 0, 0, 0], 1),
            lengthy(vec![248, 0, 0, 0, 0, 0, 0, 1], 1),
            lengthy(vec![251, 0, 1, 2, 3, 4], 16).prop_map(|mut size| {
                size.insert(7.min(size.len()), 0);
                size
            }),
            proptest::collection::vec(any::<u8>(), 0..32),
        ]
    }

    /// The same bytes in pieces of these lengths, again and again.
    fn in_pieces<'a>(mut said: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for length in lengths.iter().cycle() {
            if said.is_empty() {
                break;
            }
            let (piece, rest) = said.split_at(said.len().min(*length));
            pieces.push(piece);
            said = rest;
        }
        pieces
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        #[test]
        fn no_input_of_those_who_watch_is_read_by_a_desktop_however_they_say_it(
            handshake in handshakes(),
            messages in proptest::collection::vec(messages(), 0..12),
            lengths in proptest::collection::vec(1..80_usize, 1..8),
        ) {
            let said = [handshake, messages.concat()].concat();
            let finest = in_pieces(&said, &[1]);
            let (out, confused) = fed(StreamMode::View, &finest);
            for (kind, second) in read_by_a_desktop(&out) {
                let harmless = matches!((kind, second), (0 | 2 | 3 | 150 | 248, 0) | (255, 1));
                prop_assert!(harmless, "message {kind} {second} in {out:?}");
            }
            // However it is cut, the same goes on; what is said with what confuses goes nowhere.
            for pieces in [in_pieces(&said, &lengths), vec![&said[..]]] {
                let (cut, lost) = fed(StreamMode::View, &pieces);
                prop_assert_eq!(lost, confused);
                prop_assert!(out.starts_with(&cut));
                prop_assert!(confused || cut == out);
            }
        }

        #[test]
        fn of_those_who_control_everything_goes_on_however_they_say_it(
            messages in proptest::collection::vec(messages(), 0..12),
            lengths in proptest::collection::vec(1..80_usize, 1..8),
        ) {
            let said = [HELLO, &messages.concat()[..]].concat();
            let (out, confused) = fed(StreamMode::Control, &in_pieces(&said, &lengths));
            // Encodings are written anew, as they were, less one that random bytes do not hit.
            let mut wanted = said;
            wanted[HELLO.len() - 1] = 1;
            let at = wanted.iter().zip(&out).position(|(one, other)| one != other);
            // The second byte of encodings is padding.
            prop_assert!(at.is_none_or(|at| wanted[at - 1] == 2), "{at:?}: {wanted:?} {out:?}");
            prop_assert!(confused || out.len() <= wanted.len());
        }

        #[test]
        fn whatever_a_viewer_says_little_is_kept(said: Vec<u8>, pieces in 1..200_usize) {
            let mut viewer = Viewer::new(StreamMode::View);
            viewer.take(&Bytes::from_static(HELLO)).unwrap();
            for piece in said.chunks(pieces) {
                if viewer.take(&Bytes::copy_from_slice(piece)).is_err() {
                    break;
                }
                prop_assert!(viewer.waiting.len() <= LONGEST);
            }
        }
    }
}
