//! Where a session goes: an agent with room, counted under its lock, or a reason per agent why there is none.

use tidegate_model::{AgentId, AgentStatus, Platform};
use tidegate_persistence::{
    OrgTx,
    agent::{self, Candidate},
};

use crate::{Error, NoRoom, Result};

/// Agents looked at before every agent is: choosing the emptiest of a few spreads load almost as well as of all.
const SAMPLE: i64 = 4;

/// An agent of `platform` (and `region`, which is a filter and no wish) that is locked and has room.
pub(crate) async fn place_in(tx: &mut OrgTx, platform: Platform, region: Option<&str>) -> Result<Candidate> {
    for candidate in agent::sample(tx, platform, region, SAMPLE).await? {
        if let Some(locked) = lock_with_room(tx, &candidate, region).await? {
            return Ok(locked);
        }
    }
    among(tx, None, platform, region).await
}

/// The same among some agents alone: those where a home of the owner's is.
pub(crate) async fn place_at(
    tx: &mut OrgTx,
    agents: &[AgentId],
    platform: Platform,
    region: Option<&str>,
) -> Result<Candidate> {
    among(tx, Some(agents), platform, region).await
}

/// The first of all agents, or of some, that has room when it is locked; else why each has none.
async fn among(
    tx: &mut OrgTx,
    agents: Option<&[AgentId]>,
    platform: Platform,
    region: Option<&str>,
) -> Result<Candidate> {
    let mut reasons = Vec::new();
    for (of, candidate) in agent::survey(tx).await? {
        if agents.is_some_and(|agents| !agents.contains(&candidate.id)) {
            continue;
        }
        let mut refusal = refusal(of, &candidate, platform, region);
        if refusal.is_none() {
            match lock_with_room(tx, &candidate, region).await? {
                Some(locked) => return Ok(locked),
                None => refusal = Some("has just been filled".to_owned()),
            }
        }
        let reason = refusal.unwrap_or_default();
        reasons.push(NoRoom { agent_id: candidate.handle.to_string(), reason });
    }
    Err(Error::NoAgent(reasons))
}

async fn lock_with_room(
    tx: &mut OrgTx,
    candidate: &Candidate,
    region: Option<&str>,
) -> Result<Option<Candidate>> {
    let locked = agent::lock(tx, candidate.id).await?.filter(|agent| why_not(agent, region).is_none());
    if locked.is_none() {
        // Held on to, two requests could wait for each other's agents in a circle.
        agent::unlock(tx).await?;
    }
    Ok(locked)
}

fn refusal(of: Platform, agent: &Candidate, platform: Platform, region: Option<&str>) -> Option<String> {
    if of != platform {
        return Some(format!("runs platform {of}, not {platform}"));
    }
    why_not(agent, region)
}

fn why_not(agent: &Candidate, region: Option<&str>) -> Option<String> {
    if region.is_some() && agent.region.as_deref() != region {
        return Some(format!("is in region {}", agent.region.as_deref().unwrap_or("none")));
    }
    match agent.status {
        AgentStatus::Offline => return Some("is offline".into()),
        AgentStatus::Draining => return Some("is draining".into()),
        AgentStatus::Online => {}
    }
    if agent.drained {
        return Some("is drained by an operator".into());
    }
    has_room(agent).then_some(()).map_or_else(
        || Some(format!("is full: {} of {} sessions", agent.active, agent.max_sessions)),
        |()| None,
    )
}

/// Whether one more active session fits.
pub(crate) fn has_room(agent: &Candidate) -> bool {
    agent.active < agent.max_sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(status: AgentStatus, drained: bool, active: i64) -> Candidate {
        let handle = "vm-1".parse().unwrap();
        Candidate {
            id: AgentId::new(),
            handle,
            region: Some("eu".into()),
            status,
            drained,
            max_sessions: 2,
            active,
        }
    }

    #[test]
    fn every_agent_that_takes_nothing_says_why() {
        use AgentStatus::{Draining, Offline, Online};
        let why = |agent, region| refusal(Platform::Vm, &agent, Platform::Vm, region);
        assert_eq!(why(agent(Online, false, 1), None), None);
        assert_eq!(why(agent(Online, false, 1), Some("eu")), None);
        assert_eq!(why(agent(Online, false, 2), None).unwrap(), "is full: 2 of 2 sessions");
        assert_eq!(why(agent(Online, true, 0), None).unwrap(), "is drained by an operator");
        assert_eq!(why(agent(Draining, false, 0), None).unwrap(), "is draining");
        assert_eq!(why(agent(Offline, false, 0), None).unwrap(), "is offline");
        assert_eq!(why(agent(Online, false, 0), Some("us")).unwrap(), "is in region eu");
        let other = refusal(Platform::Docker, &agent(Online, false, 0), Platform::Vm, None);
        assert_eq!(other.unwrap(), "runs platform docker, not vm");
    }
}
