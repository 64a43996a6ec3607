//! Flags.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

/// Measures Tidegate on this machine: a private PostgreSQL with durable commits, the control plane and an agent are
/// started in a temporary folder, loaded, measured and removed again. Only loopback is used.
#[derive(Debug, Parser)]
#[command(version, name = "tidegate-bench")]
pub(crate) struct Args {
    /// A short run: every part for a few seconds on a database aged a little; good to see that it works
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only this part; may be given more than once
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) only: Vec<Part>,
    /// JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Simulated agents that take sessions
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) agents: u32,
    /// Organizations that ask for sessions
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) organizations: u32,
    /// HTTP connections that ask for sessions
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Simulated agents that are merely connected [default: 2000, quick: 500]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    idle_agents: Option<u32>,
    /// Finished commands in the database before anything is measured [default: 1000000, quick: 20000]
    #[arg(long, value_name = "NUMBER")]
    aged: Option<u32>,
    /// Seconds each rate is measured for [default: 15, quick: 3]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Where the temporary folder is made; a short path on a real disk, or durable commits say nothing
    #[arg(long, value_name = "FOLDER", default_value = "/tmp")]
    pub(crate) folder: PathBuf,
    /// Folder with tidegate-control-plane and tidegate-agent [default: this program's own]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) programs: Option<PathBuf>,
    /// Keep the temporary folder, for a look at the logs
    #[arg(long)]
    pub(crate) keep: bool,
    /// Measure the foundation's parts again with so many times the rows (10 where no number is given) and the idle agents
    /// connected, in a second column; choose --aged so that it fits the disk
    #[arg(long, value_name = "TIMES", num_args = 0..=1, require_equals = true, default_missing_value = "10",
        value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) grown: Option<u32>,
    #[command(subcommand)]
    pub(crate) hidden: Option<Hidden>,
}

/// What the sessions of the measurements run.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Hidden {
    /// Serves answers and pictures from memory on a port of loopback
    #[command(hide = true)]
    Serve {
        /// The port
        #[arg(long, env = "PORT")]
        port: u16,
    },
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Sessions started, in many organizations and in one
    Lifecycles,
    /// From the answer to the agent's frame
    Dispatch,
    /// The real terminal, and keystrokes beside a burst
    Terminal,
    /// One tunnel fed from memory
    Tunnel,
    /// Web applications and desktops, beside haproxy and websockify
    Streams,
    /// Many streams on one agent, one of them stalled
    Parallel,
    /// Creates with a few agents and with a thousand
    Placement,
    /// Memory of agents that are merely connected
    Memory,
    /// Heartbeats over WebSockets
    Heartbeats,
    /// API keys, right and wrong
    Keys,
    /// Logins, and what others feel of them
    Logins,
    /// The first page of a hundred thousand users
    Users,
    /// Searches of fifty thousand catalog entries, and storms of views and ratings
    Catalog,
    /// Syncs of a git repository with two thousand manifests
    Sync,
    /// Messages beside a bare client of NATS, credentials for NATS, thousands of pipes, terminals over pipes
    Pipes,
}

impl Args {
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub(crate) fn idle_agents(&self) -> u32 {
        self.idle_agents.unwrap_or(if self.quick { 500 } else { 2_000 })
    }

    /// Agents of the placement that has many.
    pub(crate) fn placed_agents(&self) -> u32 {
        self.idle_agents().min(1_000)
    }

    pub(crate) fn aged(&self) -> u32 {
        self.aged.unwrap_or(if self.quick { 20_000 } else { 1_000_000 })
    }

    /// How long a rate is measured.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 3 } else { 15 }))
    }

    /// Bytes the terminal's program prints.
    pub(crate) fn terminal_bytes(&self) -> u64 {
        (if self.quick { 32 } else { 256 }) * 1024 * 1024
    }

    /// Keys that are typed.
    pub(crate) fn keystrokes(&self) -> usize {
        if self.quick { 200 } else { 1_000 }
    }
}
