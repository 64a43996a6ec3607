//! One running server process: spawned, watched until it is ready, stopped.
//! Never restarts anything: that is the supervisor's.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::Durability;
use super::binaries::Binaries;
use super::identity::Identity;
use super::layout::{Layout, PORT};
use super::log::Log;
use crate::error::Context;
use crate::{Error, Result};

/// How often the server's status file is looked at while it starts.
const POLL: Duration = Duration::from_millis(20);
/// How long an immediate shutdown may take.
const IMMEDIATE: Duration = Duration::from_secs(5);
/// Ends the server when its owner is gone: it holds the reading end of a pipe that nobody writes to, so that `read`
/// returns when the owner's end closes, however the owner ended. It deafens itself to signals meant for a whole group,
/// and makes sure that the pid is still this cluster's server.
const WATCHER: &str = r#"trap '' HUP INT TERM
read -r nothing
read -r pid <"$2/postmaster.pid" 2>/dev/null
case "$pid" in "$1" | "") kill -INT "$1" ;; esac"#;

/// What it takes to launch the server, again and again.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) layout: Layout,
    pub(super) binaries: Binaries,
    pub(super) identity: Identity,
    pub(super) log: Log,
    pub(super) durability: Durability,
    pub(super) max_connections: u32,
    pub(super) shutdown_timeout: Duration,
}

/// A server process and the watcher that ends it with us.
#[derive(Debug)]
pub(super) struct Postmaster {
    child: Child,
    watcher: Child,
    pid: u32,
    log_start: u64,
}

impl Launch {
    /// Starts the server; it is not ready yet.
    pub(super) fn spawn(&self) -> Result<Postmaster> {
        let (log, log_start) = self.log.open()?;
        let program = self.binaries.program("postgres");
        let mut command = self.identity.command(&program);
        command.arg("-D").arg(&self.layout.cluster);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let errors = log.try_clone().context("open the log", self.log.path())?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = command.spawn().context("run", &program)?;
        let pid = child.id().unwrap_or_default();
        match self.watcher(pid).spawn() {
            Ok(watcher) => Ok(Postmaster { child, watcher, pid, log_start }),
            Err(error) => {
                // without its watcher it could outlive us
                child.start_kill().ok();
                Err(error).context("run", Path::new("/bin/sh"))
            }
        }
    }

    fn watcher(&self, pid: u32) -> Command {
        let mut command = self.identity.command(Path::new("/bin/sh"));
        command.args(["-c", WATCHER, "tidegate-watcher"]).arg(pid.to_string()).arg(&self.layout.cluster);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// What the server is told on its command line, where no configuration file can contradict it. Everything else
    /// (memory, autovacuum, …) stays the operator's, in `postgresql.conf`.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let sockets = self.layout.sockets.display().to_string();
        let mut settings: Vec<(&str, String)> = vec![
            ("listen_addresses", String::new()),
            // quoted, because the value is a list
            ("unix_socket_directories", format!("\"{}\"", sockets.replace('"', "\"\""))),
            ("unix_socket_permissions", "0700".to_owned()),
            ("port", PORT.to_string()),
            ("max_connections", self.max_connections.to_string()),
            ("password_encryption", "scram-sha-256".to_owned()),
            ("timezone", "UTC".to_owned()),
            ("log_timezone", "UTC".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("log_destination", "stderr".to_owned()),
            ("log_line_prefix", "%m [%p] %q%u@%d ".to_owned()),
        ];
        let switch = match self.durability {
            Durability::Full => "on",
            Durability::OffForTests => "off",
        };
        for name in ["fsync", "full_page_writes"] {
            settings.push((name, switch.to_owned()));
        }
        // in tests too: a killed server, unlike a power cut, must not lose a commit even without fsync
        settings.push(("synchronous_commit", "on".to_owned()));
        settings
    }

    fn failed(&self, postmaster: &Postmaster, reason: String) -> Error {
        let log_tail = self.log.tail_since(postmaster.log_start);
        Error::NotStarted { reason, log: self.log.path().to_owned(), log_tail }
    }

    /// Waits until the server accepts connections. With no deadline it waits as long as crash recovery takes.
    pub(super) async fn until_ready(
        &self,
        postmaster: &mut Postmaster,
        limit: Option<Duration>,
    ) -> Result<()> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            if accepts_connections(&self.layout.cluster, Some(postmaster.pid)) {
                return Ok(());
            }
            if let Some(status) = postmaster.child.try_wait().context("wait for", &self.layout.cluster)? {
                return Err(self.failed(postmaster, format!("it ended with {status}")));
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Err(self
                    .failed(postmaster, format!("it was not ready after {:?}", limit.unwrap_or_default())));
            }
            sleep(POLL).await;
        }
    }
}

/// The server writes its state into the eighth line of its pid file; with `pid`, the first line must be that one.
pub(super) fn accepts_connections(cluster: &Path, pid: Option<u32>) -> bool {
    let text = std::fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    let recorded = lines.next().and_then(|line| line.trim().parse().ok());
    let ours = pid.is_none_or(|pid| recorded == Some(pid));
    ours && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

impl Postmaster {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the server ends. Dropping the future loses nothing.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.dismiss_watcher().await;
        Ok(status)
    }

    /// A fast shutdown (sessions are cut, everything is written); past `limit` an immediate one, which the next start
    /// recovers from.
    pub(super) async fn stop(mut self, limit: Duration) -> Result<()> {
        for (signal, patience) in
            [(Signal::SIGINT, limit), (Signal::SIGQUIT, IMMEDIATE), (Signal::SIGKILL, IMMEDIATE)]
        {
            self.signal(signal);
            if let Ok(ended) = timeout(patience, self.ended()).await {
                ended.context("wait for", Path::new("postgres"))?;
                return Ok(());
            }
            tracing::warn!(pid = self.pid, %signal, "PostgreSQL did not end in time");
        }
        Err(Error::SupervisorLost)
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
            tracing::warn!(%error, "could not end the watcher of a PostgreSQL that is gone");
        }
    }
}
