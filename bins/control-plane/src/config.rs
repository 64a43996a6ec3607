//! Settings: defaults, then the file, then the environment (`TIDEGATE__SECTION__KEY`). Unknown keys are refused, secrets
//! are never printed.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{Environment, File, FileFormat};
use serde::{Deserialize, Deserializer};
use tidegate_engines::postgres;
use tidegate_model::Secret;
use tidegate_service::{DbOptions, MailOptions, RepositoryOptions, Retention};

use crate::{
    Error,
    http::{ProxyHeader, ProxyRange},
};

/// Every setting of the control plane.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port to serve on. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// How people reach this server, for example `https://tidegate.example.org`: what links name, and the only origin
    /// that browsers may open streams from. Without it, the `Host` of each request.
    pub public_url: Option<String>,
    /// Data of the private PostgreSQL and secrets. Default `/var/lib/tidegate` for root, else `tidegate` in the user's
    /// data folder.
    pub data_dir: Option<PathBuf>,
    /// The private PostgreSQL's socket. Default `/run/tidegate` for root, else `run` in the data folder.
    pub run_dir: Option<PathBuf>,
    /// Proxies in front of this server, as addresses or ranges: only their `X-Forwarded-For` is believed.
    #[serde(deserialize_with = "list")]
    pub trusted_proxies: Vec<ProxyRange>,
    /// The header in which they say for whom they ask: `x-forwarded-for`, the default, or `forwarded` (RFC 7239). They
    /// must set it on every request: the other one is not read.
    pub proxy_header: ProxyHeader,
    /// Threads that serve. Default: one a core.
    pub workers: Option<usize>,
    /// How to reach PostgreSQL.
    pub database: DatabaseConfig,
    /// The private PostgreSQL that runs when `database.url` is not set.
    pub postgres: PostgresConfig,
    /// NATS, which carries pipes: where it is, or how the private one is run.
    pub nats: NatsConfig,
    /// Where secrets are.
    pub secrets: SecretsConfig,
    /// Who may vouch for people who sign in: `[auth.github]`, and `[[auth.oidc]]` as often as needed.
    pub auth: tidegate_service::SignInOptions,
    /// Settings of the use cases.
    pub service: tidegate_service::Options,
    /// Settings of agents' connections.
    pub hub: HubConfig,
    /// Where what sessions serve is shown.
    pub streams: StreamsConfig,
    /// Certificate and key to serve TLS with; without it a proxy has to.
    pub tls: Option<TlsConfig>,
    /// The log.
    pub log: LogConfig,
    /// Bounds of requests.
    pub limits: Limits,
    /// Figures for Prometheus.
    pub metrics: MetricsConfig,
    /// How many days what is kept.
    pub retention: Retention,
    /// How mails go out.
    pub mail: MailOptions,
    /// Where templates and plugins may come from.
    pub repositories: RepositoryOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            data_dir: None,
            run_dir: None,
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::default(),
            workers: None,
            database: DatabaseConfig::default(),
            postgres: PostgresConfig::default(),
            nats: NatsConfig::default(),
            secrets: SecretsConfig::default(),
            auth: tidegate_service::SignInOptions::default(),
            service: tidegate_service::Options::default(),
            hub: HubConfig::default(),
            streams: StreamsConfig::default(),
            tls: None,
            log: LogConfig::default(),
            limits: Limits::default(),
            metrics: MetricsConfig::default(),
            retention: Retention::default(),
            mail: MailOptions::default(),
            repositories: RepositoryOptions::default(),
        }
    }
}

/// Where what sessions serve is shown to browsers: never at the platform's own origin as one of its pages.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamsConfig {
    /// Domain below which every session has a host of its own, for example `apps.example.org`: its wildcard has to lead
    /// here. Without it, and on loopback alone, `localhost`.
    pub domain: Option<String>,
    /// Another address to serve on, for what sessions serve, where there is no such domain.
    pub content_listen: Option<SocketAddr>,
    /// How browsers reach `content_listen`, for example `https://tidegate.example.org:8444`. Sessions then share this
    /// origin one after the other. With neither a domain nor this they are shown in a sandbox, where many applications
    /// cannot keep data or log anybody in.
    pub content_url: Option<String>,
}

