//! Agents: what runs sessions (seed A, `Agent` and its neighbours).

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{AgentId, Fields, FromFields, OrgId, Quantity, SessionId, SessionState, text_enum::text_enum};

text_enum! {
    /// What an agent runs sessions on.
    Platform, "platform" {
        /// A Kubernetes cluster.
        Kubernetes = "kubernetes",
        /// A Docker host.
        Docker = "docker",
        /// The machine the agent runs on: sessions are its processes.
        Vm = "vm",
        /// A cloud provider.
        Cloud = "cloud",
    }
}

text_enum! {
    /// An agent's health as the control plane sees it.
    AgentStatus, "agent status" {
        /// Connected and heartbeating.
        Online = "online",
        /// Not connected.
        Offline = "offline",
        /// Connected, takes no new session.
        Draining = "draining",
    }
}

text_enum! {
    /// What an agent may say of itself in a heartbeat.
    AgentReportedStatus, "heartbeat status" {
        /// Takes new sessions.
        Online = "online",
        /// Takes no new session.
        Draining = "draining",
    }
}

text_enum! {
    /// Whether an operator let the agent in.
    ApprovalStatus, "approval status" {
        /// Waits for an operator.
        Pending = "pending",
        /// May connect with its own key.
        Approved = "approved",
        /// May not.
        Rejected = "rejected",
    }
}

/// The name an agent chose for itself (`agentId` on the wire): 3–100 visible ASCII characters that need no escaping in
/// a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct AgentHandle(String);

impl AgentHandle {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentHandle {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte));
        ((3..=100).contains(&text.len()) && plain)
            .then(|| Self(text.to_owned()))
            .ok_or("must have 3 to 100 characters out of A-Z, a-z, 0-9 and - _ . : @")
    }
}

impl TryFrom<String> for AgentHandle {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AgentHandle> for String {
    fn from(handle: AgentHandle) -> Self {
        handle.0
    }
}

impl fmt::Display for AgentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What an agent can hold (seed A, `AgentCapacity`). CPU and memory are free text, for example `64 cores`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AgentCapacity {
    /// Sessions at one time.
    pub max_sessions: u32,
    /// CPU.
    #[serde(deserialize_with = "free_text")]
    pub cpu: String,
    /// Memory.
    #[serde(deserialize_with = "free_text")]
    pub memory: String,
    /// Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
}

fn free_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Ok(String::new()),
        _ => Err(serde::de::Error::custom("must be a text such as `64 cores`")),
    }
}

impl AgentCapacity {
    /// Longest free text kept.
    const TEXT: usize = 64;
    /// Most sessions an agent is believed to hold.
    const SESSIONS: u32 = 100_000;

    /// CPU in thousandths of a core, read from a text such as `64 cores`, `64` or `64000m`. `None` is unknown: nothing
    /// that can be read, or nothing at all.
    pub fn cpu_millis(&self) -> Option<i64> {
        let text = self.cpu.trim().to_ascii_lowercase();
        let units = ["cores", "core", "vcpus", "vcpu", "cpus", "cpu", "threads"];
        let number = units.iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or(&text).trim_end();
        let millis = number.parse::<Quantity>().ok()?.whole_millis();
        i64::try_from(millis).ok().filter(|millis| *millis > 0)
    }

    /// Memory in bytes, read from a text such as `256Gi`, `256 GiB` or `262144Mi`. `None` is unknown.
    pub fn memory_bytes(&self) -> Option<i64> {
        let text = self.memory.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        // An `m` is a thousandth to some and a million to others.
        let unit = unit.trim_start();
        let unit = unit.strip_suffix(['B', 'b']).unwrap_or(unit);
        let suffix = match unit {
            "K" => "k",
            "" | "k" | "M" | "G" | "T" | "P" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" => unit,
            "g" => "G",
            "t" => "T",
            _ => return None,
        };
        let bytes = format!("{number}{suffix}").parse::<Quantity>().ok()?.whole_millis() / 1_000;
        i64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
    }

    /// The capacity with everything an agent could exaggerate cut to its bound.
    #[must_use]
    pub fn clamped(mut self) -> Self {
        self.max_sessions = self.max_sessions.min(Self::SESSIONS);
        for text in [&mut self.cpu, &mut self.memory].into_iter().chain(self.storage.as_mut()) {
            *text = text.chars().filter(|c| !c.is_control()).take(Self::TEXT).collect();
        }
        self
    }
}

/// Free data about an agent (seed A, `AgentMetadata`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct AgentMetadata(pub Map<String, Value>);

/// An operator's drain: no session is placed on the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentDrain {
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// What still runs then is hibernated, or terminated where it has no home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DateTime<Utc>>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An agent as operators see it (seed A, `Agent`); its key's hash never leaves persistence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// The row's id.
    pub id: AgentId,
    /// The name it chose.
    pub agent_id: AgentHandle,
    /// What it runs sessions on.
    pub platform: Platform,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Health.
    pub status: AgentStatus,
    /// What it can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<AgentCapacity>,
    /// Sessions it says it runs.
    #[serde(default)]
    pub active_sessions: u32,
    /// When it was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<DateTime<Utc>>,
    /// Its live connection.
    #[serde(default, rename = "websocketId", skip_serializing_if = "Option::is_none")]
    pub websocket_id: Option<String>,
    /// Free data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<AgentMetadata>,
    /// Whether it was let in.
    pub approval_status: ApprovalStatus,
    /// When that was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<DateTime<Utc>>,
    /// Who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// The organization it serves alone; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_id: Option<OrgId>,
    /// That organization's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// An operator's drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<AgentDrain>,
    /// When its key was made; it has none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_created_at: Option<DateTime<Utc>>,
    /// When its key was last used to come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_last_used_at: Option<DateTime<Utc>>,
    /// The key before the last rotation is good until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_key_until: Option<DateTime<Utc>>,
    /// First registration.
    pub created_at: DateTime<Utc>,
    /// Last change of the row, heartbeats left aside.
    pub updated_at: DateTime<Utc>,
}

