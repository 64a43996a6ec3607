//! Finds and ends the processes that an earlier run left in an engine's folder.
//! Never touches a process that does not work inside this very folder.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::identity::Identity;
use crate::{Error, Result, programs};

/// How often the end of a process is looked for.
const POLL: Duration = Duration::from_millis(50);
/// How long processes get after a signal that leaves them no choice.
const GRACE: Duration = Duration::from_secs(5);
/// Lists the pids of this user's processes of some names whose working folder is the engine's. Others are not readable.
const LIST_MEMBERS: &str = r#"for process in /proc/[0-9]*; do
  [ "$process/cwd" -ef "$1" ] 2>/dev/null || continue
  name=
  read -r name <"$process/comm" 2>/dev/null
  case "$name" in "$2"* | "$3"*) echo "${process#/proc/}" ;; esac
done 2>/dev/null
exit 0"#;

/// Where processes of an engine may be left, and how they are told.
pub(crate) struct Leftovers<'a> {
    /// What people call the engine.
    pub(crate) engine: &'static str,
    /// Who runs it.
    pub(crate) identity: &'a Identity,
    /// The folder its processes work in.
    pub(crate) folder: &'a Path,
    /// How their names begin.
    pub(crate) names: [&'static str; 2],
    /// What ends one that nothing else ended.
    pub(crate) impolite: Signal,
}

impl Leftovers<'_> {
    /// Ends every process of the engine. `server`, where it is one of them, gets `patience` for a polite end first.
    /// The caller holds the owner's lock.
    pub(crate) async fn end(&self, server: Option<i32>, patience: Duration) -> Result<()> {
        let running = self.members().await?;
        if let Some(pid) = server.filter(|pid| running.contains(pid)) {
            tracing::warn!(engine = self.engine, pid, "stopping the server of an owner that is gone");
            signal(&BTreeSet::from([pid]), Signal::SIGINT);
            self.gone_within(patience).await?;
        }
        for last_resort in [self.impolite, Signal::SIGKILL] {
            let running = self.members().await?;
            if running.is_empty() {
                return Ok(());
            }
            tracing::warn!(engine = self.engine, pids = ?running, signal = %last_resort, "ending leftover processes");
            signal(&running, last_resort);
            self.gone_within(GRACE).await?;
        }
        let pids = self.members().await?;
        if pids.is_empty() {
            return Ok(());
        }
        Err(Error::Orphans { pids: pids.into_iter().collect(), cluster: self.folder.to_owned() })
    }

    async fn gone_within(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !self.members().await?.is_empty() && Instant::now() < deadline {
            sleep(POLL).await;
        }
        Ok(())
    }

    /// The processes of this folder, told by its device and inode, so that neither a reused pid nor a folder of the same
    /// name elsewhere is mistaken for ours.
    ///
    /// The engine's user looks, because in a container root may lack the right to see where another user's process works.
    async fn members(&self) -> Result<BTreeSet<i32>> {
        if !self.folder.exists() {
            return Ok(BTreeSet::new());
        }
        let mut command = self.identity.command(Path::new("/bin/sh"));
        command.args(["-c", LIST_MEMBERS, "tidegate-members"]).arg(self.folder).args(self.names);
        let pids = programs::run("sh", command, "").await?;
        Ok(pids.lines().filter_map(|pid| pid.parse().ok()).collect())
    }
}

fn signal(pids: &BTreeSet<i32>, signal: Signal) {
    for pid in pids {
        // the only failure here is that it is gone, which is what is wanted
        kill(Pid::from_raw(*pid), signal).ok();
    }
}
