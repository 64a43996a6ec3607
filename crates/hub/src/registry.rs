//! Which connection of each agent counts: the one with the newest epoch.

use std::{collections::HashMap, sync::Mutex};

use tidegate_model::AgentId;

use crate::guard::lock;

/// What became of a connection that came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<C> {
    /// It counts; the one it took the place of is to be closed.
    Seated {
        /// The older one.
        superseded: Option<C>,
    },
    /// A newer one was faster: this one is to be closed.
    Late,
}

/// The connections of this process, one an agent.
#[derive(Debug)]
pub(crate) struct Registry<C> {
    seats: Mutex<HashMap<AgentId, (i64, C)>>,
}

impl<C> Default for Registry<C> {
    fn default() -> Self {
        Self { seats: Mutex::new(HashMap::new()) }
    }
}

impl<C: Clone> Registry<C> {
    /// Seats a connection unless a newer one sits there.
    pub(crate) fn admit(&self, agent: AgentId, epoch: i64, connection: C) -> Admission<C> {
        let mut seats = lock(&self.seats);
        if seats.get(&agent).is_some_and(|(newest, _)| *newest > epoch) {
            return Admission::Late;
        }
        let superseded = seats.insert(agent, (epoch, connection)).map(|(_, older)| older);
        Admission::Seated { superseded }
    }

    /// Frees the seat, if it is still this connection's: an old one that ends never unseats its successor.
    pub(crate) fn leave(&self, agent: AgentId, epoch: i64) {
        let mut seats = lock(&self.seats);
        if seats.get(&agent).is_some_and(|(newest, _)| *newest == epoch) {
            seats.remove(&agent);
        }
    }

    /// The connection of an agent.
    pub(crate) fn get(&self, agent: AgentId) -> Option<C> {
        lock(&self.seats).get(&agent).map(|(_, connection)| connection.clone())
    }

    /// The epoch of an agent's connection.
    pub(crate) fn epoch(&self, agent: AgentId) -> Option<i64> {
        lock(&self.seats).get(&agent).map(|(epoch, _)| *epoch)
    }

    /// Every connection.
    pub(crate) fn all(&self) -> Vec<C> {
        lock(&self.seats).values().map(|(_, connection)| connection.clone()).collect()
    }

    /// Every agent that is connected.
    pub(crate) fn agents(&self) -> Vec<AgentId> {
        lock(&self.seats).keys().copied().collect()
    }

    /// The connections of these agents.
    pub(crate) fn of(&self, agents: impl IntoIterator<Item = AgentId>) -> Vec<C> {
        let seats = lock(&self.seats);
        agents.into_iter().filter_map(|agent| seats.get(&agent)).map(|(_, c)| c.clone()).collect()
    }

    /// How many agents are connected.
    pub(crate) fn len(&self) -> usize {
        lock(&self.seats).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_connection_takes_the_seat_and_the_older_one_is_named() {
        let (registry, agent) = (Registry::default(), AgentId::new());
        assert_eq!(registry.admit(agent, 1, "old"), Admission::Seated { superseded: None });
        assert_eq!(registry.admit(agent, 2, "new"), Admission::Seated { superseded: Some("old") });
        assert_eq!(registry.get(agent), Some("new"));
    }

    #[test]
    fn a_connection_that_was_overtaken_on_its_way_in_is_late() {
        let (registry, agent) = (Registry::default(), AgentId::new());
        registry.admit(agent, 2, "new");
        assert_eq!(registry.admit(agent, 1, "old"), Admission::Late);
        assert_eq!(registry.get(agent), Some("new"));
    }

    #[test]
    fn an_old_connection_that_ends_never_unseats_its_successor() {
        let (registry, agent) = (Registry::default(), AgentId::new());
        registry.admit(agent, 1, "old");
        registry.admit(agent, 2, "new");
        registry.leave(agent, 1);
        assert_eq!(registry.epoch(agent), Some(2));
        registry.leave(agent, 2);
        assert_eq!((registry.get(agent), registry.len()), (None, 0));
    }

    #[test]
    fn one_agents_seat_is_not_anothers() {
        let (registry, agent, other) = (Registry::default(), AgentId::new(), AgentId::new());
        registry.admit(agent, 5, "one");
        registry.admit(other, 1, "two");
        assert_eq!(registry.of([agent, other, AgentId::new()]), ["one", "two"]);
        assert_eq!(registry.all().len(), 2);
    }
}
