//! What must hold for any bytes. The fuzz targets call this with what libFuzzer makes up; `crates/protocol/tests/fuzz.rs`
//! calls the same with the golden frames, with those frames damaged, and with noise, at every run of the tests.

use chrono::DateTime;
use tidegate_model::Quantity;
use tidegate_protocol::{Decoded, FromAgent, TerminalFrame, ToAgent};

/// Any bytes as a frame that an agent sends the control plane: nothing panics, and what was read survives being written.
pub fn from_agent(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(Decoded::Message(message)) = FromAgent::decode(text) else { return };
    let written = message.encode(DateTime::UNIX_EPOCH);
    assert_eq!(FromAgent::decode(&written), Ok(Decoded::Message(message)), "written as {written}");
}

/// Any bytes as a frame that the control plane sends an agent: nothing panics, and what was read survives being written.
pub fn to_agent(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(Decoded::Message(message)) = ToAgent::decode(text) else { return };
    let written = message.encode(DateTime::UNIX_EPOCH);
    assert_eq!(ToAgent::decode(&written), Ok(Decoded::Message(message)), "written as {written}");
}

/// Any bytes as a terminal's text frame: nothing panics, bounds hold, and what was read survives being written.
pub fn terminal_frame(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(frame) = TerminalFrame::decode(text) else { return };
    if let TerminalFrame::Resize { cols, rows } = frame {
        let sides = 1..=TerminalFrame::MAX_SIDE;
        assert!(sides.contains(&cols) && sides.contains(&rows));
    }
    assert_eq!(TerminalFrame::decode(&frame.encode()), Some(frame));
}

/// Any bytes as a quantity: nothing panics, and what was read is the same number when written and read again.
pub fn quantity(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(quantity) = text.parse::<Quantity>() else { return };
    let again = quantity.to_string().parse::<Quantity>();
    assert_eq!(again, Ok(quantity), "{text:?} was written as {quantity}");
    let _ =
        (quantity.as_millis(), quantity.as_units(), quantity.to_cpu_string(), quantity.checked_add(quantity));
}