/// How to reach PostgreSQL.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// URL of the serving login, `tidegate_app`. Without it a private PostgreSQL is run. `?sslmode=` says how much is
    /// asked of the connection: disable, prefer (the default), require, verify-ca or verify-full.
    pub url: Option<Secret<String>>,
    /// URL of the login that owns the schema, `tidegate_migrator`. With it migrations are applied at the start.
    pub migrate_url: Option<Secret<String>>,
    /// PEM certificates of the CA that the server of both URLs has its certificate from, instead of the machine's CAs.
    /// A URL that says no `sslmode` is then held to `verify-full`; one with an `sslrootcert` of its own keeps it.
    pub ca_file: Option<PathBuf>,
    /// Connections at most. Default 16.
    pub max_connections: usize,
    /// Longest wait for a free connection before the answer is 503. Default 2.
    pub acquire_timeout_seconds: u64,
    /// Longest statement. Default 15.
    pub statement_timeout_seconds: u64,
    /// Longest wait for a lock. Default 5.
    pub lock_timeout_seconds: u64,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        let options = DbOptions::default();
        Self {
            url: None,
            migrate_url: None,
            ca_file: None,
            max_connections: options.max_connections,
            acquire_timeout_seconds: options.acquire_timeout_seconds,
            statement_timeout_seconds: options.statement_timeout_seconds,
            lock_timeout_seconds: options.lock_timeout_seconds,
        }
    }
}

impl DatabaseConfig {
    /// The pool's options but for the URL.
    pub(crate) fn options(&self) -> DbOptions {
        DbOptions {
            max_connections: self.max_connections,
            acquire_timeout_seconds: self.acquire_timeout_seconds,
            statement_timeout_seconds: self.statement_timeout_seconds,
            lock_timeout_seconds: self.lock_timeout_seconds,
            ..DbOptions::default()
        }
    }
}

/// The private PostgreSQL.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// The user it runs as when this program is root. Default: the owner of an existing cluster, else `postgres`.
    pub run_as: Option<String>,
    /// Folders with its programs. Default: PATH, `pg_config` and the usual folders.
    pub bin_dirs: Option<Vec<PathBuf>>,
    /// Connections at most. Default 100.
    pub max_connections: u32,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self { run_as: None, bin_dirs: None, max_connections: 100 }
    }
}

/// NATS, which carries pipes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    /// Whether there are pipes at all: `false` runs no NATS, and pipes answer 503. Default: where `url` is set, or the
    /// private PostgreSQL is run. Beside a configured database `true` without `url` runs a private nats-server, which
    /// serves one control plane alone.
    pub enabled: Option<bool>,
    /// Servers to use, for example `tls://nats-1.example.org,tls://nats-2.example.org`: they must trust this platform's
    /// operator, whose configuration the log shows while they do not. Without it a private nats-server is run.
    pub url: Option<String>,
    /// The address that clients are told. Default: that of `url`, else the private server's, which this machine alone
    /// reaches.
    pub public_url: Option<String>,
    /// Whether a connection without TLS is refused. Default false.
    pub tls_required: bool,
    /// PEM certificates of CAs that are trusted beside the machine's.
    pub ca_files: Vec<PathBuf>,
    /// How many copies of each stream a cluster keeps: 1, 3 or 5. Default 1.
    pub replicas: usize,
    /// How often rows and NATS are compared, in seconds. Default 300.
    pub reconcile_seconds: u64,
    /// The private server's port on 127.0.0.1. Default: the one of its last start, else a free one.
    pub port: Option<u16>,
    /// The user the private server runs as when this program is root. Default: the owner of its data, else `nats` or
    /// `nobody`.
    pub run_as: Option<String>,
    /// Folders with nats-server. Default: PATH and the usual folders.
    pub bin_dirs: Option<Vec<PathBuf>>,
    /// Whether an acknowledged message of the private server survives a power cut: `full`, the default, or `relaxed`, which
    /// is faster and loses up to two minutes then.
    pub durability: NatsDurability,
    /// Bytes that must stay free on the private server's disk: with fewer, messages are refused with 507. Default 1 GiB.
    pub min_free_bytes: u64,
}

