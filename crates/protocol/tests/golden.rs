//! The golden files of `tests/golden`: every message as seed A and the contract write it, read and written back.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files should fail at once")]

use std::{fs, path::PathBuf};

use serde_json::Value;
use tidegate_protocol::{Decoded, FromAgent, ToAgent};

/// Every golden file of one direction with its name.
fn golden(direction: &str) -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(direction);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    files.iter().map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), read(path))).collect()
}

/// The frame's own time, so that writing it again gives the same frame.
fn time_of(frame: &Value) -> chrono::DateTime<chrono::Utc> {
    frame["timestamp"].as_str().unwrap().parse().unwrap()
}

#[test]
fn every_golden_frame_of_the_control_plane_is_read_and_written_back_exactly() {
    let files = golden("to_agent");
    for (name, frame) in &files {
        let Decoded::Message(message) = ToAgent::decode(&frame.to_string()).unwrap() else {
            panic!("{name}")
        };
        let written: Value = serde_json::from_str(&message.encode(time_of(frame))).unwrap();
        assert_eq!(&written, frame, "{name}");
    }
    let mut kinds: Vec<&str> = files.iter().map(|(_, frame)| frame["type"].as_str().unwrap()).collect();
    kinds.dedup();
    assert!(
        ToAgent::KINDS.iter().all(|kind| kinds.contains(kind)),
        "a golden file for every type: {kinds:?}"
    );
}

#[test]
fn every_golden_frame_of_an_agent_is_read_and_written_back_exactly() {
    let files = golden("from_agent");
    for (name, frame) in &files {
        let Decoded::Message(message) = FromAgent::decode(&frame.to_string()).unwrap() else {
            panic!("{name}")
        };
        let written: Value = serde_json::from_str(&message.encode(time_of(frame))).unwrap();
        assert_eq!(&written, frame, "{name}");
    }
    let kinds: Vec<&str> = files.iter().map(|(_, frame)| frame["type"].as_str().unwrap()).collect();
    assert!(
        FromAgent::KINDS.iter().all(|kind| kinds.contains(kind)),
        "a golden file for every type: {kinds:?}"
    );
}
