//! The part of the control plane's configuration that operators' verbs need.

use std::path::{Path, PathBuf};

use anyhow::Context;
use config::{Config, Environment, File};
use serde::Deserialize;
use tidegate_model::Secret;
use tidegate_service::{MailOptions, Post, RepositoryOptions};

/// Where things are. Sections of the control plane that are not needed here are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// Data folder.
    pub(crate) data_dir: Option<PathBuf>,
    /// Folder of the database's socket.
    pub(crate) run_dir: Option<PathBuf>,
    /// The database.
    pub(crate) database: Database,
    /// Secrets.
    pub(crate) secrets: Secrets,
    /// Who may vouch for people who sign in.
    pub(crate) auth: tidegate_service::SignInOptions,
    /// How people reach the control plane.
    pub(crate) public_url: Option<String>,
    /// How mails go out.
    pub(crate) mail: MailOptions,
    /// Where templates and plugins may come from.
    pub(crate) repositories: RepositoryOptions,
    /// NATS, which carries pipes.
    pub(crate) nats: Nats,
}

/// The `nats` section.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Nats {
    /// Whether there are pipes at all; none is where `url` is set, or the private PostgreSQL is used.
    enabled: Option<bool>,
    /// Its servers; without it the private one is used.
    url: Option<String>,
    /// Whether a plain connection is refused.
    pub(crate) tls_required: bool,
    /// Certificate authorities to trust besides the machine's.
    pub(crate) ca_files: Vec<PathBuf>,
    /// How many copies of each stream a cluster keeps.
    pub(crate) replicas: usize,
    /// The private server's port.
    pub(crate) port: Option<u16>,
    /// The user the private server runs as.
    pub(crate) run_as: Option<String>,
    /// Folders with nats-server.
    pub(crate) bin_dirs: Option<Vec<PathBuf>>,
    /// Whether the private server's acknowledged messages survive a power cut.
    pub(crate) durability: NatsDurability,
    /// Bytes that must stay free on the private server's disk.
    pub(crate) min_free_bytes: u64,
}

/// Whether an acknowledged message survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NatsDurability {
    /// It does.
    Full,
    /// It survives killed programs alone.
    Relaxed,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            enabled: None,
            url: None,
            tls_required: false,
            ca_files: Vec::new(),
            replicas: 1,
            port: None,
            run_as: None,
            bin_dirs: None,
            durability: NatsDurability::Full,
            min_free_bytes: 1 << 30,
        }
    }
}

impl Nats {
    /// The configured servers; none is the private one.
    pub(crate) fn urls(&self) -> Vec<String> {
        let url = self.url.as_deref().unwrap_or_default();
        url.split(',').map(str::trim).filter(|url| !url.is_empty()).map(ToOwned::to_owned).collect()
    }
}

/// The `database` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Database {
    /// URL of the serving login; without it the embedded PostgreSQL is used.
    pub(crate) url: Option<Secret<String>>,
    /// URL of the migrating login.
    pub(crate) migrate_url: Option<Secret<String>>,
    /// PEM certificates of the CA that both URLs' server has its certificate from.
    pub(crate) ca_file: Option<PathBuf>,
}

/// The `secrets` section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Secrets {
    /// The master key's file.
    pub(crate) master_key_file: Option<PathBuf>,
}

impl Settings {
    /// Defaults, then the file, then `TIDEGATE__…` of the environment.
    pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let mut builder = Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(File::from(file));
        }
        let environment = Environment::with_prefix("TIDEGATE").prefix_separator("__").separator("__");
        let config = builder.add_source(environment).build().context("the configuration cannot be read")?;
        let mut settings: Self = config.try_deserialize().context("the configuration is not valid")?;
        let Database { url, migrate_url, ca_file } = &mut settings.database;
        if let Some(ca_file) = ca_file {
            for url in [url, migrate_url].into_iter().flatten() {
                *url = tidegate_service::with_ca_file(url, ca_file);
            }
        }
        Ok(settings)
    }

    /// The options of the embedded PostgreSQL, the same as the control plane's.
    pub(crate) fn engine(&self) -> tidegate_engines::postgres::Options {
        let mut options = tidegate_engines::postgres::Options::default_for_host(&user_dir());
        if let Some(data) = &self.data_dir {
            options.data_dir.clone_from(data);
            options.run_dir = data.join("run");
        }
        if let Some(run) = &self.run_dir {
            options.run_dir.clone_from(run);
        }
        options
    }

    /// Whether there are pipes.
    pub(crate) fn has_pipes(&self) -> bool {
        self.nats.enabled.unwrap_or(self.nats.url.is_some() || self.database.url.is_none())
    }

    /// What carries mails, as the control plane sends them.
    pub(crate) fn post(&self) -> anyhow::Result<Post> {
        let url = self.public_url.as_deref();
        let checked = self.mail.check(url);
        let opened = checked.and_then(|()| self.mail.open(&self.engine().data_dir, url.unwrap_or_default()));
        opened.map_err(|errors| anyhow::anyhow!("the settings of mail make no sense: {errors}"))
    }

    /// What repositories may be fetched, and where they are kept: as the control plane does it.
    pub(crate) fn repositories(&self) -> RepositoryOptions {
        let mut options = self.repositories.clone();
        options.cache_dir.get_or_insert_with(|| self.engine().data_dir.join("repositories"));
        options
    }

    /// The master key's file.
    pub(crate) fn master_key_file(&self) -> PathBuf {
        let embedded = || self.engine().data_dir.join("secrets/master.key");
        self.secrets.master_key_file.clone().unwrap_or_else(embedded)
    }
}

fn user_dir() -> PathBuf {
    #[expect(
        clippy::disallowed_methods,
        reason = "where a user's data is by convention, read once by the binary"
    )]
    let data = std::env::var("XDG_DATA_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")).join(".local/share");
    data.unwrap_or_else(|_| home()).join("tidegate")
}