/// Whether an acknowledged message survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NatsDurability {
    /// It does.
    Full,
    /// It survives killed programs alone.
    Relaxed,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            enabled: None,
            url: None,
            public_url: None,
            tls_required: false,
            ca_files: Vec::new(),
            replicas: 1,
            reconcile_seconds: 300,
            port: None,
            run_as: None,
            bin_dirs: None,
            durability: NatsDurability::Full,
            min_free_bytes: 1 << 30,
        }
    }
}

impl NatsConfig {
    /// Whether there are pipes, where the private PostgreSQL is run or not.
    pub(crate) fn is_wanted(&self, embedded: bool) -> bool {
        self.enabled.unwrap_or(self.url.is_some() || embedded)
    }

    /// The servers of `url`.
    pub(crate) fn urls(&self) -> Vec<String> {
        let url = self.url.as_deref().unwrap_or_default();
        url.split(',').map(str::trim).filter(|url| !url.is_empty()).map(ToOwned::to_owned).collect()
    }

    fn check(&self) -> Result<(), Error> {
        if self.url.is_some() && self.urls().is_empty() {
            return Err(Error::Setting(
                "`nats.url` names no server: set it to an address such as nats://nats.example.org:4222, or leave it out for a private server"
                    .into(),
            ));
        }
        if ![1, 3, 5].contains(&self.replicas) {
            return Err(Error::Setting(format!(
                "`nats.replicas` is {}, it must be 1, 3 or 5",
                self.replicas
            )));
        }
        if self.url.is_none() && self.replicas > 1 {
            return Err(Error::Setting(
                "`nats.replicas` needs a cluster: set `nats.url` to its servers, or leave it at 1".into(),
            ));
        }
        Ok(())
    }
}

/// Where secrets are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsConfig {
    /// 32 random bytes, mode 0600; every other key is derived from it. Beside the private PostgreSQL it is made once.
    pub master_key_file: Option<PathBuf>,
    /// The key that new agents register with. Beside the private PostgreSQL it is made once.
    pub agent_bootstrap_key_file: Option<PathBuf>,
}

/// Settings of agents' connections and of tunnels; heartbeats stand in `service`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HubConfig {
    /// Seconds between pings of one connection. Default 25.
    pub ping_seconds: u64,
    /// Milliseconds between looks for commands that no hint named. Default 1000.
    pub poll_milliseconds: u64,
    /// Milliseconds between sweeps of deadlines, silent agents and stuck sessions. Default 1000.
    pub sweep_milliseconds: u64,
    /// Milliseconds between looks at agents' approval. Default 400: revocation bites within a second.
    pub stale_milliseconds: u64,
    /// Bytes that may wait for one agent. Default 1 MiB.
    pub outbox_bytes: usize,
    /// Writers of reports. Default 2.
    pub ingest_shards: usize,
    /// Reports in one transaction. Default 2000.
    pub ingest_batch: usize,
    /// Milliseconds a transaction waits for more reports. Default 2.
    pub ingest_linger_milliseconds: u64,
    /// Commands taken by one claim. Default 256.
    pub claim_limit: usize,
    /// Seconds an agent has to dial a tunnel. Default 10.
    pub tunnel_dial_seconds: u64,
    /// Bytes on their way in one direction of one tunnel. Default 512 KiB.
    pub tunnel_bytes: usize,
    /// Viewers of one session. Default 64.
    pub tunnels_per_session: usize,
    /// Seconds a shutdown waits for connections, and again for reports to be written. Default 10.
    pub drain_seconds: u64,
}

