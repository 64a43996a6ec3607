//! What others make of the same work: `haproxy` as a plain TCP proxy, `websockify` between a WebSocket and a desktop.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{process::Process, stage::free_address};

/// How long one may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where Debian has what belongs into no user's `PATH`.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// One that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    process: Process,
}

impl Proxy {
    /// `haproxy` in front of `target`, as it comes: TCP alone, nothing looked into.
    pub(crate) async fn haproxy(folder: &Path, target: SocketAddr) -> anyhow::Result<Self> {
        let (address, config) = (free_address()?, folder.join("haproxy.cfg"));
        let text = format!(
            "global\n  maxconn 1000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             listen bench\n  bind {address}\n  server session {target}\n"
        );
        fs::write(&config, text).context("haproxy's configuration")?;
        let config = config.to_string_lossy().into_owned();
        Self::start("haproxy", folder, address, &["-db".into(), "-f".into(), config]).await
    }

    /// `websockify` in front of `target`.
    pub(crate) async fn websockify(folder: &Path, target: SocketAddr) -> anyhow::Result<Self> {
        let address = free_address()?;
        Self::start("websockify", folder, address, &[address.to_string(), target.to_string()]).await
    }

    async fn start(
        name: &str,
        folder: &Path,
        address: SocketAddr,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let program = installed(name)?;
        let log = folder.join(format!("{name}.log"));
        let mut process = Process::start(&program, log, |command| {
            command.args(arguments);
        })?;
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            process.check()?;
            ensure!(Instant::now() < until, "{name} does not listen after {PATIENCE:?}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { address, process })
    }

    /// Ends it.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await
    }
}

fn installed(name: &str) -> anyhow::Result<PathBuf> {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|program| program.is_file());
    found
        .with_context(|| format!("{name} is missing: run scripts/install --bench, or apt-get install {name}"))
}
