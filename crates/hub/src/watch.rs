//! What looks after connections from outside: nudges, the comparison with the agents' rows, the sweep and the one
//! ticker that pings and misses everybody.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tidegate_model::AgentId;
use tidegate_protocol::{PingMessage, ToAgent};
use tidegate_service::{Link, Nudge};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{CloseReason, backoff::Outage, hub::Inner, liveness::Due};

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Acts on what was committed, until `stop`.
pub(crate) async fn nudges(hub: Arc<Inner>, stop: CancellationToken) {
    let mut nudges = hub.links.nudges();
    loop {
        let nudge = tokio::select! {
            () = stop.cancelled() => return,
            nudge = nudges.recv() => nudge,
        };
        match nudge {
            Ok(Nudge::Commands(agent)) => hub.wanted.add(agent),
            Ok(Nudge::Revoked(agent)) => hub.revoke(agent),
            Ok(Nudge::SessionEnded(session)) => hub.tunnels.end_session(session, Instant::now()),
            // Viewers' logins are known to the HTTP layer alone.
            Ok(Nudge::Revalidate | Nudge::Mail | Nudge::Plugins | Nudge::Installation) => {}
            Err(RecvError::Lagged(_)) => {
                for connection in hub.registry.all() {
                    hub.wanted.add(connection.agent());
                }
                hub.look.notify_one();
            }
            // Nobody is left who could nudge; the polls go on.
            Err(RecvError::Closed) => return stop.cancelled().await,
        }
    }
}

/// Offline agents, deadlines, stuck sessions.
pub(crate) async fn sweep(hub: Arc<Inner>, stop: CancellationToken) {
    let mut ticks = every(hub.options.sweep);
    let mut outage = Outage::new("the sweep of deadlines");
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        outage.note(&hub.links.sweep().await);
    }
}

/// Pings, misses and hurries, for all connections at once.
pub(crate) async fn tick(hub: Arc<Inner>, stop: CancellationToken) {
    let mut ticks = every(hub.options.tick);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        hub.tunnels.cut_overdue(now);
        let time = hub.clock.now();
        let ping = ToAgent::Ping(PingMessage { timestamp: Some(time) });
        let silence = hub.options.silence();
        for connection in hub.registry.all() {
            if connection.outbox.stalled(now) > silence {
                connection.close(CloseReason::OutboundFull);
                continue;
            }
            match connection.liveness.due(now, silence, hub.options.ping) {
                Due::Nothing => {}
                // A queue that is full closes its connection by itself.
                Due::Ping => drop(connection.say([&ping], time)),
                Due::Silent => connection.close(CloseReason::Silent),
            }
        }
    }
}

/// Compares connections with their agents' rows, until `stop`: nudges may be lost, and other processes give none.
pub(crate) async fn guard(hub: Arc<Inner>, stop: CancellationToken) {
    let mut ticks = every(hub.options.stale);
    let mut outage = Outage::new("comparing connections with their agents");
    let mut known: HashMap<AgentId, Arc<Link>> = HashMap::new();
    let mut doomed = Doomed::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = hub.look.notified() => {}
        }
        remember(&hub, &mut known);
        let links: Vec<Arc<Link>> = known.values().cloned().collect();
        let stale = if links.is_empty() { Ok(Vec::new()) } else { hub.links.stale(&links).await };
        outage.note(&stale);
        let Ok(stale) = stale else { continue };
        for (agent, epoch) in &stale {
            if let Some(connection) = hub.registry.get(*agent).filter(|seated| seated.link.epoch() == *epoch)
            {
                connection.close(CloseReason::Revoked);
            }
        }
        for agent in doomed.judge(&stale, |agent| hub.registry.epoch(agent)) {
            known.remove(&agent);
            hub.revoke(agent);
        }
    }
}

/// The links to compare: the connected ones, and the last one of agents that have tunnels without a connection.
fn remember(hub: &Inner, known: &mut HashMap<AgentId, Arc<Link>>) {
    known.retain(|agent, _| hub.tunnels.has_agent(*agent));
    for connection in hub.registry.all() {
        known.insert(connection.agent(), Arc::clone(&connection.link));
    }
}

/// Agents whose newest known link was stale at the last look. A link also grows stale when its agent connects anew, and
/// that must not end tunnels: only where no newer connection has come by the next look was the agent revoked.
#[derive(Debug, Default)]
struct Doomed {
    agents: HashMap<AgentId, i64>,
}

impl Doomed {
    /// The agents whose tunnels end now.
    fn judge(
        &mut self,
        stale: &[(AgentId, i64)],
        connected: impl Fn(AgentId) -> Option<i64>,
    ) -> Vec<AgentId> {
        let last = std::mem::replace(&mut self.agents, stale.iter().copied().collect());
        let revoked: Vec<AgentId> = last
            .into_iter()
            .filter(|(agent, epoch)| connected(*agent).is_none_or(|newest| newest <= *epoch))
            .map(|(agent, _)| agent)
            .collect();
        self.agents.retain(|agent, _| !revoked.contains(agent));
        revoked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_link_without_a_successor_ends_its_agents_tunnels_at_the_next_look() {
        let (mut doomed, agent) = (Doomed::default(), AgentId::new());
        assert!(doomed.judge(&[(agent, 3)], |_| Some(3)).is_empty());
        assert_eq!(doomed.judge(&[(agent, 3)], |_| None), [agent]);
        assert!(doomed.judge(&[], |_| None).is_empty());
    }

    #[test]
    fn an_agent_that_connected_anew_keeps_its_tunnels() {
        let (mut doomed, agent) = (Doomed::default(), AgentId::new());
        assert!(doomed.judge(&[(agent, 3)], |_| Some(3)).is_empty());
        assert!(doomed.judge(&[], |_| Some(4)).is_empty());
        assert!(doomed.judge(&[], |_| None).is_empty());
    }
}
