//! `tidegate-agent`: flags and configuration, then one call into the agent's crate. The hidden subcommands are what
//! the agent starts itself as.

mod settings;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use settings::{Cli, LogFormat, Other, PlatformOptions};
use tidegate_agent::{
    DockerPlatform, Platform, ProcessPlatform, raise_descriptors, run, session_container, session_desktop,
    session_exec, session_shim,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.other {
        Some(Other::SessionShim) => return session_shim(),
        Some(Other::SessionExec { spec }) => return session_exec(spec),
        Some(Other::SessionDesktop { socket, argv }) => return session_desktop(socket, argv),
        Some(Other::SessionContainer { spec }) => return session_container(spec),
        Some(Other::Completions { shell }) => return completions(*shell),
        None => {}
    }
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate-agent", &mut script);
    match io::stdout().lock().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[tokio::main]
async fn start(cli: Cli) -> anyhow::Result<()> {
    let settings = cli.settings.merge_file(cli.config.as_deref())?;
    let filter = EnvFilter::try_new(settings.log()).context("log filter")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format() {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    // Only one part of the process may choose the cryptography, and this is the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let Err(error) = raise_descriptors() {
        tracing::warn!(error = error.chain(), "going on with the limit of open files that is there");
    }
    let (options, platform) = settings.options()?;
    let told = |error: tidegate_agent::Error| anyhow::anyhow!(error.chain());
    let platform: Arc<dyn Platform> = match platform {
        PlatformOptions::Vm(process) => Arc::new(ProcessPlatform::open(process).map_err(told)?),
        PlatformOptions::Docker(docker) => Arc::new(DockerPlatform::open(docker).await.map_err(told)?),
    };
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        told.cancel();
    });
    let exited = run(options, platform, shutdown).await;
    exited.map(drop).map_err(|error| anyhow::anyhow!(error.chain()))
}