impl Default for HubConfig {
    fn default() -> Self {
        let hub = tidegate_hub::Options::default();
        let milliseconds = |period: Duration| u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        Self {
            ping_seconds: hub.ping.as_secs(),
            poll_milliseconds: milliseconds(hub.poll),
            sweep_milliseconds: milliseconds(hub.sweep),
            stale_milliseconds: milliseconds(hub.stale),
            outbox_bytes: hub.outbox_bytes,
            ingest_shards: hub.ingest_shards,
            ingest_batch: hub.ingest_batch,
            ingest_linger_milliseconds: milliseconds(hub.ingest_linger),
            claim_limit: hub.claim_limit,
            tunnel_dial_seconds: hub.tunnel_dial.as_secs(),
            tunnel_bytes: hub.tunnel_bytes,
            tunnels_per_session: hub.tunnels_per_session,
            drain_seconds: hub.drain.as_secs(),
        }
    }
}

/// Certificate and key, PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificate authorities of agents. With it an agent must bring a certificate of one of them, whose common name or
    /// one of whose DNS names is the agent's id, when it connects, dials a tunnel or registers with its own key.
    pub client_ca: Option<PathBuf>,
}

/// The log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Text for people or JSON for machines. Default `text`.
    pub format: LogFormat,
    /// What is logged, in the form of `tracing`'s `EnvFilter`. Default `info`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".into() }
    }
}

/// What the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Bounds of requests. Frames have their own: 512 KiB for agents, 1 MiB for tunnels.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's body. Default 256 KiB.
    pub body_bytes: usize,
    /// Seconds a request's head may take. Default 10.
    pub head_seconds: u64,
    /// Seconds a request's body may take. Default 30.
    pub body_seconds: u64,
    /// Connections of one serving thread, agents and viewers included. Default 25 000.
    pub connections: usize,
    /// Seconds a shutdown waits for requests. Default 15.
    pub shutdown_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 256 * 1024,
            head_seconds: 10,
            body_seconds: 30,
            connections: 25_000,
            shutdown_seconds: 15,
        }
    }
}

/// Figures for Prometheus.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Bearer token of whoever reads `/metrics`. Without it they are shown to programs of this machine only.
    pub token: Option<Secret<String>>,
}

