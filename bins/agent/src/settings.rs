//! Flags, then environment, then configuration file, then defaults.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use nix::unistd::{Uid, gethostname};
use serde::Deserialize;
use tidegate_agent::{DockerOptions, Options, ProcessOptions};
use tidegate_model::{AgentCapacity, AgentHandle, Secret};

/// Runs sessions on this machine for a Tidegate control plane.
///
/// The agent dials out and needs no open port. On its first start it registers with the bootstrap key and waits until
/// an operator approves it (`tidegate-admin agents approve`); then it has a key of its own. Sessions go on when the
/// agent ends or is upgraded, and the next start finds them.
///
/// Sessions are processes of this machine, or with `--platform docker` containers of its Docker engine.
///
/// Started as root, each user's sessions run as an unprivileged user of their own; otherwise all run as the agent's
/// own user, which is good for trying and not for sharing.
#[derive(Debug, Parser)]
#[command(version, name = "tidegate-agent", subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    /// Configuration file (TOML): the long flags as keys, with _ for -
    #[arg(long, value_name = "FILE", env = "TIDEGATE_AGENT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(subcommand)]
    pub(crate) other: Option<Other>,
}

/// What the program does instead of running sessions: mostly what the agent starts itself as.
#[derive(Debug, Subcommand)]
pub(crate) enum Other {
    /// Holds one session
    #[command(hide = true)]
    SessionShim,
    /// Becomes a session's program
    #[command(hide = true)]
    SessionExec {
        /// What to do
        spec: String,
    },
    /// Holds a session's desktop
    #[command(hide = true)]
    SessionDesktop {
        /// Where RFB is served
        socket: PathBuf,
        /// What runs on it
        #[arg(last = true)]
        argv: Vec<String>,
    },
    /// Write completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Carries a container's terminal
    #[command(hide = true)]
    SessionContainer {
        /// What to do
        spec: String,
    },
}

/// What runs the sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// This machine's processes
    #[default]
    Vm,
    /// Containers of this machine's Docker engine
    Docker,
}

/// What a platform is told.
#[derive(Debug)]
pub(crate) enum PlatformOptions {
    Vm(ProcessOptions),
    Docker(DockerOptions),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Everything that can be set.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Address of the control plane, for example `https://tidegate.example`
    #[arg(long, value_name = "URL", env = "TIDEGATE_AGENT_SERVER")]
    server: Option<String>,
    /// Certificate authorities (PEM) to trust beside the system's, for a control plane with a certificate of its own
    #[arg(long, value_name = "FILE", env = "TIDEGATE_AGENT_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// This agent's certificate chain (PEM), for a control plane that asks for one: its common name or a DNS name is the
    /// agent's id
    #[arg(long, value_name = "FILE", env = "TIDEGATE_AGENT_CLIENT_CERT")]
    client_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", env = "TIDEGATE_AGENT_CLIENT_KEY")]
    client_key: Option<PathBuf>,
    /// Name of this agent, 3 to 100 characters [default: the host's name]
    #[arg(long, value_name = "NAME", env = "TIDEGATE_AGENT_ID")]
    agent_id: Option<String>,
    /// File with the bootstrap key, read at the start
    #[arg(long, value_name = "FILE", env = "TIDEGATE_AGENT_BOOTSTRAP_KEY_FILE")]
    bootstrap_key_file: Option<PathBuf>,
    /// The bootstrap key itself; only from the environment, where no other user sees it
    #[arg(long, hide = true, env = "TIDEGATE_AGENT_BOOTSTRAP_KEY", hide_env_values = true, value_parser = secret)]
    #[serde(skip)]
    bootstrap_key: Option<Secret<String>>,
    /// Folder of keys, journal, records and homes [default: /var/lib/tidegate-agent as root]
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_AGENT_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Folder of the sessions' sockets; a short path [default: run in the data folder]
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_AGENT_RUNTIME_DIR")]
    runtime_dir: Option<PathBuf>,
    /// Where the machine's cgroups are [default: as mounted]
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_AGENT_CGROUP_ROOT")]
    cgroup_root: Option<PathBuf>,
    /// What runs the sessions [default: vm]
    #[arg(long, value_enum, env = "TIDEGATE_AGENT_PLATFORM")]
    platform: Option<Kind>,
    /// The Docker engine's socket [default: /var/run/docker.sock]
    #[arg(long, value_name = "FILE", env = "TIDEGATE_AGENT_DOCKER_SOCKET")]
    docker_socket: Option<PathBuf>,
    /// Where this agent stands, for example eu-west
    #[arg(long, value_name = "NAME", env = "TIDEGATE_AGENT_REGION")]
    region: Option<String>,
    /// Sessions at one time [default: 100]
    #[arg(long, value_name = "NUMBER", env = "TIDEGATE_AGENT_MAX_SESSIONS")]
    max_sessions: Option<u32>,
    /// CPU that sessions may ask for together, for example 64 or 64000m [default: this machine's cores]
    #[arg(long, value_name = "CPU", env = "TIDEGATE_AGENT_CPU")]
    cpu: Option<String>,
    /// Memory that sessions may ask for together, for example 256Gi [default: this machine's]
    #[arg(long, value_name = "MEMORY", env = "TIDEGATE_AGENT_MEMORY")]
    memory: Option<String>,
    /// Seconds a program may take to end by itself before it is killed [default: 5]
    #[arg(long, value_name = "SECONDS", env = "TIDEGATE_AGENT_STOP_GRACE")]
    stop_grace: Option<u64>,
    /// End all sessions when the agent ends, instead of leaving them running
    #[arg(long, env = "TIDEGATE_AGENT_STOP_SESSIONS_ON_EXIT")]
    stop_sessions_on_exit: bool,
    /// What is logged, for example debug or `tidegate_agent=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "TIDEGATE_AGENT_LOG")]
    log: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, value_enum, env = "TIDEGATE_AGENT_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

fn secret(text: &str) -> Result<Secret<String>, &'static str> {
    let text = text.trim();
    if text.is_empty() { Err("must not be empty") } else { Ok(Secret::new(text.to_owned())) }
}

