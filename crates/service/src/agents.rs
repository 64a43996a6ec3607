//! Agents: registration, approval, keys, and who may connect.

use std::{net::IpAddr, sync::Arc};

use serde_json::json;
use tidegate_model::{
    Agent, AgentCommand, AgentHandle, AgentHeartbeatRequest, AgentId, AgentRegistrationRequest,
    ApprovalStatus, CommandId, Secret,
};
use tidegate_persistence::{
    AgentScope, Error as DbError, Operator, Origin, agent, audit, auth, command, quarantine,
};

use crate::{
    Core, Error, Nudge, Quarantined, Result,
    error::Named,
    secrets::{Purpose, random, random_token, same},
};

/// Registration, approval and identity of agents.
#[derive(Debug, Clone)]
pub struct Agents(pub(crate) Arc<Core>);

/// What an agent presents when it registers.
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// `X-Agent-API-Key`: the bootstrap key or its own.
    pub key: Option<Secret<String>>,
    /// `X-Agent-Claim`.
    pub claim: Option<Secret<String>>,
    /// Where it calls from.
    pub source: Option<IpAddr>,
}

/// What a registration came to.
#[derive(Debug, Clone)]
pub enum Registered {
    /// It waits for an operator. The claim token is given once, at the first call.
    Pending(Box<Agent>, Option<Secret<String>>),
    /// It may connect. The key is given until one has been used.
    Approved(Box<Agent>, Option<Secret<String>>),
    /// It was rejected.
    Rejected(Box<Agent>),
}

/// What an operator says to an agent that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may connect.
    Approve,
    /// It may not.
    Reject,
}

/// An approved agent that proved itself with its own key. Only [`Agents::authenticate`] makes one.
#[derive(Debug, Clone)]
pub struct AgentIdentity {
    pub(crate) scope: AgentScope,
    pub(crate) id: AgentId,
    pub(crate) handle: AgentHandle,
    /// Digest of the key that was proved: whoever connects with it must find it in force still.
    pub(crate) key_hash: Vec<u8>,
}

impl AgentIdentity {
    /// The row.
    pub fn id(&self) -> AgentId {
        self.id
    }

    /// The name.
    pub fn handle(&self) -> &AgentHandle {
        &self.handle
    }
}

const WRONG_KEY: Error = Error::Unauthenticated("the agent id or its API key is wrong");

/// Keys are 64 lower-case hexadecimal digits; the length is the only thing a wrong one is told.
fn check_form(key: Option<&Secret<String>>) -> Result<&str> {
    let key = key.ok_or(Error::Unauthenticated("the header X-Agent-API-Key is missing"))?.expose();
    let hexadecimal = key.len() == 64 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hexadecimal { Ok(key) } else { Err(WRONG_KEY) }
}

impl Agents {
    /// Registers an agent, or hands an approved one its key. The bootstrap key opens this and nothing else.
    pub async fn register(
        &self,
        presented: Registration,
        request: AgentRegistrationRequest,
    ) -> Result<Registered> {
        let key =
            presented.key.as_ref().ok_or(Error::Unauthenticated("the header X-Agent-API-Key is missing"))?;
        if self.is_bootstrap(key) {
            return self.register_with_bootstrap(presented, request).await;
        }
        let identity = self.authenticate(&request.agent_id, presented.key.as_ref(), presented.source).await?;
        let now = self.0.clock.now();
        let agent = self
            .platform(presented.source, async |tx| {
                agent::refresh(tx, identity.id, request, now).await?;
                agent::find(tx, &identity.handle).await
            })
            .await?;
        Ok(Registered::Approved(Box::new(agent), None))
    }

    fn is_bootstrap(&self, key: &Secret<String>) -> bool {
        let vault = &self.0.vault;
        self.0.options.agent_bootstrap_key.as_ref().is_some_and(|bootstrap| {
            // Digests have one length, so that the comparison tells nothing of the key's.
            let digest = |key: &str| vault.digest(Purpose::AgentKey, key);
            same(&digest(bootstrap.expose()), &digest(key.expose()))
        })
    }

