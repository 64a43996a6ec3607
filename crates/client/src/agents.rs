//! Agents: registering one, what an operator decides and orders about it, and sessions wherever they are.

use chrono::{DateTime, Utc};
use reqwest::{Method, header::HeaderName};
use serde::{Deserialize, Serialize};
use tidegate_model::{
    Agent, AgentCommand, AgentCommandRequest, AgentHandle, AgentRegistrationRequest, ApprovalStatus, Secret,
    Session, SessionFilter, SessionId,
};

use crate::{
    Client, Error, SessionPage,
    call::{Call, secret_header},
};

const API_KEY: HeaderName = HeaderName::from_static("x-agent-api-key");
const CLAIM: HeaderName = HeaderName::from_static("x-agent-claim");

/// What a registration gives.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// The agent's row.
    pub agent: Agent,
    /// Whether an operator let it in.
    pub approval_status: ApprovalStatus,
    /// What a later call gets the agent's own key with; given once, with the first call.
    #[serde(default)]
    pub claim_token: Option<Secret<String>>,
    /// The agent's own key.
    #[serde(default)]
    pub api_key: Option<Secret<String>>,
}

/// The agents of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentList {
    /// The agents.
    pub agents: Vec<Agent>,
    /// How many there are.
    pub total: u64,
}

/// An agent's new key.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotatedAgentKey {
    /// The agent.
    pub agent_id: AgentHandle,
    /// The key, shown this once.
    #[serde(default)]
    pub api_key: Option<Secret<String>>,
    /// Until when the key before it is good as well.
    #[serde(default)]
    pub old_key_until: Option<DateTime<Utc>>,
}

/// What changes of an agent; what is `None` stays, and `Some(None)` clears.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AgentChange {
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Option<String>>,
    /// The organization it serves alone, by id or name; cleared, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<Option<String>>,
}

/// A session that an agent runs and the control plane does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The agent that runs it.
    pub agent_id: AgentHandle,
    /// The id the agent gave it.
    pub session_id: String,
    /// The state the agent gave.
    pub state: String,
    /// First reported.
    pub first_seen: DateTime<Utc>,
    /// Last reported.
    pub last_seen: DateTime<Utc>,
}

/// Every such session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The sessions.
    pub sessions: Vec<Quarantined>,
    /// How many there are.
    pub total: u64,
}

/// An agent, bare or under its name.
#[derive(Deserialize)]
#[serde(untagged)]
enum AgentAnswer {
    Named { agent: Box<Agent> },
    Bare(Box<Agent>),
}

impl From<AgentAnswer> for Agent {
    fn from(answer: AgentAnswer) -> Self {
        match answer {
            AgentAnswer::Named { agent } | AgentAnswer::Bare(agent) => *agent,
        }
    }
}

impl Client {
    /// `POST agents/register` with the bootstrap key or the agent's own, and the claim token where there is one.
    ///
    /// Refused with 403 when an operator rejected the agent, 409 when the name is known and neither token nor key fits,
    /// 429 when asked too often. A lost answer is not asked for again here: it may have held the claim token, and the
    /// caller decides.
    pub async fn register_agent(
        &self,
        api_key: &Secret<String>,
        claim: Option<&Secret<String>>,
        request: &AgentRegistrationRequest,
    ) -> Result<Registration, Error> {
        let mut call = Call::post(&["agents", "register"])
            .json(request)?
            .without_bearer()
            .header(API_KEY, secret_header(api_key.expose())?);
        if let Some(claim) = claim {
            call = call.header(CLAIM, secret_header(claim.expose())?);
        }
        self.fetch(call).await
    }

    /// `GET admin/agents`, for operators.
    pub async fn agents(&self) -> Result<AgentList, Error> {
        self.fetch(Call::get(&["admin", "agents"])).await
    }

    /// `POST admin/agents/{agentId}/approve`, for operators; 409 unless it is pending.
    pub async fn approve_agent(&self, agent: &AgentHandle) -> Result<Agent, Error> {
        self.decide(agent, "approve").await
    }

    /// `POST admin/agents/{agentId}/reject`, for operators; 409 unless it is pending.
    pub async fn reject_agent(&self, agent: &AgentHandle) -> Result<Agent, Error> {
        self.decide(agent, "reject").await
    }

    /// `GET admin/agents/{agentId}`, for operators.
    pub async fn agent(&self, agent: &AgentHandle) -> Result<Agent, Error> {
        self.fetch(Call::get(&["admin", "agents", agent.as_str()])).await
    }

    /// `PATCH admin/agents/{agentId}`, for operators; 409 while it holds sessions of other organizations.
    pub async fn update_agent(&self, agent: &AgentHandle, change: &AgentChange) -> Result<Agent, Error> {
        self.fetch(Call::new(Method::PATCH, &["admin", "agents", agent.as_str()]).json(change)?).await
    }

