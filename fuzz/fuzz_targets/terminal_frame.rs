//! Any bytes as a terminal's text frame: nothing panics, bounds hold, and what was read survives being written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_protocol::TerminalFrame;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(frame) = TerminalFrame::decode(text) else { return };
    if let TerminalFrame::Resize { cols, rows } = frame {
        let sides = 1..=TerminalFrame::MAX_SIDE;
        assert!(sides.contains(&cols) && sides.contains(&rows));
    }
    assert_eq!(TerminalFrame::decode(&frame.encode()), Some(frame));
});
