//! The ledger: each start of each session's program adds a line to it before anything else, so a start that happened
//! twice stands there twice. Containers see no file of the machine: each signs a ledger in its home, with its own id, and
//! so every container that was ever started for a session is known.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use tokio::time::{Instant, sleep};

/// How long a program that runs may take to write its line.
const PATIENCE: Duration = Duration::from_mins(1);

/// A start: session and generation.
pub(crate) type Start = (String, i64);

/// The file in a container's home.
const AT_HOME: &str = "chaos-ledger";
/// Signs it. The container's id stands in the paths of what the engine mounted.
const SIGN_AT_HOME: &str = r#"echo "$TIDEGATE_SESSION_ID $(sed -n 's|.*/containers/\([0-9a-f]*\)/hostname.*|\1|p' /proc/self/mountinfo)" >> "$HOME/chaos-ledger""#;

/// The file and what it means.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    file: PathBuf,
    /// Where the engine keeps the homes of containers.
    homes: Option<PathBuf>,
    /// What was found in homes, which go with their sessions.
    seen: Arc<Mutex<BTreeMap<Container, usize>>>,
}

/// A container that signed: session and the container's own id.
pub(crate) type Container = (String, String);

impl Ledger {
    /// Makes it, writable for the users of all sessions.
    pub(crate) fn create(file: PathBuf, homes: Option<PathBuf>) -> anyhow::Result<Self> {
        fs::write(&file, "").context("the ledger cannot be made")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
        Ok(Self { file, homes, seen: Arc::default() })
    }

    /// A script for a container that signs, then does `after`.
    pub(crate) fn script_at_home(after: &str) -> Vec<String> {
        vec!["sh".into(), "-c".into(), format!("{SIGN_AT_HOME}; {after}")]
    }

    /// How often each container signed, as far as it was ever seen.
    pub(crate) fn containers(&self) -> BTreeMap<Container, usize> {
        let homes = self.homes.iter().flat_map(|homes| fs::read_dir(homes).into_iter().flatten().flatten());
        let texts = homes.filter_map(|home| fs::read_to_string(home.path().join("_data").join(AT_HOME)).ok());
        let mut now: BTreeMap<Container, usize> = BTreeMap::new();
        for text in texts {
            for (session, container) in text.lines().filter_map(|line| line.split_once(' ')) {
                *now.entry((session.to_owned(), container.to_owned())).or_default() += 1;
            }
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (container, times) in now {
            let most = seen.entry(container).or_default();
            *most = times.max(*most);
        }
        seen.clone()
    }

    /// Waits until at least `count` containers of a session have signed; false when they do not.
    pub(crate) async fn has_containers(&self, session: &str, count: usize) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.containers().keys().filter(|(of, _)| of == session).count() >= count {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// A script that writes its line, then does `after`.
    pub(crate) fn script(&self, after: &str) -> Vec<String> {
        // One short write to a file opened for appending: lines of different sessions never mix.
        let line = r#"echo "$TIDEGATE_SESSION_ID $TIDEGATE_SESSION_GENERATION" >> "$0""#;
        let text = format!("{line}; {after}");
        vec!["sh".into(), "-c".into(), text, self.file.display().to_string()]
    }

    /// How often each start happened.
    pub(crate) fn read(&self) -> anyhow::Result<BTreeMap<Start, usize>> {
        let text = fs::read_to_string(&self.file).context("the ledger cannot be read")?;
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
