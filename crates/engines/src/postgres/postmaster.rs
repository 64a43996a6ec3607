//! The server's command line, and when it is ready.
//! Never restarts anything: that is the supervisor's.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::binaries::Binaries;
use super::layout::{Layout, PORT};
use super::{Durability, ENGINE, recover};
use crate::Result;
use crate::error::Context;
use crate::identity::Identity;
use crate::log::Log;
use crate::process::{Server, Start};
use crate::supervise::Launcher;

/// How often the server's status file is looked at while it starts.
const POLL: Duration = Duration::from_millis(20);

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

impl Launcher for Launch {
    const NAME: &'static str = ENGINE.name;

    fn log(&self) -> &Log {
        &self.log
    }

    fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout
    }

    /// Backends that outlived a killed server hold its memory; a new one refuses to start beside them.
    async fn clear(&self) -> Result<()> {
        recover::clear(self).await
    }

    fn spawn(&self) -> Result<Server> {
        let program = self.binaries.program("postgres");
        let mut command = self.identity.command(&program);
        command.arg("-D").arg(&self.layout.cluster);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let start = Start {
            engine: ENGINE.name,
            identity: &self.identity,
            log: &self.log,
            pid_file: self.layout.cluster.join("postmaster.pid"),
            // sessions are cut and everything is written; at once, which the next start recovers from; killed
            signals: [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL],
        };
        start.spawn(&program, command)
    }

    async fn until_ready(&self, server: &mut Server, limit: Option<Duration>) -> Result<()> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            if accepts_connections(&self.layout.cluster, Some(server.pid())) {
                return Ok(());
            }
            if let Some(status) = server.try_wait().context("wait for", &self.layout.cluster)? {
                return Err(server.failed(&self.log, format!("it ended with {status}")));
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                let reason = format!("it was not ready after {:?}", limit.unwrap_or_default());
                return Err(server.failed(&self.log, reason));
            }
            sleep(POLL).await;
        }
    }
}

impl Launch {
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
}

/// The server writes its state into the eighth line of its pid file; with `pid`, the first line must be that one.
pub(super) fn accepts_connections(cluster: &Path, pid: Option<u32>) -> bool {
    let text = std::fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    let recorded = lines.next().and_then(|line| line.trim().parse().ok());
    let ours = pid.is_none_or(|pid| recorded == Some(pid));
    ours && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}
