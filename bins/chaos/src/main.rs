//! `tidegate-chaos`: the real programs under load while they are killed (`faults`, `pipes`) or their disk is cut off
//! (`power-cut`, `pipes-power-cut`), and then a look at what is left. It starts everything it touches, in a folder of its own, and ends
//! it again on every way out. It is a test that runs for minutes, never a part of the product.

mod check;
mod client;
mod containers;
mod disk;
mod engine;
mod faults;
mod hand;
mod judge;
mod ledger;
mod load;
mod machine;
mod pipes;
mod pipes_power_cut;
mod plan;
mod power;
mod power_cut;
mod program;
mod readers;
mod report;
mod senders;
mod sql;
mod stand;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Kills Tidegate's programs under load and looks for what was lost. Exit code 1: something was.
#[derive(Debug, Parser)]
#[command(version, name = "tidegate-chaos")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// `kill -9` of control plane, PostgreSQL, agents and Docker engine at random points of session starts and stops
    Faults(faults::Wishes),
    /// The database's disk stops in the middle of a write; the server starts on what had reached it. Needs root and
    /// loop devices: exit code 2 without them
    PowerCut(power_cut::Wishes),
    /// `kill -9` of control plane, nats-server and PostgreSQL at random while messages are sent and read
    Pipes(pipes::Wishes),
    /// The same disk stops under the store of nats-server. Needs root and loop devices: exit code 2 without them
    PipesPowerCut(pipes_power_cut::Wishes),
}

/// What both runs can be told.
#[derive(Debug, Clone, Args)]
struct Common {
    /// Sessions to start, and most of them to stop
    #[arg(long, default_value_t = 200)]
    sessions: usize,
    /// Sessions in the works at one time
    #[arg(long, default_value_t = 8)]
    parallel: usize,
    #[command(flatten)]
    run: Run,
}

/// What every run can be told.
#[derive(Debug, Clone, Args)]
struct Run {
    /// Repeats what an earlier run drew: plans, kinds of faults and pauses, not the machine's own timing
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds until everything must be quiet after the last fault
    #[arg(long, default_value_t = 180)]
    settle: u64,
    /// Folder with the programs [default: the one of this program]
    #[arg(long, value_name = "FOLDER")]
    bin_dir: Option<PathBuf>,
    /// Keep the folder with data and logs; it is kept after a violation anyway
    #[arg(long)]
    keep: bool,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

impl Run {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| rand::random_range(1..1_000_000))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // Only one part of the process may choose the cryptography, and this is the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let run = async {
        match cli.verb {
            Verb::Faults(wishes) => faults::run(wishes).await,
            Verb::PowerCut(wishes) => power_cut::run(wishes).await,
            Verb::Pipes(wishes) => pipes::run(wishes).await,
            Verb::PipesPowerCut(wishes) => pipes_power_cut::run(wishes).await,
        }
    };
    // Dropping the run ends and unmounts everything it started.
    let ended = tokio::select! {
        ended = run => ended,
        error = told_to_stop() => Err(error),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("tidegate-chaos: {error:#}");
        ExitCode::FAILURE
    })
}

async fn told_to_stop() -> anyhow::Error {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return anyhow::anyhow!("signals cannot be waited for");
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    anyhow::anyhow!("stopped by a signal, nothing was proved")
}
