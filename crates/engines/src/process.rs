//! One running server process, and the watcher that ends it with us.
//! Never restarts anything: that is the supervisor's.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::Context;
use crate::identity::Identity;
use crate::log::Log;
use crate::{Error, Result};

/// How long a stop that leaves the server no choice may take.
const IMMEDIATE: Duration = Duration::from_secs(5);
/// Ends the server when its owner is gone: it holds the reading end of a pipe that nobody writes to, so that `read`
/// returns when the owner's end closes, however the owner ended. It deafens itself to signals meant for a whole group,
/// and makes sure that the pid is still this folder's server.
const WATCHER: &str = r#"trap '' HUP INT TERM
read -r nothing
read -r pid <"$2" 2>/dev/null
case "$pid" in "$1" | "") kill -INT "$1" ;; esac"#;

/// What a server is started with, besides its own command.
pub(crate) struct Start<'a> {
    /// What people call it.
    pub(crate) engine: &'static str,
    /// Who runs it.
    pub(crate) identity: &'a Identity,
    /// Where it writes.
    pub(crate) log: &'a Log,
    /// Where it keeps its pid.
    pub(crate) pid_file: PathBuf,
    /// What ends it: politely, without politeness, at once.
    pub(crate) signals: [Signal; 3],
}

/// A server process and the watcher that ends it with us.
#[derive(Debug)]
pub(crate) struct Server {
    engine: &'static str,
    child: Child,
    watcher: Child,
    pid: u32,
    log_start: u64,
    signals: [Signal; 3],
}

impl Start<'_> {
    /// Starts the server; it is not ready yet.
    pub(crate) fn spawn(self, program: &Path, mut command: Command) -> Result<Server> {
        let (log, log_start) = self.log.open()?;
        let errors = log.try_clone().context("open the log", self.log.path())?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = command.spawn().context("run", program)?;
        let pid = child.id().unwrap_or_default();
        match self.watcher(pid).spawn() {
            Ok(watcher) => {
                Ok(Server { engine: self.engine, child, watcher, pid, log_start, signals: self.signals })
            }
            Err(error) => {
                // without its watcher it could outlive us
                child.start_kill().ok();
                Err(error).context("run", Path::new("/bin/sh"))
            }
        }
    }

    fn watcher(&self, pid: u32) -> Command {
        let mut command = self.identity.command(Path::new("/bin/sh"));
        command.args(["-c", WATCHER, "tidegate-watcher"]).arg(pid.to_string()).arg(&self.pid_file);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Server {
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it did.
    pub(crate) fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Why it did not start, with the end of its log.
    pub(crate) fn failed(&self, log: &Log, reason: String) -> Error {
        let log_tail = log.tail_since(self.log_start);
        Error::NotStarted { engine: self.engine, reason, log: log.path().to_owned(), log_tail }
    }

    /// Waits until the server ends. Dropping the future loses nothing.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.dismiss_watcher().await;
        Ok(status)
    }

    /// A polite shutdown, in which everything is written; past `limit` an impolite one, which the next start recovers
    /// from.
    pub(crate) async fn stop(mut self, limit: Duration) -> Result<()> {
        let [polite, impolite, last] = self.signals;
        for (signal, patience) in [(polite, limit), (impolite, IMMEDIATE), (last, IMMEDIATE)] {
            self.signal(signal);
            if let Ok(ended) = timeout(patience, self.ended()).await {
                ended.context("wait for", Path::new(self.engine))?;
                return Ok(());
            }
            tracing::warn!(pid = self.pid, %signal, engine = self.engine, "the server did not end in time");
        }
        Err(Error::SupervisorLost { engine: self.engine })
    }

    fn signal(&self, signal: Signal) {
        // `id` is there only until the process was waited for, so the pid cannot be a stranger's
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(pid), signal).ok();
        }
    }

    /// The watcher must not see its pipe close any more: the pid it knows is free for others.
    async fn dismiss_watcher(&mut self) {
        if let Err(error) = self.watcher.kill().await {
            tracing::warn!(%error, engine = self.engine, "could not end the watcher of a server that is gone");
        }
    }
}
