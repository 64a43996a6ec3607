//! Tunnels that an agent was asked for and has not dialled yet. Plain state, fed with the time.

use std::collections::HashMap;

use tidegate_model::{AgentId, SessionId};
use tidegate_protocol::TunnelId;
use tokio::time::Instant;

/// One dial that is waited for.
#[derive(Debug)]
pub(crate) struct Dial<W> {
    /// The only agent that may dial it.
    pub(crate) agent: AgentId,
    pub(crate) session: SessionId,
    /// From here on nobody may.
    pub(crate) deadline: Instant,
    /// Who waits.
    pub(crate) waiter: W,
}

/// Every dial that is waited for. A tunnel's id is good for one dial by one agent.
#[derive(Debug)]
pub(crate) struct Dials<W> {
    waiting: HashMap<TunnelId, Dial<W>>,
}

impl<W> Default for Dials<W> {
    fn default() -> Self {
        Self { waiting: HashMap::new() }
    }
}

impl<W> Dials<W> {
    pub(crate) fn insert(&mut self, id: TunnelId, dial: Dial<W>) {
        self.waiting.insert(id, dial);
    }

    /// The dial, used up. `None` for an unknown, used or late id, and for another agent's, whose dial stays whole.
    pub(crate) fn take(&mut self, id: &TunnelId, agent: AgentId, now: Instant) -> Option<Dial<W>> {
        let dial = self.waiting.get(id)?;
        if dial.agent != agent {
            return None;
        }
        let in_time = now < dial.deadline;
        self.waiting.remove(id).filter(|_| in_time)
    }

    /// Nobody waits any more.
    pub(crate) fn forget(&mut self, id: &TunnelId) {
        self.waiting.remove(id);
    }

    /// Takes out every dial that `which` names.
    pub(crate) fn take_where(&mut self, which: impl Fn(&Dial<W>) -> bool) -> Vec<W> {
        self.waiting.extract_if(|_, dial| which(dial)).map(|(_, dial)| dial.waiter).collect()
    }

    /// How many dials of a session are waited for.
    pub(crate) fn of_session(&self, session: SessionId) -> usize {
        self.waiting.values().filter(|dial| dial.session == session).count()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn one() -> (Dials<&'static str>, TunnelId, AgentId, Instant) {
        let (mut dials, id, agent) = (Dials::default(), TunnelId::from_random([7; 16]), AgentId::new());
        let now = Instant::now();
        let deadline = now + Duration::from_secs(10);
        dials.insert(id.clone(), Dial { agent, session: SessionId::new(), deadline, waiter: "viewer" });
        (dials, id, agent, now)
    }

    #[test]
    fn a_tunnel_is_dialled_once() {
        let (mut dials, id, agent, now) = one();
        assert_eq!(dials.take(&id, agent, now).map(|dial| dial.waiter), Some("viewer"));
        assert!(dials.take(&id, agent, now).is_none());
    }

    #[test]
    fn another_agent_neither_gets_a_tunnel_nor_uses_it_up() {
        let (mut dials, id, agent, now) = one();
        assert!(dials.take(&id, AgentId::new(), now).is_none());
        assert!(dials.take(&id, agent, now).is_some());
    }

    #[test]
    fn a_tunnel_dies_after_its_deadline() {
        let (mut dials, id, agent, now) = one();
        assert!(dials.take(&id, agent, now + Duration::from_secs(10)).is_none());
        assert!(dials.take(&id, agent, now).is_none(), "used up by the late dial");
    }

    #[test]
    fn an_unknown_or_forgotten_tunnel_is_not_there() {
        let (mut dials, id, agent, now) = one();
        assert!(dials.take(&TunnelId::from_random([8; 16]), agent, now).is_none());
        dials.forget(&id);
        assert!(dials.take(&id, agent, now).is_none());
    }

    #[test]
    fn the_dials_of_a_revoked_agent_are_taken_out_and_others_stay() {
        let (mut dials, id, agent, now) = one();
        assert!(dials.take_where(|dial| dial.agent != agent).is_empty());
        assert_eq!(dials.take_where(|dial| dial.agent == agent), ["viewer"]);
        assert!(dials.take(&id, agent, now).is_none());
    }
}
