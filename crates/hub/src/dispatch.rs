//! Delivery: commands are claimed for all agents concerned in one statement and queued to their connections in order.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use metrics::{counter, histogram};
use tidegate_model::AgentId;
use tidegate_protocol::ToAgent;
use tidegate_service::{Link, Outbound};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Frame,
    backoff::Outage,
    connection::{Connection, encode},
    guard::lock,
    hub::Inner,
};

/// Links in one claim.
const LINKS: usize = 1_000;

/// The agents to look for commands of.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    agents: Mutex<HashSet<AgentId>>,
    some: Notify,
}

impl Wanted {
    pub(crate) fn add(&self, agent: AgentId) {
        lock(&self.agents).insert(agent);
        self.some.notify_one();
    }

    fn take(&self) -> HashSet<AgentId> {
        std::mem::take(&mut *lock(&self.agents))
    }
}

/// Delivers until `stop`: for the agents that were nudged, and each period for all.
pub(crate) async fn run(hub: Arc<Inner>, stop: CancellationToken) {
    let mut poll = interval(hub.options.poll);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outage = Outage::new("delivering commands");
    loop {
        // No database future lives inside this select: dropping one half-way would poison its connection.
        let connections = tokio::select! {
            () = stop.cancelled() => return,
            _ = poll.tick() => {
                hub.wanted.take();
                hub.registry.all()
            }
            () = hub.wanted.some.notified() => {
                sleep(hub.options.coalesce).await;
                hub.registry.of(hub.wanted.take())
            }
        };
        for part in connections.chunks(LINKS) {
            deliver(&hub, part, &mut outage).await;
        }
    }
}

async fn deliver(hub: &Inner, connections: &[Arc<Connection>], outage: &mut Outage) {
    loop {
        let now = Instant::now();
        let links: Vec<Arc<Link>> = connections
            .iter()
            .filter(|connection| connection.takes_commands(now, &hub.options))
            .map(|connection| Arc::clone(&connection.link))
            .collect();
        if links.is_empty() {
            return;
        }
        let claimed = hub.links.claim(&links, hub.options.claim_limit).await;
        outage.note(&claimed);
        // What could not be claimed is looked for again by the next poll.
        let Ok(claimed) = claimed else { return };
        let count = claimed.len();
        queue(hub, claimed);
        if count < hub.options.claim_limit {
            return;
        }
    }
}

/// Queues what was claimed, one batch an agent, in the order of the claim.
fn queue(hub: &Inner, claimed: Vec<Outbound>) {
    if claimed.is_empty() {
        return;
    }
    histogram!("tidegate_hub_claim_commands").record(precise(claimed.len()));
    let now = hub.clock.now();
    let mut batches: HashMap<(AgentId, i64), Vec<Frame>> = HashMap::new();
    for Outbound { agent_id, epoch, command } in claimed {
        batches.entry((agent_id, epoch)).or_default().push(encode(&ToAgent::Command(command), now));
    }
    for ((agent, epoch), frames) in batches {
        // A connection that is gone or was replaced: its successor claims them under its own epoch.
        let Some(connection) = hub.registry.get(agent).filter(|seated| seated.link.epoch() == epoch) else {
            continue;
        };
        let count = frames.len() as u64;
        if connection.outbox.push(frames).is_ok() {
            counter!("tidegate_hub_commands_sent_total").increment(count);
        }
    }
}

/// A count as a metric's number.
#[expect(clippy::cast_precision_loss, reason = "counts in this process stay far below 2^52")]
pub(crate) const fn precise(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_nudges_of_one_agent_are_one_wish() {
        let (wanted, agent) = (Wanted::default(), AgentId::new());
        for _ in 0..100 {
            wanted.add(agent);
        }
        wanted.some.notified().await;
        assert_eq!(wanted.take(), HashSet::from([agent]));
        assert!(wanted.take().is_empty());
    }
}