impl Config {
    /// Defaults, then `file`, then the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let environment = Environment::with_prefix("TIDEGATE").prefix_separator("__").separator("__");
        Self::layered(file.map(|file| File::from(file).format(FileFormat::Toml)), environment)
    }

    /// The same from a text and given variables, for tests and for whoever embeds the server.
    pub fn from_parts(toml: &str, variables: &[(&str, &str)]) -> Result<Self, Error> {
        let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let environment = Environment::with_prefix("TIDEGATE")
            .prefix_separator("__")
            .separator("__")
            .source(Some(variables));
        Self::layered(Some(File::from_str(toml, FileFormat::Toml)), environment)
    }

    fn layered<T, F>(file: Option<File<T, F>>, environment: Environment) -> Result<Self, Error>
    where
        T: config::FileSource<F> + Send + Sync + std::fmt::Debug + Clone + 'static,
        F: config::FileStoredFormat + Send + Sync + std::fmt::Debug + Clone + 'static,
    {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(file);
        }
        let read = builder.add_source(environment).build().and_then(config::Config::try_deserialize);
        let mut config: Self = read.map_err(|error| Error::Config(Box::new(error)))?;
        let DatabaseConfig { url, migrate_url, ca_file, .. } = &mut config.database;
        if let Some(ca_file) = ca_file {
            for url in [url, migrate_url].into_iter().flatten() {
                *url = tidegate_service::with_ca_file(url, ca_file);
            }
        }
        config.check()
    }

    fn check(mut self) -> Result<Self, Error> {
        if let Some(url) = &self.public_url
            && crate::http::Origin::of_url(url).is_none()
        {
            return Err(Error::Setting(format!(
                "`public_url` is `{url}`, it must be an address such as https://tidegate.example.org"
            )));
        }
        let streams = &self.streams;
        if streams.content_listen.is_some() != streams.content_url.is_some() {
            return Err(Error::Setting(
                "`streams.content_listen` and `streams.content_url` belong together: set both or neither"
                    .into(),
            ));
        }
        if let Some(url) = &streams.content_url
            && crate::http::Origin::of_url(url).is_none()
        {
            return Err(Error::Setting(format!(
                "`streams.content_url` is `{url}`, it must be an address such as https://tidegate.example.org:8444"
            )));
        }
        if let Some(domain) = &streams.domain
            && (domain.starts_with('.') || domain.contains(['/', ':', '*']))
        {
            return Err(Error::Setting(format!(
                "`streams.domain` is `{domain}`, it must be a name such as apps.example.org, without `*.`"
            )));
        }
        self.nats.check()?;
        self.retention.check().map_err(|errors| Error::Setting(errors.to_string()))?;
        self.service.retention = self.retention.clone();
        let policy = self.service.session_policy.check(tidegate_model::LimitRules::default());
        policy.map_err(|errors| Error::Setting(format!("`service.session_policy`: {errors}")))?;
        tidegate_service::Providers::new(&self.auth).map_err(Error::Setting)?;
        let mail = self.mail.check(self.public_url.as_deref());
        mail.map_err(|errors| Error::Setting(errors.to_string()))?;
        if self.database.url.is_none() && self.database.migrate_url.is_some() {
            return Err(Error::Setting(
                "`database.migrate_url` is set without `database.url`: set both".into(),
            ));
        }
        Ok(self)
    }

    /// Whether a private PostgreSQL is run.
    pub fn is_embedded(&self) -> bool {
        self.database.url.is_none()
    }

    /// The data folder in force.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| postgres::Options::default_for_host(&user_dir()).data_dir)
    }

    /// The folder of the private PostgreSQL's socket in force.
    pub fn run_dir(&self) -> PathBuf {
        match (&self.run_dir, &self.data_dir) {
            (Some(run), _) => run.clone(),
            (None, Some(data)) => data.join("run"),
            (None, None) => postgres::Options::default_for_host(&user_dir()).run_dir,
        }
    }

    /// The folder of generated secrets.
    pub(crate) fn secrets_dir(&self) -> PathBuf {
        self.data_dir().join("secrets")
    }

    /// The hub's options; heartbeats are those of the service, so that both count the same.
    pub(crate) fn hub_options(&self) -> tidegate_hub::Options {
        let (hub, service) = (&self.hub, &self.service);
        tidegate_hub::Options {
            heartbeat: Duration::from_secs(u64::from(service.heartbeat_seconds)),
            missed_heartbeats: service.missed_heartbeats,
            ping: Duration::from_secs(hub.ping_seconds),
            poll: Duration::from_millis(hub.poll_milliseconds),
            sweep: Duration::from_millis(hub.sweep_milliseconds),
            stale: Duration::from_millis(hub.stale_milliseconds),
            outbox_bytes: hub.outbox_bytes,
            ingest_shards: hub.ingest_shards,
            ingest_batch: hub.ingest_batch,
            ingest_linger: Duration::from_millis(hub.ingest_linger_milliseconds),
            claim_limit: hub.claim_limit,
            tunnel_dial: Duration::from_secs(hub.tunnel_dial_seconds),
            tunnel_bytes: hub.tunnel_bytes,
            tunnels_per_session: hub.tunnels_per_session,
            drain: Duration::from_secs(hub.drain_seconds),
            ..tidegate_hub::Options::default()
        }
    }
}

/// A list, or one text with commas, which is all that the environment can say.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ProxyRange>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        List(Vec<String>),
    }
    let parts = match Written::deserialize(deserializer)? {
        Written::Text(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        Written::List(list) => list,
    };
    let read = |part: &String| part.parse().map_err(serde::de::Error::custom);
    parts.iter().filter(|part| !part.is_empty()).map(read).collect()
}

/// Where a user's programs keep data, by convention.
fn user_dir() -> PathBuf {
    #[expect(
        clippy::disallowed_methods,
        reason = "where a user's data is by convention, read once by the binary"
    )]
    let data = std::env::var("XDG_DATA_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")).join(".local/share");
    data.unwrap_or_else(|_| home()).join("tidegate")
}
