//! What an agent is told at its start.

use std::{path::PathBuf, time::Duration};

use tidegate_model::{AgentHandle, Secret};
use url::Url;

/// Settings of an agent.
#[derive(Debug, Clone)]
pub struct Options {
    /// The control plane, for example `https://tidegate.example`.
    pub server: Url,
    /// Certificate authorities (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The agent's certificate chain and its private key, PEM files: for a control plane that asks for one.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// The name it chooses for itself.
    pub agent_id: AgentHandle,
    /// Opens registration, and nothing else; not needed once the agent has its own key.
    pub bootstrap_key: Option<Secret<String>>,
    /// Where it keeps its key, journal and records.
    pub data_dir: PathBuf,
    /// Where it stands.
    pub region: Option<String>,
    /// Sessions at one time.
    pub max_sessions: u32,
    /// CPU that sessions may ask for together, for example `64` or `64000m`; this machine's cores without it.
    pub cpu: Option<String>,
    /// Memory that sessions may ask for together, for example `256Gi`; this machine's without it.
    pub memory: Option<String>,
    /// Whether sessions end with the agent. Without it they go on and the next start finds them.
    pub stop_sessions_on_exit: bool,
    /// How long last reports, and work in progress, may take when the agent goes.
    pub farewell: Duration,
    /// Shortest wait before the next attempt to connect.
    pub reconnect_min: Duration,
    /// Longest wait before the next attempt to connect.
    pub reconnect_max: Duration,
}

impl Options {
    /// Every default, for this control plane and this name.
    pub fn new(server: Url, agent_id: AgentHandle, data_dir: PathBuf) -> Self {
        Self {
            server,
            ca_file: None,
            client_cert: None,
            agent_id,
            bootstrap_key: None,
            data_dir,
            region: None,
            max_sessions: 100,
            cpu: None,
            memory: None,
            stop_sessions_on_exit: false,
            farewell: Duration::from_secs(10),
            reconnect_min: Duration::from_millis(500),
            reconnect_max: Duration::from_secs(30),
        }
    }
}
