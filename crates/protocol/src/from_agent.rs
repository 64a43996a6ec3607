//! Agent → control plane.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_model::{AgentCapacity, AgentReportedStatus, SessionState};

use crate::envelope::{lenient_time, messages};

messages! {
    /// Everything an agent says.
    FromAgent {
        /// First frame of agents that know protocol versions; answered with `welcome`. A repeat repeats the inventory.
        Hello(HelloMessage) = "hello",
        /// Every ten seconds. A repeat is another sign of life.
        Heartbeat(HeartbeatMessage) = "heartbeat",
        /// At once when a command arrives. A repeat changes nothing.
        Ack(AckMessage) = "ack",
        /// A command was carried out. A repeat changes nothing.
        Complete(CompleteMessage) = "complete",
        /// A command was not carried out. A repeat changes nothing.
        Failed(FailedMessage) = "failed",
        /// A session changed, or is part of the inventory after connecting. A repeat changes nothing.
        Status(StatusMessage) = "status",
        /// Answer to `ping`.
        Pong(PongMessage) = "pong",
        /// A tunnel could not be made. A repeat changes nothing.
        TunnelFailed(TunnelFailedMessage) = "tunnel_failed",
    }
}

/// Payload of `hello`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HelloMessage {
    /// Versions the agent speaks.
    pub protocol_versions: Vec<u32>,
    /// Differs after each start of the agent.
    pub boot_id: String,
    /// Everything it runs or keeps.
    pub sessions: Vec<HelloSession>,
}

/// One session of an agent's inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloSession {
    /// The session.
    pub session_id: String,
    /// The start or wake it belongs to; absent means the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// The state it is in there.
    pub state: SessionState,
}

/// Payload of `heartbeat` (seed A, `HeartbeatMessage`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatMessage {
    /// Whether it takes new sessions.
    pub status: AgentReportedStatus,
    /// Sessions it runs.
    #[serde(default)]
    pub active_sessions: u32,
    /// What it can hold; unchanged when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<AgentCapacity>,
}

/// Payload of `ack` (seed A, `AckMessage`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AckMessage {
    /// The command.
    pub command_id: String,
}

/// Payload of `complete` (seed A, `CompleteMessage`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompleteMessage {
    /// The command.
    pub command_id: String,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Map<String, Value>>,
}

/// Payload of `failed` (seed A, `FailedMessage`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedMessage {
    /// The command.
    pub command_id: String,
    /// Why, for people.
    #[serde(default)]
    pub error: String,
}

/// Payload of `status` (seed A, `StatusMessage`). What is absent is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusMessage {
    /// The session.
    pub session_id: String,
    /// The state it is in on the agent.
    pub state: SessionState,
    /// The start or wake it belongs to; absent means the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Whether its stream can be watched. Older agents call it `vncReady`.
    #[serde(default, alias = "vncReady", skip_serializing_if = "Option::is_none")]
    pub streaming_ready: Option<bool>,
    /// The stream's port. Older agents call it `vncPort`.
    #[serde(default, alias = "vncPort", skip_serializing_if = "Option::is_none")]
    pub streaming_port: Option<u16>,
    /// What the platform says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_metadata: Option<Map<String, Value>>,
    /// Why it is in this state, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Payload of `pong` (seed A, `PongMessage`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PongMessage {
    /// When it was sent.
    #[serde(default, deserialize_with = "lenient_time", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<DateTime<Utc>>,
}

/// Payload of `tunnel_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelFailedMessage {
    /// The tunnel.
    pub tunnel_id: String,
    /// Why, for people.
    #[serde(default)]
    pub error: String,
}
