//! `tidegate-bench`: what this machine does with Tidegate, beside what it does with the bare engines, in one run.
//!
//! Everything runs for real: a private PostgreSQL with durable commits, the control plane and an agent as processes of
//! their own, agents and viewers on WebSockets. Nothing here is a test: nothing is asserted but that what was counted
//! is in the database.

mod age;
mod args;
mod baseline;
mod catalog;
mod credentials;
mod desktop;
mod dispatch;
mod figures;
mod fleet;
mod goals;
mod heartbeats;
mod http;
mod lifecycles;
mod memory;
mod parallel;
mod parts;
mod pipe_store;
mod pipe_terminal;
mod pipes;
mod placement;
mod process;
mod progress;
mod proxies;
mod pty;
mod raw;
mod served;
mod stage;
mod stats;
mod streams;
mod sync;
mod table;
mod terminal;
mod tunnel;
mod viewer;

use std::{fs, future::pending, pin::pin, process::ExitCode};

use args::{Args, Hidden};
use clap::Parser;
use figures::Figures;
use stage::Stage;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.hidden {
        Some(Hidden::Serve { port }) => served::serve(port),
        None => start(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(args: &Args) -> anyhow::Result<()> {
    // Only one part of the process may choose the cryptography, and this is the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut stopped = pin!(stopped()?);
    let mut stage = tokio::select! {
        stage = Stage::start(args) => stage?,
        () = &mut stopped => anyhow::bail!("stopped"),
    };
    let mut figures = Figures::default();
    let measured = tokio::select! {
        measured = parts::run(args, &mut stage, &mut figures) => measured,
        () = &mut stopped => Err(anyhow::anyhow!("stopped")),
    };
    // What was started is stopped, whatever came of the measuring.
    let closed = stage.close(measured.is_err()).await;
    // What was measured before a fault is worth seeing too.
    table::print(args, &figures)?;
    measured.and(closed)
}

/// Waits until somebody wants this to end: at the keyboard, by closing its terminal, or by a signal such as `timeout` sends.
/// `nohup` has it go on without its terminal.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Left alone, so that what is started here ignores it, too.
    let hangup = if ignores_hangup(&status) { None } else { Some(signal(SignalKind::hangup())?) };
    let closed = async {
        match hangup {
            Some(mut hangup) => drop(hangup.recv().await),
            None => pending().await,
        }
    };
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {}, () = closed => {} }
    })
}

/// Whether a process ignores the end of its terminal, by its `/proc/PID/status`: the first signal's bit of those it ignores.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_seen_in_the_signals_that_are_ignored() {
        assert!(ignores_hangup("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_hangup(""));
    }
}