impl Settings {
    /// Fills what flags and environment left open from a file.
    pub(crate) fn merge_file(self, path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(self) };
        let file = config::File::from(path).format(config::FileFormat::Toml);
        let file: Self = config::Config::builder()
            .add_source(file)
            .build()
            .and_then(config::Config::try_deserialize)
            .with_context(|| format!("configuration {}", path.display()))?;
        Ok(Self {
            server: self.server.or(file.server),
            ca_file: self.ca_file.or(file.ca_file),
            client_cert: self.client_cert.or(file.client_cert),
            client_key: self.client_key.or(file.client_key),
            agent_id: self.agent_id.or(file.agent_id),
            bootstrap_key_file: self.bootstrap_key_file.or(file.bootstrap_key_file),
            bootstrap_key: self.bootstrap_key,
            data_dir: self.data_dir.or(file.data_dir),
            runtime_dir: self.runtime_dir.or(file.runtime_dir),
            cgroup_root: self.cgroup_root.or(file.cgroup_root),
            platform: self.platform.or(file.platform),
            docker_socket: self.docker_socket.or(file.docker_socket),
            region: self.region.or(file.region),
            max_sessions: self.max_sessions.or(file.max_sessions),
            cpu: self.cpu.or(file.cpu),
            memory: self.memory.or(file.memory),
            stop_grace: self.stop_grace.or(file.stop_grace),
            stop_sessions_on_exit: self.stop_sessions_on_exit || file.stop_sessions_on_exit,
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
        })
    }

    pub(crate) fn log(&self) -> &str {
        self.log.as_deref().unwrap_or("info")
    }

    pub(crate) fn log_format(&self) -> LogFormat {
        self.log_format.unwrap_or(LogFormat::Text)
    }

    /// What the agent's crate is told.
    pub(crate) fn options(self) -> anyhow::Result<(Options, PlatformOptions)> {
        let server =
            self.server.context("no control plane: set --server or TIDEGATE_AGENT_SERVER to its address")?;
        let server = server.parse().with_context(|| format!("server {server} is no address"))?;
        let name = self.agent_id.map_or_else(host_name, Ok)?;
        let agent_id: AgentHandle =
            name.parse().map_err(|why| anyhow!("agent id {name} {why}: set --agent-id"))?;
        let data_dir = self.data_dir.map_or_else(default_data_dir, Ok)?;
        let data_dir = std::path::absolute(&data_dir).context("data folder")?;
        let bootstrap_key = match (self.bootstrap_key, self.bootstrap_key_file) {
            (Some(key), _) => Some(key),
            (None, Some(path)) => {
                let key =
                    fs::read_to_string(&path).with_context(|| format!("bootstrap key {}", path.display()))?;
                Some(Secret::new(key.trim().to_owned()))
            }
            (None, None) => None,
        };
        let mut options = Options::new(server, agent_id, data_dir.clone());
        options.bootstrap_key = bootstrap_key;
        options.ca_file = self.ca_file;
        options.client_cert = match (self.client_cert, self.client_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => bail!("client_cert and client_key belong together: set both or none"),
        };
        options.region = self.region;
        options.max_sessions = self.max_sessions.unwrap_or(options.max_sessions);
        let said = AgentCapacity {
            cpu: self.cpu.clone().unwrap_or_default(),
            memory: self.memory.clone().unwrap_or_default(),
            ..AgentCapacity::default()
        };
        if self.cpu.is_some() && said.cpu_millis().is_none() {
            bail!("--cpu must be an amount such as 64 or 64000m");
        }
        if self.memory.is_some() && said.memory_bytes().is_none() {
            bail!("--memory must be an amount such as 256Gi");
        }
        (options.cpu, options.memory) = (self.cpu, self.memory);
        options.stop_sessions_on_exit = self.stop_sessions_on_exit;
        let program = std::env::current_exe().context("the agent's own program")?;
        let grace = Duration::from_secs(self.stop_grace.unwrap_or(5));
        let first_reader = Duration::from_secs(10);
        let runtime_dir = self.runtime_dir;
        let platform = match self.platform.unwrap_or_default() {
            Kind::Vm => {
                let cgroup_root = self.cgroup_root;
                let process =
                    ProcessOptions { data_dir, runtime_dir, cgroup_root, program, grace, first_reader };
                PlatformOptions::Vm(process)
            }
            Kind::Docker => {
                let socket = self.docker_socket.unwrap_or_else(|| "/var/run/docker.sock".into());
                let docker = DockerOptions { data_dir, runtime_dir, socket, program, grace, first_reader };
                PlatformOptions::Docker(docker)
            }
        };
        Ok((options, platform))
    }
}

fn host_name() -> anyhow::Result<String> {
    let name = gethostname().context("the host's name")?;
    Ok(name.to_string_lossy().into_owned())
}

fn default_data_dir() -> anyhow::Result<PathBuf> {
    if Uid::effective().is_root() {
        return Ok("/var/lib/tidegate-agent".into());
    }
    let home = std::env::home_dir().context("no home folder: set --data-dir")?;
    Ok(home.join(".local/share/tidegate-agent"))
}
