//! The ledger: each start of each session's program adds a line to it before anything else, so a start that happened
//! twice stands there twice.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use anyhow::Context;
use tokio::time::{Instant, sleep};

/// How long a program that runs may take to write its line.
const PATIENCE: Duration = Duration::from_mins(1);

/// A start: session and generation.
pub(crate) type Start = (String, i64);

/// The file and what it means.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(PathBuf);

impl Ledger {
    /// Makes it, writable for the users of all sessions.
    pub(crate) fn create(path: PathBuf) -> anyhow::Result<Self> {
        fs::write(&path, "").context("the ledger cannot be made")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        Ok(Self(path))
    }

    /// A script that writes its line, then does `after`.
    pub(crate) fn script(&self, after: &str) -> Vec<String> {
        // One short write to a file opened for appending: lines of different sessions never mix.
        let line = r#"echo "$TIDEGATE_SESSION_ID $TIDEGATE_SESSION_GENERATION" >> "$0""#;
        let text = format!("{line}; {after}");
        vec!["sh".into(), "-c".into(), text, self.0.display().to_string()]
    }

    /// How often each start happened.
    pub(crate) fn read(&self) -> anyhow::Result<BTreeMap<Start, usize>> {
        let text = fs::read_to_string(&self.0).context("the ledger cannot be read")?;
        let mut starts = BTreeMap::new();
        for line in text.lines() {
            let (session, generation) =
                line.split_once(' ').with_context(|| format!("ledger line {line:?}"))?;
            *starts.entry((session.to_owned(), generation.parse()?)).or_default() += 1;
        }
        Ok(starts)
    }

    /// Waits for a line; false when it does not come.
    pub(crate) async fn has(&self, start: &Start) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.read().is_ok_and(|starts| starts.contains_key(start)) {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }
}
