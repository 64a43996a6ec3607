//! The server's command line, when it is ready, and what an earlier run left of it.
//! Never restarts anything: that is the supervisor's.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::ENGINE;
use super::binary::Binary;
use super::layout::Layout;
use super::port;
use crate::error::Context;
use crate::identity::Identity;
use crate::leftovers::Leftovers;
use crate::log::Log;
use crate::process::{Server, Start};
use crate::supervise::Launcher;
use crate::{Error, Result};

/// By how many hundredths its heap may grow before what is not used any more is freed. Its usual 100 keeps some 80 KiB for each
/// stream that was used once, half of that some 65, for a little more work.
const COLLECT: &str = "50";
/// How often the server is asked whether it is there.
const POLL: Duration = Duration::from_millis(20);

/// What it takes to launch the server, again and again.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) layout: Layout,
    pub(super) binary: Binary,
    pub(super) identity: Identity,
    pub(super) log: Log,
    pub(super) port: u16,
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

    async fn clear(&self) -> Result<()> {
        clear(&self.layout, &self.identity, self.shutdown_timeout).await
    }

    fn spawn(&self) -> Result<Server> {
        let mut command = self.identity.command(&self.binary.path);
        // leftovers are told by where they work
        command.current_dir(&self.layout.folder);
        command.env("GOGC", COLLECT);
        command.arg("--config").arg(&self.layout.config).arg("--name").arg(self.name());
        let start = Start {
            engine: ENGINE.name,
            identity: &self.identity,
            log: &self.log,
            pid_file: self.layout.pid.clone(),
            // it writes everything; the same again; killed
            signals: [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL],
        };
        start.spawn(&self.binary.path, command)
    }

    /// It listens once its streams are recovered. A stranger on the port does not pass for it.
    async fn until_ready(&self, server: &mut Server, limit: Option<Duration>) -> Result<()> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let name = format!("\"server_name\":\"{}\"", self.name());
        let pid = i32::try_from(server.pid()).ok();
        loop {
            if let Some(status) = server.try_wait().context("wait for", &self.layout.folder)? {
                return Err(server.failed(&self.log, format!("it ended with {status}")));
            }
            let port = self.port;
            let greeting = spawn_blocking(move || port::greeting(port)).await.ok().flatten();
            if recorded_pid(&self.layout) == pid && greeting.is_some_and(|text| text.contains(&name)) {
                return Ok(());
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
    fn name(&self) -> String {
        format!("tidegate-{}", self.port)
    }
}

/// Ends what an earlier run left: nats-server does not lock its store, and two on one folder would destroy it.
pub(super) async fn clear(layout: &Layout, identity: &Identity, patience: Duration) -> Result<()> {
    if Path::new("/proc/self/cwd").exists() {
        let leftovers = Leftovers {
            engine: ENGINE.name,
            identity,
            folder: &layout.folder,
            names: ["nats-server", "nats-server"],
            impolite: Signal::SIGTERM,
        };
        return leftovers.end(recorded_pid(layout), patience).await;
    }
    // no /proc: that the recorded process lives is the only sign
    match recorded_pid(layout).filter(|pid| kill(Pid::from_raw(*pid), None).is_ok()) {
        Some(pid) => Err(Error::Orphans { pids: vec![pid], cluster: layout.folder.clone() }),
        None => Ok(()),
    }
}

fn recorded_pid(layout: &Layout) -> Option<i32> {
    fs::read_to_string(&layout.pid).ok()?.trim().parse().ok()
}
