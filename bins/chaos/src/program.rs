//! One child process that is killed and started again, as an init system would.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use nix::sys::signal::Signal;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::machine;

/// A program with its arguments, running or not.
#[derive(Debug)]
pub(crate) struct Program {
    name: &'static str,
    path: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    /// How often it ended although nobody killed it.
    pub(crate) ended_by_itself: Vec<String>,
}

impl Program {
    /// `file` of a folder, known as `name`.
    pub(crate) fn new(
        name: &'static str,
        file: &str,
        bin_dir: &Path,
        arguments: Vec<String>,
        logs: &Path,
    ) -> Self {
        let log = logs.join(format!("{name}.log"));
        Self { name, path: bin_dir.join(file), arguments, log, child: None, ended_by_itself: Vec::new() }
    }

    fn open_log(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.log)
    }

    /// Starts it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let (out, errors) = (self.open_log()?, self.open_log()?);
        let child = Command::new(&self.path)
            .args(&self.arguments)
            // Settings of whoever runs this must not reach it.
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            // A Ctrl-C is for the driver, which then ends this one.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started: build it first", self.path.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        i32::try_from(self.child.as_ref()?.id()?).ok()
    }

    /// Notes an end that nobody asked for.
    pub(crate) fn look(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            self.child = None;
            self.ended_by_itself.push(format!("{} ended by itself with {status}", self.name));
        }
    }

    /// Whether it runs, as far as was looked.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.look();
        if let Some(mut child) = self.child.take() {
            // Fails only when it is gone already.
            let _ = child.kill().await;
        }
    }

    /// Asks it to end and waits.
    pub(crate) async fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.look();
        if let Some(pid) = self.pid() {
            machine::send(pid, Signal::SIGTERM);
        }
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Ok(status) = timeout(patience, child.wait()).await {
            let status = status?;
            anyhow::ensure!(status.success(), "{} ended with {status} when it was asked to stop", self.name);
            return Ok(());
        }
        let _ = child.kill().await;
        anyhow::bail!("{} did not stop within {} s", self.name, patience.as_secs())
    }
}
