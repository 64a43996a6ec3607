//! Where a session goes: an agent with room, counted under its lock, or a reason per agent why there is none.

use chrono::{DateTime, Utc};
use tidegate_model::{AgentId, AgentStatus, Platform, Quantity, Resources};
use tidegate_persistence::{
    OrgTx,
    agent::{self, Candidate, Wanted},
};

use crate::{Core, Error, NoRoom, Result, options::Options};

/// Agents looked at before every agent is: choosing the emptiest of a few spreads load almost as well as of all. Where
/// these are full, more are looked at once before all are.
const SAMPLES: [i64; 2] = [4, 32];

/// What a session of these resources needs of an agent. `region` is a filter and no wish.
pub(crate) fn wanted(
    core: &Core,
    platform: Platform,
    region: Option<&str>,
    resources: Resources,
    now: DateTime<Utc>,
) -> Wanted {
    let signed =
        |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(i64::MAX / 2);
    Wanted {
        platform,
        region: region.map(str::to_owned),
        cpu_millis: signed(resources.cpu.as_millis()),
        memory_bytes: signed(resources.memory.as_units()),
        now,
        silence: core.options.silence(),
        grudge: Options::seconds(core.options.failed_start_seconds),
    }
}

/// An agent that is locked and has room for what is wanted.
pub(crate) async fn place_in(tx: &mut OrgTx, wanted: &Wanted) -> Result<Candidate> {
    for few in SAMPLES {
        for candidate in agent::sample(tx, wanted, few).await? {
            if let Some(locked) = lock_with_room(tx, &candidate, wanted).await? {
                return Ok(locked);
            }
        }
    }
    among(tx, None, wanted).await
}

/// The same among some agents alone: those where a home of the owner's is.
pub(crate) async fn place_at(tx: &mut OrgTx, agents: &[AgentId], wanted: &Wanted) -> Result<Candidate> {
    among(tx, Some(agents), wanted).await
}

/// Locks the agent that a session sleeps on, if it has room for it again. That it may be away for a moment is no
/// matter: the wake waits for it.
pub(crate) async fn wake_at(tx: &mut OrgTx, agent: AgentId, wanted: &Wanted) -> Result<()> {
    let Some(candidate) = agent::lock(tx, agent).await? else { return Err(Error::NoAgent(Vec::new())) };
    match drains(&candidate).or_else(|| no_room(&candidate, wanted)) {
        None => Ok(()),
        Some(reason) => Err(Error::NoAgent(vec![NoRoom { agent_id: candidate.handle.to_string(), reason }])),
    }
}

/// The first of all agents, or of some, that has room when it is locked; else why each has none.
async fn among(tx: &mut OrgTx, agents: Option<&[AgentId]>, wanted: &Wanted) -> Result<Candidate> {
    let mut reasons = Vec::new();
    for candidate in agent::survey(tx, wanted).await? {
        if agents.is_some_and(|agents| !agents.contains(&candidate.id)) {
            continue;
        }
        let mut refusal = why_not(&candidate, wanted);
        if refusal.is_none() {
            match lock_with_room(tx, &candidate, wanted).await? {
                Some(locked) => return Ok(locked),
                None => refusal = Some("has just been filled".to_owned()),
            }
        }
        let reason = refusal.unwrap_or_default();
        reasons.push(NoRoom { agent_id: candidate.handle.to_string(), reason });
    }
    reasons.sort_by(|one, other| one.agent_id.cmp(&other.agent_id));
    Err(Error::NoAgent(reasons))
}

async fn lock_with_room(tx: &mut OrgTx, candidate: &Candidate, wanted: &Wanted) -> Result<Option<Candidate>> {
    let locked = agent::lock(tx, candidate.id).await?.filter(|agent| why_not(agent, wanted).is_none());
    if locked.is_none() {
        // Held on to, two requests could wait for each other's agents in a circle.
        agent::unlock(tx).await?;
    }
    Ok(locked)
}

/// Why an agent takes nothing of what is wanted.
fn why_not(agent: &Candidate, wanted: &Wanted) -> Option<String> {
    if agent.platform != wanted.platform {
        return Some(format!("runs platform {}, not {}", agent.platform, wanted.platform));
    }
    if wanted.region.is_some() && agent.region != wanted.region {
        return Some(format!("is in region {}", agent.region.as_deref().unwrap_or("none")));
    }
    if agent.status == AgentStatus::Offline {
        return Some("is offline".into());
    }
    let silent = wanted.now - agent.heard;
    if silent > wanted.silence {
        return Some(format!("was last heard of {} s ago", silent.num_seconds()));
    }
    drains(agent).or_else(|| no_room(agent, wanted))
}

fn drains(agent: &Candidate) -> Option<String> {
    if agent.drained {
        return Some("is drained by an operator".into());
    }
    (agent.status == AgentStatus::Draining).then(|| "is draining".into())
}