/// Body of `POST agents/register` (seed A, `AgentRegistrationRequest`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRegistrationRequest {
    /// The name it chooses, 3–100.
    pub agent_id: AgentHandle,
    /// What it runs sessions on.
    pub platform: Platform,
    /// Where it stands, 2–50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What it can hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<AgentCapacity>,
    /// Free data, at most 16 KiB of JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<AgentMetadata>,
}

impl FromFields for AgentRegistrationRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        fields.tolerate_unknown();
        let agent_id = fields.required("agentId");
        let platform = fields.required("platform");
        // Seed A's agents write an unset region as an empty text.
        let region: Option<String> = fields.optional("region").filter(|region: &String| !region.is_empty());
        if let Some(region) = &region {
            fields.check_length("region", region, 2..=50);
        }
        let capacity: Option<AgentCapacity> = fields.optional("capacity");
        let metadata: Option<AgentMetadata> = fields.optional("metadata");
        if metadata
            .as_ref()
            .is_some_and(|metadata| Value::from(metadata.0.clone()).to_string().len() > 16_384)
        {
            fields.errors().add("metadata", "must not be more than 16 KiB of JSON");
        }
        let capacity = capacity.map(AgentCapacity::clamped);
        Some(Self { agent_id: agent_id?, platform: platform?, region, capacity, metadata })
    }
}

/// Body of `POST agents/{agentId}/heartbeat` (seed A, `AgentHeartbeatRequest`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentHeartbeatRequest {
    /// Online or draining.
    pub status: AgentReportedStatus,
    /// Sessions it runs.
    pub active_sessions: u32,
    /// What it can hold; unchanged when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<AgentCapacity>,
}

impl FromFields for AgentHeartbeatRequest {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        fields.tolerate_unknown();
        let status = fields.required("status");
        let active_sessions = fields.optional("activeSessions").unwrap_or(0);
        let capacity = fields.optional("capacity").map(AgentCapacity::clamped);
        Some(Self { status: status?, active_sessions, capacity })
    }
}

/// What an agent says of one session (seed A, `AgentStatusUpdate`), already read tolerantly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatusUpdate {
    /// The session.
    pub session_id: SessionId,
    /// The state it is in on the agent.
    pub state: SessionState,
    /// The start or wake it belongs to; absent means the current one.
    pub generation: Option<i64>,
    /// Whether the stream can be watched; `None` when not said.
    pub streaming_ready: Option<bool>,
    /// The stream's port; `None` when not said.
    pub streaming_port: Option<u16>,
    /// Free data of the platform; `None` when not said.
    pub platform_metadata: Option<Map<String, Value>>,
    /// Why, for people.
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_registration_names_every_bad_field_at_once() {
        let body = json!({"agentId": "a", "platform": "mainframe", "region": "x", "capacity": 7});
        let errors = AgentRegistrationRequest::from_json(body).unwrap_err();
        let names: Vec<&str> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(names, ["agentId", "capacity", "platform", "region"]);
    }

    #[test]
    fn what_an_agent_says_of_cpu_and_memory_is_read_as_people_write_it() {
        let cpu = |text: &str| AgentCapacity { cpu: text.into(), ..AgentCapacity::default() }.cpu_millis();
        for text in ["64 cores", "64", "64000m", " 64 CPUs", "64vcpu", "64.0"] {
            assert_eq!(cpu(text), Some(64_000), "{text}");
        }
        assert_eq!((cpu("0.5 cores"), cpu("1 core")), (Some(500), Some(1_000)));
        for text in ["", "0", "many", "-2", "2 cores and a half", "99999999999999999999"] {
            assert_eq!(cpu(text), None, "{text}");
        }
        let memory =
            |text: &str| AgentCapacity { memory: text.into(), ..AgentCapacity::default() }.memory_bytes();
        for text in ["256Gi", "256 GiB", "262144Mi", "274877906944", "274877906944 B"] {
            assert_eq!(memory(text), Some(256 << 30), "{text}");
        }
        assert_eq!(
            (memory("2G"), memory("2 gb"), memory("1.5Ki")),
            (Some(2_000_000_000), Some(2_000_000_000), Some(1_536))
        );
        for text in ["", "0", "lots", "512m", "-1Gi", "1 GiB each", "Gi", "1.2.3Gi"] {
            assert_eq!(memory(text), None, "{text}");
        }
    }

    #[test]
    fn a_capacity_may_be_free_text_or_a_number_and_is_clamped() {
        let capacity: AgentCapacity =
            serde_json::from_value(json!({"maxSessions": 4_000_000, "cpu": 64, "memory": "256Gi"})).unwrap();
        let capacity = capacity.clamped();
        assert_eq!(
            (capacity.max_sessions, capacity.cpu.as_str(), capacity.memory.as_str()),
            (100_000, "64", "256Gi")
        );
    }
}
