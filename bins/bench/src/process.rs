//! A program of ours as a process of its own, its log in a file.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long a program may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(40);

/// A running program. Dropping it asks it to end, together with what it started.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    pid: i32,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; what it logs goes to `log`.
    pub(crate) fn start(
        program: &Path,
        log: PathBuf,
        set: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let to = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let mut command = Command::new(program);
        command.stdin(std::process::Stdio::null()).stdout(to.try_clone()?).stderr(to);
        set(&mut command);
        let child = command.spawn().with_context(|| {
            format!("{} does not start: build it with --release first", program.display())
        })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("it ended at once")?;
        Ok(Self { name, child, pid, log })
    }

    /// The end of its log, if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!("{} ended ({status}): {}", self.name, self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("; ")
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        resident(self.pid)
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        // It may have ended already; then there is nobody to ask.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
            anyhow::bail!("{} did not end and was killed: {}", self.name, self.last_words());
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The number of one that was waited for may be another's by now.
        if self.child.id().is_some() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
        }
    }
}

/// A process's resident memory in KiB.
pub(crate) fn resident(pid: impl std::fmt::Display) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).context("the process's memory cannot be read")
}