/// What of an agent's room is too little: sessions, then CPU, then memory.
fn no_room(agent: &Candidate, wanted: &Wanted) -> Option<String> {
    if agent.active >= agent.max_sessions {
        return Some(format!("is full: {} of {} sessions", agent.active, agent.max_sessions));
    }
    let short = |all: Option<i64>, used: i64, asked: i64| {
        let all = all?;
        (used.saturating_add(asked) > all).then(|| ((all - used).max(0), all))
    };
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    if let Some((free, all)) = short(agent.cpu_millis, agent.used_cpu, wanted.cpu_millis) {
        let cpu = |millis| Quantity::from_millis(unsigned(millis)).to_cpu_string();
        return Some(format!(
            "has {} of {} CPU free, {} asked for",
            cpu(free),
            cpu(all),
            cpu(wanted.cpu_millis)
        ));
    }
    if let Some((free, all)) = short(agent.memory_bytes, agent.used_memory, wanted.memory_bytes) {
        let memory = |bytes| in_bytes(unsigned(bytes));
        let asked = memory(wanted.memory_bytes);
        return Some(format!("has {} of {} memory free, {asked} asked for", memory(free), memory(all)));
    }
    None
}

/// Bytes as people read them: no unit that leaves a fraction, and no more digits than help.
fn in_bytes(bytes: u64) -> String {
    // Below a hundredth of what is shown nothing is lost that matters to whoever reads it.
    let unit = if bytes >= 100 << 30 {
        1 << 30
    } else if bytes >= 100 << 20 {
        1 << 20
    } else {
        1
    };
    Quantity::from_bytes(bytes / unit * unit).to_string()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn agent(status: AgentStatus, drained: bool, active: i64) -> Candidate {
        Candidate {
            id: AgentId::new(),
            handle: "vm-1".parse().unwrap(),
            platform: Platform::Vm,
            region: Some("eu".into()),
            status,
            drained,
            heard: DateTime::UNIX_EPOCH,
            max_sessions: 2,
            cpu_millis: None,
            memory_bytes: None,
            active,
            used_cpu: 3_500,
            used_memory: 7 << 30,
        }
    }

    fn one_core() -> Wanted {
        Wanted {
            platform: Platform::Vm,
            region: None,
            cpu_millis: 1_000,
            memory_bytes: 2 << 30,
            now: DateTime::UNIX_EPOCH + TimeDelta::seconds(30),
            silence: TimeDelta::seconds(30),
            grudge: TimeDelta::minutes(5),
        }
    }

    #[test]
    fn every_agent_that_takes_nothing_says_why() {
        use AgentStatus::{Draining, Offline, Online};
        let region = |region: &str| Wanted { region: Some(region.into()), ..one_core() };
        let why = |agent| why_not(&agent, &one_core());
        assert_eq!(why(agent(Online, false, 1)), None);
        assert_eq!(why_not(&agent(Online, false, 1), &region("eu")), None);
        assert_eq!(why(agent(Online, false, 2)).unwrap(), "is full: 2 of 2 sessions");
        assert_eq!(why(agent(Online, true, 0)).unwrap(), "is drained by an operator");
        assert_eq!(why(agent(Draining, false, 0)).unwrap(), "is draining");
        assert_eq!(why(agent(Offline, false, 0)).unwrap(), "is offline");
        assert_eq!(why_not(&agent(Online, false, 0), &region("us")).unwrap(), "is in region eu");
        let other = Wanted { platform: Platform::Docker, ..one_core() };
        assert_eq!(why_not(&agent(Online, false, 0), &other).unwrap(), "runs platform vm, not docker");
        let later = Wanted { now: DateTime::UNIX_EPOCH + TimeDelta::seconds(45), ..one_core() };
        assert_eq!(why_not(&agent(Online, false, 0), &later).unwrap(), "was last heard of 45 s ago");
    }

    #[test]
    fn too_little_cpu_or_memory_is_told_with_numbers() {
        let with = |cpu_millis, memory_bytes| {
            why_not(
                &Candidate { cpu_millis, memory_bytes, ..agent(AgentStatus::Online, false, 1) },
                &one_core(),
            )
        };
        assert_eq!(with(Some(4_500), Some(9 << 30)), None);
        assert_eq!(with(Some(4_000), None).unwrap(), "has 500m of 4000m CPU free, 1000m asked for");
        assert_eq!(with(Some(1_000), None).unwrap(), "has 0m of 1000m CPU free, 1000m asked for");
        assert_eq!(with(None, Some(8 << 30)).unwrap(), "has 1Gi of 8Gi memory free, 2Gi asked for");
        let odd = with(None, Some((8 << 30) + (5 << 20) + 12_345)).unwrap();
        assert_eq!(odd, "has 1029Mi of 8197Mi memory free, 2Gi asked for");
    }
}
