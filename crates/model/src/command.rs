//! Commands: what the control plane asks an agent to do (seed A, `AgentCommand`).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{AgentHandle, CommandId, Hibernation, SessionId, StreamKind, text_enum::text_enum};

text_enum! {
    /// What to do.
    CommandAction, "action" {
        /// Make and start a session.
        StartSession = "start_session",
        /// End a session and free what it holds.
        StopSession = "stop_session",
        /// Stop the processes, keep the home.
        HibernateSession = "hibernate_session",
        /// Start a hibernated session again.
        WakeSession = "wake_session",
    }
}

text_enum! {
    /// Where a command stands: pending → sent → ack → completed | failed. The last two are final.
    CommandStatus, "command status" {
        /// Queued.
        Pending = "pending",
        /// Written to the agent's connection.
        Sent = "sent",
        /// The agent has it.
        Ack = "ack",
        /// Done.
        Completed = "completed",
        /// Not done, with a reason.
        Failed = "failed",
    }
}

impl CommandStatus {
    /// The states a command may still leave.
    pub const OPEN: &'static [Self] = &[Self::Pending, Self::Sent, Self::Ack];

    /// Whether nothing can change any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

impl CommandId {
    /// The id on the wire: `cmd-` and the UUID.
    pub fn to_wire(self) -> String {
        format!("cmd-{self}")
    }

    /// Reads an id off the wire, with or without `cmd-`.
    pub fn from_wire(text: &str) -> Option<Self> {
        text.strip_prefix("cmd-").unwrap_or(text).parse().ok()
    }
}

/// A command's payload as stored and sent (seed A, `CommandPayload`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct CommandPayload(pub Map<String, Value>);

/// A command with its whole life (seed A, `AgentCommand`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentCommand {
    /// The row's id.
    pub id: CommandId,
    /// The id on the wire.
    pub command_id: String,
    /// Whose it is to execute.
    pub agent_id: AgentHandle,
    /// The session it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// What to do.
    pub action: CommandAction,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<CommandPayload>,
    /// Where it stands.
    pub status: CommandStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Queued.
    pub created_at: DateTime<Utc>,
    /// Written to the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<DateTime<Utc>>,
    /// Confirmed by the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// Completed or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<DateTime<Utc>>,
}

/// Payload of `start_session` and `wake_session` (seed A, `CreateSessionCommand`, with what agents also read).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateSessionCommand {
    /// The session.
    pub session_id: String,
    /// The owner's username.
    pub user: String,
    /// The owner's id: with `org_id` the key of the persistent home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The session's organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<String>,
    /// Which start or wake this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Template name.
    pub template: String,
    /// The catalog's template that it is of, as `Template` files say it. Where it is there the name above means none of the
    /// built-in ones: what runs are the command and the image below, watched by `protocol`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_manifest: Option<Value>,
    /// Program and arguments, where the request or the template named them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Image of the container, where the request or the template named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The container's port that is streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How it is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<StreamKind>,
    /// What becomes of the container while the session sleeps; `stop` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hibernation: Option<Hibernation>,
    /// `cpu`, `memory` and, with a persistent home, `storage`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, String>,
    /// The same, flat, for agents that read it so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// The same, flat, for agents that read it so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Whether the home outlives the session.
    pub persistent_home: bool,
    /// Environment variables of the session.
    pub environment: BTreeMap<String, String>,
    /// Namespace on Kubernetes agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// When an idle session hibernates, for agents that watch it too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// When a session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_session_duration: Option<String>,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}
