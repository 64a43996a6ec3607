//! Any bytes as a frame that an agent sends the control plane: nothing panics, and what was read survives being written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_protocol::{Decoded, FromAgent};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(Decoded::Message(message)) = FromAgent::decode(text) else { return };
    let written = message.encode(chrono::DateTime::UNIX_EPOCH);
    assert_eq!(FromAgent::decode(&written), Ok(Decoded::Message(message)), "written as {written}");
});
