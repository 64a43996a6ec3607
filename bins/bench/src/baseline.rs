//! What the machine does without Tidegate: transactions of pgbench on the same cluster, bytes over loopback.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::process::Command;
use url::Url;

use crate::{progress::during, stage::Stage, stats::mebibytes};

/// The database of pgbench, in the same cluster.
const DATABASE: &str = "pgbench";
/// Bytes of one write.
const CHUNK: usize = 64 * 1024;

/// pgbench on this cluster.
#[derive(Debug)]
pub(crate) struct PgBench {
    url: Url,
    host: String,
}

impl PgBench {
    /// Makes its tables, at scale 10.
    pub(crate) async fn prepare(stage: &Stage) -> anyhow::Result<Self> {
        stage.postgres.run_superuser_sql("postgres", &format!("CREATE DATABASE {DATABASE}")).await?;
        let url = Url::parse(&stage.postgres.superuser_url(DATABASE))?;
        let host = stage.postgres.socket_dir().to_string_lossy().into_owned();
        let bench = Self { url, host };
        during("pgbench's tables", bench.run(&["--initialize", "--scale=10", "--quiet"])).await?;
        Ok(bench)
    }

    /// Transactions a second of its simple-update script, 16 clients.
    pub(crate) async fn simple_update(&self, length: Duration) -> anyhow::Result<f64> {
        self.rate("pgbench, simple update", "--skip-some-updates", length).await
    }

    /// Transactions a second of its select-only script, 16 clients.
    pub(crate) async fn select_only(&self, length: Duration) -> anyhow::Result<f64> {
        self.rate("pgbench, select only", "--select-only", length).await
    }

    async fn rate(&self, what: &str, script: &str, length: Duration) -> anyhow::Result<f64> {
        let seconds = format!("--time={}", length.as_secs().max(1));
        let said =
            during(what, self.run(&[script, "--client=16", "--jobs=2", "--no-vacuum", &seconds])).await?;
        let line = said.lines().find_map(|line| line.strip_prefix("tps = "));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("pgbench said no rate: {said}"))
    }

    async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("pgbench")
            .args(arguments)
            .env("PGHOST", &self.host)
            .env("PGUSER", self.url.username())
            .env("PGPASSWORD", self.url.password().unwrap_or_default())
            .env("PGDATABASE", DATABASE)
            .kill_on_drop(true)
            .output()
            .await
            .context(
                "pgbench does not start: `apt-get install postgresql-contrib`, or put its folder into PATH",
            )?;
        if !output.status.success() {
            bail!("pgbench: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// MiB a second that one plain program sends another over loopback, in writes of 64 KiB.
pub(crate) async fn tcp_copy(length: Duration) -> anyhow::Result<f64> {
    during("plain TCP copy", async move { tokio::task::spawn_blocking(move || copy(length)).await? }).await
}

fn copy(length: Duration) -> anyhow::Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let started = Instant::now();
    let sending = std::thread::spawn(move || -> std::io::Result<()> {
        let chunk = vec![b'x'; CHUNK];
        while started.elapsed() < length {
            sender.write_all(&chunk)?;
        }
        Ok(())
    });
    let (mut buffer, mut bytes) = (vec![0; CHUNK], 0_u64);
    loop {
        let read = receiver.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
    }
    let elapsed = started.elapsed();
    sending.join().map_err(|_| anyhow::anyhow!("the sender ended by itself"))??;
    Ok(mebibytes(bytes, elapsed))
}
