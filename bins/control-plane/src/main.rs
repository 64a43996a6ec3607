//! `tidegate-control-plane`: flags and signals, then one call into the library.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tidegate_control_plane::{Config, chain, log, raise_descriptors, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The server of Tidegate. Without a configuration it serves on 127.0.0.1:8080 with a PostgreSQL of its own.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Configuration file (TOML); the environment (`TIDEGATE__SECTION__KEY`) wins over it
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Print the settings that are in force, without secrets, and exit
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref()).map_err(|error| anyhow::anyhow!(chain(&error)))?;
    if args.print_config {
        use std::io::Write as _;
        return Ok(writeln!(std::io::stdout(), "{config:#?}")?);
    }
    log::init(&config.log).map_err(|error| anyhow::anyhow!(chain(&error)))?;
    if let Err(error) = raise_descriptors() {
        tracing::warn!(%error, "going on with the limit of open files that is there");
    }
    // Only one part of the process may choose the cryptography, and this is the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        told.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        eprintln!("tidegate-control-plane: second signal, not waiting any longer");
        // The private PostgreSQL ends with this process; what was acknowledged is on disk.
        std::process::exit(1);
    });
    run(config, shutdown).await.map_err(|error| anyhow::anyhow!(chain(&error)))
}