    /// `DELETE admin/agents/{agentId}`, for operators; 409 while it holds sessions, unless by force.
    pub async fn remove_agent(&self, agent: &AgentHandle, force: bool) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, &["admin", "agents", agent.as_str()]);
        self.send(&call.query_if("force", force.then_some(true))).await.map(drop)
    }

    /// `POST admin/agents/{agentId}/drain`, for operators. The deadline is a time (RFC 3339) or a duration such as `30m`.
    pub async fn drain_agent(
        &self,
        agent: &AgentHandle,
        deadline: Option<&str>,
        reason: Option<&str>,
    ) -> Result<Agent, Error> {
        let body = serde_json::json!({"deadline": deadline, "reason": reason});
        self.fetch(Call::post(&["admin", "agents", agent.as_str(), "drain"]).json(&body)?).await
    }

    /// `POST admin/agents/{agentId}/undrain`, for operators.
    pub async fn undrain_agent(&self, agent: &AgentHandle) -> Result<Agent, Error> {
        self.fetch(Call::post(&["admin", "agents", agent.as_str(), "undrain"])).await
    }

    /// `POST admin/agents/{agentId}/rotate-key`, for operators: the old key is good for `overlap` seconds more.
    pub async fn rotate_agent_key(
        &self,
        agent: &AgentHandle,
        overlap: u32,
    ) -> Result<RotatedAgentKey, Error> {
        let body = serde_json::json!({"overlapSeconds": overlap});
        self.fetch(Call::post(&["admin", "agents", agent.as_str(), "rotate-key"]).json(&body)?).await
    }

    /// `POST admin/agents/{agentId}/revoke-key`, for operators.
    pub async fn revoke_agent_key(&self, agent: &AgentHandle) -> Result<Agent, Error> {
        self.fetch(Call::post(&["admin", "agents", agent.as_str(), "revoke-key"])).await
    }

    /// `GET admin/sessions`, for operators, one page: at most 100, from `cursor` on.
    pub async fn sessions_of_all(
        &self,
        filter: &SessionFilter,
        organization: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<SessionPage, Error> {
        let call = Call::get(&["admin", "sessions"])
            .query_if("user", filter.user.as_ref())
            .query_if("state", filter.state)
            .query_if("tag", filter.tag.as_ref())
            .query_if("agent", filter.agent.as_ref())
            .query_if("organization", organization)
            .query("limit", "100".to_owned())
            .query_if("cursor", cursor);
        self.fetch(call).await
    }

    /// `POST admin/sessions/{id}/terminate`, for operators.
    pub async fn terminate_any_session(&self, id: SessionId, reason: Option<&str>) -> Result<Session, Error> {
        let body = serde_json::json!({"reason": reason});
        self.fetch(Call::post(&["admin", "sessions", &id.to_string(), "terminate"]).json(&body)?).await
    }

    /// `POST admin/agents/{agentId}/command`, for operators: queues a command, whether the agent is connected or not.
    pub async fn order_agent(
        &self,
        agent: &AgentHandle,
        request: &AgentCommandRequest,
    ) -> Result<AgentCommand, Error> {
        self.fetch(Call::post(&["admin", "agents", agent.as_str(), "command"]).json(request)?).await
    }

    /// `GET admin/quarantine`, for operators: sessions that agents run and the control plane does not know.
    pub async fn quarantine(&self) -> Result<Quarantine, Error> {
        self.fetch(Call::get(&["admin", "quarantine"])).await
    }

    /// `POST admin/quarantine/{agentId}/{sessionId}/stop`, for operators: tells the agent to stop such a session.
    pub async fn stop_quarantined(
        &self,
        agent: &AgentHandle,
        session_id: &str,
    ) -> Result<AgentCommand, Error> {
        self.fetch(Call::post(&["admin", "quarantine", agent.as_str(), session_id, "stop"])).await
    }

    /// `POST admin/quarantine/{agentId}/{sessionId}/forget`, for operators: takes such a session off the list.
    pub async fn forget_quarantined(&self, agent: &AgentHandle, session_id: &str) -> Result<(), Error> {
        let call = Call::post(&["admin", "quarantine", agent.as_str(), session_id, "forget"]);
        self.send(&call).await.map(drop)
    }

    async fn decide(&self, agent: &AgentHandle, verb: &str) -> Result<Agent, Error> {
        let call = Call::post(&["admin", "agents", agent.as_str(), verb]).json(&serde_json::json!({}))?;
        self.fetch::<AgentAnswer>(call).await.map(Agent::from)
    }
}
