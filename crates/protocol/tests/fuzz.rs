//! What the fuzz targets check, at every run: with the golden frames, with those damaged in one place, and with noise.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files should fail at once")]

#[path = "../../../fuzz/src/lib.rs"]
pub mod checks;

use std::{fs, path::PathBuf};

use proptest::{prelude::*, sample::Index};

const CHECKS: [fn(&[u8]); 4] =
    [checks::from_agent, checks::to_agent, checks::terminal_frame, checks::quantity];

/// Frames of both directions, of terminals, and quantities.
fn corpus() -> Vec<Vec<u8>> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut corpus: Vec<Vec<u8>> = [
        r#"{"type":"resize","cols":80,"rows":24}"#,
        r#"{"type":"exit","code":137,"signal":"SIGKILL"}"#,
        r#"{"type":"mode","mode":"view"}"#,
        r#"{"type":"offset","offset":18446744073709551615}"#,
        "1.5Gi",
        "0.0000000001",
        "-12e-3",
        "9223372036854775807Ei",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    for direction in ["from_agent", "to_agent"] {
        let files = fs::read_dir(golden.join(direction)).unwrap();
        corpus.extend(files.map(|file| fs::read(file.unwrap().path()).unwrap()));
    }
    corpus
}

#[test]
fn what_is_known_passes_every_check() {
    let corpus = corpus();
    assert!(corpus.len() > 20, "the golden files are where they were: {}", corpus.len());
    for bytes in &corpus {
        for check in CHECKS {
            check(bytes);
        }
    }
}

proptest! {
    #[test]
    fn what_is_damaged_passes_every_check(which: Index, at: Index, byte: u8, cut: bool) {
        let mut bytes = which.get(&corpus()).clone();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        for check in CHECKS {
            check(&bytes);
        }
    }

    #[test]
    fn noise_passes_every_check(bytes: Vec<u8>) {
        for check in CHECKS {
            check(&bytes);
        }
    }

    #[test]
    fn what_looks_like_a_quantity_passes_its_check(text in "[-+]?[0-9]{0,22}(\\.[0-9]{0,12})?([eE][-+]?[0-9]{1,3}|[numkKMGTPE]i?)?") {
        checks::quantity(text.as_bytes());
    }
}
