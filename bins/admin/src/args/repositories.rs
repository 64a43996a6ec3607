//! Words of the verbs about repositories.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};
use tidegate_model::{RepositoryAuth, RepositoryType};

/// What to do with repositories. One is named by its name or its number.
#[derive(Debug, Subcommand)]
pub(crate) enum RepositoryVerb {
    /// Add a repository, and sync it
    Add {
        /// What it is called
        name: String,
        /// https://…, ssh://… or git@host:path; a folder where `repositories.fetch.local_folders` allows it
        url: String,
        /// The branch or tag; the remote's own default without it
        #[arg(long)]
        branch: Option<String>,
        /// git, or http for a zip, tar or tar.gz
        #[arg(long = "type", default_value = "git")]
        kind: RepositoryType,
        /// What it holds
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        asking: Asking,
        /// Leave the first sync to the control plane
        #[arg(long)]
        no_sync: bool,
        /// Succeed without changing anything where there is one of this name
        #[arg(long)]
        if_needed: bool,
    },
    /// Every repository, in the order they were added
    List,
    /// One repository, with what is wrong with files of its last sync
    Show {
        /// Its name or number
        repository: String,
    },
    /// Change a repository: what is not given stays
    Change {
        /// Its name or number
        repository: String,
        /// Another name
        #[arg(long)]
        name: Option<String>,
        /// Another address; another server wants the secret again
        #[arg(long)]
        url: Option<String>,
        /// Another branch or tag; empty for the remote's own default
        #[arg(long)]
        branch: Option<String>,
        /// What it holds; empty for nothing
        #[arg(long)]
        description: Option<String>,
        /// Whether it is synced, and what came from it is shown
        #[arg(long, value_name = "true|false", action = ArgAction::Set)]
        enabled: Option<bool>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Sync a repository now, and show how far it is
    Sync {
        /// Its name or number
        repository: String,
    },
    /// Remove a repository; what came from it stays for whoever has it installed
    Remove {
        /// Its name or number
        repository: String,
    },
}

/// What a remote wants to see. Secrets are read from files: arguments are everybody's to see.
#[derive(Debug, Args)]
pub(crate) struct Asking {
    /// none, token, basic or ssh
    #[arg(long, value_name = "WAY")]
    pub(crate) auth: Option<RepositoryAuth>,
    /// The name for basic; for token where the server wants a certain one
    #[arg(long)]
    pub(crate) username: Option<String>,
    /// File with the token, the password or the private key
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// File with the ssh server's host keys; others are refused
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Option<PathBuf>,
    /// File with what webhooks are signed with, at least 16 characters
    #[arg(long, value_name = "FILE")]
    pub(crate) webhook_secret_file: Option<PathBuf>,
}