    async fn register_with_bootstrap(
        &self,
        presented: Registration,
        request: AgentRegistrationRequest,
    ) -> Result<Registered> {
        match auth::agent(&self.0.db, &request.agent_id).await {
            Ok(known) => self.register_known(&known, presented, request).await,
            Err(DbError::NotFound) => self.register_new(presented.source, request).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn register_new(
        &self,
        source: Option<IpAddr>,
        request: AgentRegistrationRequest,
    ) -> Result<Registered> {
        let (id, claim, now) = (AgentId::new(), random_token()?, self.0.clock.now());
        let hash = self.0.vault.digest(Purpose::AgentClaim, &claim);
        let handle = request.agent_id.clone();
        let agent = self
            .platform(source, async |tx| {
                agent::insert(tx, id, request, hash, now).await?;
                audit(tx, "agent.register", &handle, json!({}), now).await?;
                agent::find(tx, &handle).await
            })
            .await?;
        tracing::info!(agent = %handle, "an agent registered and waits for approval");
        Ok(Registered::Pending(Box::new(agent), Some(Secret::new(claim))))
    }

    async fn register_known(
        &self,
        known: &auth::AgentLookup,
        presented: Registration,
        request: AgentRegistrationRequest,
    ) -> Result<Registered> {
        let now = self.0.clock.now();
        let claims = presented.claim.as_ref().zip(known.claim_hash.as_ref()).is_some_and(|(claim, hash)| {
            same(&self.0.vault.digest(Purpose::AgentClaim, claim.expose()), hash)
        });
        if !claims {
            self.0.throttle.failure(presented.source, now)?;
            let handle = &known.handle;
            let refused = "agent.register.refused";
            self.platform(presented.source, async |tx| audit(tx, refused, handle, json!({}), now).await)
                .await?;
            return Err(Error::Conflict {
                code: "E_AGENT_TAKEN",
                message: format!(
                    "agent {handle} is registered already: present its claim token or key, or choose another id"
                ),
            });
        }
        let fresh = (known.approval == ApprovalStatus::Approved && known.key_used_at.is_none())
            .then(new_key)
            .transpose()?;
        let hash = fresh.as_ref().map(|key| self.0.vault.digest(Purpose::AgentKey, key.expose()));
        let agent = self
            .platform(presented.source, async |tx| {
                agent::refresh(tx, known.id, request, now).await?;
                if let Some(hash) = hash {
                    agent::set_key(tx, known.id, hash, now).await?;
                }
                agent::find(tx, &known.handle).await
            })
            .await?;
        Ok(match agent.approval_status {
            ApprovalStatus::Pending => Registered::Pending(Box::new(agent), None),
            ApprovalStatus::Approved => Registered::Approved(Box::new(agent), fresh),
            ApprovalStatus::Rejected => Registered::Rejected(Box::new(agent)),
        })
    }

    /// Proves an agent by its own key. Every wrong pair of agent and key looks the same.
    pub async fn authenticate(
        &self,
        handle: &AgentHandle,
        key: Option<&Secret<String>>,
        source: Option<IpAddr>,
    ) -> Result<AgentIdentity> {
        let core = &self.0;
        let key = check_form(key)?;
        let digest = core.vault.digest(Purpose::AgentKey, key);
        let found = match auth::agent(&core.db, handle).await {
            Ok(found) => Some(found),
            Err(DbError::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        self.prove(found, digest, source)
    }

    /// Proves an agent by its own key alone, in one probe: for dials that do not say whose they are.
    pub async fn authenticate_by_key(
        &self,
        key: Option<&Secret<String>>,
        source: Option<IpAddr>,
    ) -> Result<AgentIdentity> {
        let core = &self.0;
        let digest = core.vault.digest(Purpose::AgentKey, check_form(key)?);
        let found = match auth::agent_by_key(&core.db, digest.clone()).await {
            Ok(found) => Some(found),
            Err(DbError::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        self.prove(found, digest, source)
    }

    fn prove(
        &self,
        found: Option<auth::AgentLookup>,
        digest: Vec<u8>,
        source: Option<IpAddr>,
    ) -> Result<AgentIdentity> {
        let fits =
            |found: &auth::AgentLookup| found.key_hash.as_deref().is_some_and(|hash| same(hash, &digest));
        let Some(found) = found.filter(fits) else {
            self.0.throttle.failure(source, self.0.clock.now())?;
            return Err(WRONG_KEY);
        };
        if found.approval != ApprovalStatus::Approved {
            let (handle, approval) = (&found.handle, found.approval);
            return Err(Error::Forbidden(format!(
                "agent {handle} is {approval}, ask an operator to approve it"
            )));
        }
        Ok(AgentIdentity { scope: found.scope(), id: found.id, handle: found.handle, key_hash: digest })
    }

    /// A heartbeat over HTTP, for agents that have no socket open.
    pub async fn heartbeat(&self, identity: &AgentIdentity, request: AgentHeartbeatRequest) -> Result<()> {
        let now = self.0.clock.now();
        let said = Some((request.status, request.active_sessions));
        let beat = agent::Heartbeat { agent: identity.id, epoch: None, said, capacity: request.capacity };
        self.0.db.in_agents(&identity.scope, async |tx| agent::heartbeats(tx, vec![beat], now).await).await?;
        Ok(())
    }

    /// Agents by name.
    pub async fn list(&self, operator: &Operator, filter: agent::Filter) -> Result<Vec<Agent>> {
        Ok(self.0.db.in_platform(operator, async |tx| agent::list(tx, filter).await).await?)
    }

    /// One agent.
    pub async fn get(&self, operator: &Operator, handle: &AgentHandle) -> Result<Agent> {
        self.0.db.in_platform(operator, async |tx| agent::find(tx, handle).await).await.named(named(handle))
    }

    /// Lets an agent that waits in, or keeps it out. With `show_key` the answer holds its first key, for agents that
    /// kept no claim token.
    pub async fn decide(
        &self,
        operator: &Operator,
        handle: &AgentHandle,
        decision: Decision,
        show_key: bool,
    ) -> Result<(Agent, Option<Secret<String>>)> {
        let now = self.0.clock.now();
        let (approval, action) = match decision {
            Decision::Approve => (ApprovalStatus::Approved, "agent.approve"),
            Decision::Reject => (ApprovalStatus::Rejected, "agent.reject"),
        };
        let key = (show_key && decision == Decision::Approve).then(new_key).transpose()?;
        let hash = key.as_ref().map(|key| self.0.vault.digest(Purpose::AgentKey, key.expose()));
        let agent = self
            .0
            .db
            .in_platform(operator, async |tx| {
                let before = agent::find(tx, handle).await.named(named(handle))?;
                let decided = agent::decide(tx, handle, approval, now).await;
                let id = decided.map_err(|error| match error {
                    DbError::NotFound => Error::Conflict {
                        code: "E_WRONG_STATE",
                        message: format!("agent {handle} is {}, only a pending agent can be approved or rejected", before.approval_status),
                    },
                    other => other.into(),
                })?;
                if let Some(hash) = hash {
                    agent::set_key(tx, id, hash, now).await?;
                }
                let detail = json!({"before": {"approvalStatus": before.approval_status}, "after": {"approvalStatus": approval}});
                audit(tx, action, handle, detail, now).await?;
                agent::find(tx, handle).await.map_err(Error::from)
            })
            .await?;
        self.0.nudges.send(Nudge::Revoked(agent.id));
        Ok((agent, key))
    }

    /// Gives an agent a new key, shown once; the old one ends at once, and so does what it opened.
    pub async fn rotate_key(&self, operator: &Operator, handle: &AgentHandle) -> Result<Secret<String>> {
        let (key, now) = (new_key()?, self.0.clock.now());
        let hash = self.0.vault.digest(Purpose::AgentKey, key.expose());
        let id = self
            .0
            .db
            .in_platform(operator, async |tx| {
                let agent = agent::find(tx, handle).await.named(named(handle))?;
                if agent.approval_status != ApprovalStatus::Approved {
                    let message = format!(
                        "agent {handle} is {}, only an approved agent has a key",
                        agent.approval_status
                    );
                    return Err(Error::Conflict { code: "E_WRONG_STATE", message });
                }
                agent::set_key(tx, agent.id, hash, now).await?;
                audit(tx, "agent.rotate_key", handle, json!({}), now).await?;
                Ok(agent.id)
            })
            .await?;
        self.0.nudges.send(Nudge::Revoked(id));
        Ok(key)
    }

    /// Stops or resumes placing new sessions on an agent; running ones stay.
    pub async fn drain(&self, operator: &Operator, handle: &AgentHandle, drain: bool) -> Result<Agent> {
        let now = self.0.clock.now();
        self.0
            .db
            .in_platform(operator, async |tx| {
                agent::set_drain(tx, handle, drain, now).await.named(named(handle))?;
                let action = if drain { "agent.drain" } else { "agent.undrain" };
                audit(tx, action, handle, json!({}), now).await?;
                Ok(agent::find(tx, handle).await?)
            })
            .await
    }

    /// An agent's commands, the newest first.
    pub async fn commands(
        &self,
        operator: &Operator,
        handle: &AgentHandle,
        limit: u32,
    ) -> Result<Vec<AgentCommand>> {
        self.0
            .db
            .in_platform(operator, async |tx| {
                let agent = agent::find(tx, handle).await.named(named(handle))?;
                Ok(command::history(tx, agent.id, i64::from(limit.clamp(1, 100))).await?)
            })
            .await
    }

    /// One command.
    pub async fn command(&self, operator: &Operator, id: CommandId) -> Result<AgentCommand> {
        let found = self.0.db.in_platform(operator, async |tx| command::find(tx, id).await).await;
        found.named(format_args!("command {}", id.to_wire()))
    }

    /// Sessions that agents run and nobody here knows.
    pub async fn quarantined(&self, operator: &Operator) -> Result<Vec<Quarantined>> {
        Ok(self.0.db.in_platform(operator, async |tx| quarantine::list(tx).await).await?)
    }

    /// Work on agents' rows that no person asked for.
    async fn platform<T>(
        &self,
        source: Option<IpAddr>,
        work: impl AsyncFnOnce(&mut tidegate_persistence::PlatformTx) -> Result<T, DbError>,
    ) -> Result<T> {
        let system = Operator::system().with_origin(Origin::new(source, None));
        Ok(self.0.db.in_platform(&system, work).await?)
    }
}

pub(crate) fn named(handle: &AgentHandle) -> String {
    format!("agent {handle}")
}

/// A key: 256 random bits as 64 lower-case hexadecimal digits.
fn new_key() -> Result<Secret<String>> {
    Ok(Secret::new(hex::encode(random::<32>()?)))
}

async fn audit(
    tx: &mut tidegate_persistence::PlatformTx,
    action: &'static str,
    handle: &AgentHandle,
    detail: serde_json::Value,
    at: chrono::DateTime<chrono::Utc>,
) -> Result<(), DbError> {
    let entry = audit::Entry { action, resource: format!("agent:{handle}"), address: None, detail, at };
    audit::insert_platform(tx, entry).await
}
