//! The words about NATS, which carries pipes.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

/// What to do with NATS.
#[derive(Debug, Subcommand)]
pub(crate) enum NatsVerb {
    /// The operator's keys, what they signed, what waits, and every server with its store
    Show,
    /// Print what the configuration of a nats-server of your own has to include; nothing in it is secret
    Config(ConfigArgs),
    /// Make a new signing key for the operator, sign every account with it, and end the old one
    ///
    /// A nats-server learns whom it trusts at its start alone. The control plane starts its private one anew by itself. Your
    /// own servers have to be started anew, one after the other, with what `nats config` prints while this waits; a repeat
    /// goes on where this ended, whatever ended it. No message is lost, and no client needs another token.
    Rotate {
        /// How long to wait for servers that do not trust the new key yet
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        wait: u64,
    },
    /// Compare every organization's pipes with NATS and have what differs repaired
    ///
    /// The control plane does so by itself, every `nats.reconcile_seconds`. What was found stands in each organization's log:
    /// `tidegate-admin audit list --action pipes.reconcile`.
    Reconcile,
    /// Show, and change as far as it is given, what an organization may use of NATS
    Limits(LimitsArgs),
}

/// What an organization may use.
#[derive(Debug, ClapArgs)]
pub(crate) struct LimitsArgs {
    /// The organization's id or name
    #[arg(long, value_name = "ORGANIZATION")]
    pub(crate) organization: String,
    /// GiB that its pipes may promise to keep, all together [at first: 64]
    #[arg(long, value_name = "GIB")]
    pub(crate) promise: Option<i64>,
    /// Pipes in use [at first: 20000]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pipes: Option<i64>,
    /// Readers of pipes [at first: 100000]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) readers: Option<i64>,
    /// Connections to NATS [at first: 10000]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) connections: Option<i64>,
}

/// What the configuration shall say.
#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigArgs {
    /// Folder of accounts and streams on the server's machine
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/nats")]
    pub(crate) folder: PathBuf,
    /// Whether acknowledged messages survive a power cut: full, or relaxed, which is faster
    #[arg(long, value_name = "WORD", default_value = "full")]
    pub(crate) durability: DurabilityArg,
    /// GiB that the streams of one server may promise to hold, all together: a bound on promises, no reserved space
    #[arg(long, value_name = "GIB", default_value_t = 1 << 20)]
    pub(crate) promise: u64,
}

/// Whether acknowledged messages survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// `sync_interval: always`
    Full,
    /// `sync_interval: 2m`
    Relaxed,
}
