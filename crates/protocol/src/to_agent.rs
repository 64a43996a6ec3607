//! Control plane → agent.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_model::{CommandAction, StreamMode};

use crate::{
    TunnelId,
    envelope::{lenient_time, messages},
};

messages! {
    /// Everything the control plane says.
    ToAgent {
        /// Do something. A repeat carries the same id and is answered with the recorded outcome.
        Command(CommandMessage) = "command",
        /// Every 25 s; answered with `pong`.
        Ping(PingMessage) = "ping",
        /// An operator asks the agent to drain and exit.
        Shutdown(ShutdownMessage) = "shutdown",
        /// Dial a tunnel for this session. A repeat never happens: the id is good for one dial.
        TunnelOpen(TunnelOpenMessage) = "tunnel_open",
        /// Answer to `hello`.
        Welcome(WelcomeMessage) = "welcome",
    }
}

/// Payload of `command` (seed A, `CommandMessage`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandMessage {
    /// The command's id, `cmd-…`.
    pub command_id: String,
    /// What to do.
    pub action: CommandAction,
    /// With what.
    #[serde(default)]
    pub payload: Map<String, Value>,
}

/// Payload of `ping` (seed A, `PingMessage`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingMessage {
    /// When it was sent.
    #[serde(default, deserialize_with = "lenient_time", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<DateTime<Utc>>,
}

/// Payload of `shutdown` (seed A, `ShutdownMessage`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownMessage {
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Payload of `welcome`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WelcomeMessage {
    /// The version spoken from here on.
    pub protocol_version: u32,
    /// The connection's fence: only the newest may change anything.
    pub epoch: i64,
    /// Seconds between heartbeats.
    pub heartbeat_seconds: u32,
}

/// What a tunnel leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelTarget {
    /// The PTY: binary frames are its bytes, text frames are [`crate::TerminalFrame`]s.
    Terminal,
    /// The session's stream port.
    Stream,
    /// Another port of the session.
    Port,
    /// What the session printed: bytes one way, from `after` on.
    Logs,
}

/// Payload of `tunnel_open`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelOpenMessage {
    /// Random, bound to this agent and one dial.
    pub tunnel_id: TunnelId,
    /// The session.
    pub session_id: String,
    /// The start or wake it must belong to.
    #[serde(default)]
    pub generation: i64,
    /// What it leads to.
    pub target: TunnelTarget,
    /// For target `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What the viewer may do.
    pub mode: StreamMode,
    /// For target `logs`: bytes to leave out, counted from the session's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// For target `logs`: whether to stay until the program ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}
