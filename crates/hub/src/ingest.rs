//! What agents report, written in batches: one transaction a batch, one writer an agent, so that nothing overtakes.
//! When the database is away a batch is kept and tried again; the bounded queue then pauses reading from agents.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use bytes::Bytes;
use metrics::{counter, histogram};
use tidegate_model::AgentId;
use tidegate_service::{Error, Link, Links, Report, ReportKind};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Frame, Options,
    backoff::{Backoff, Outage},
    connection::Connection,
    dispatch::precise,
    parcel,
};

/// Attempts at a batch once the process stops: what is not written by then the agents report again.
const LAST_ATTEMPTS: u32 = 3;

/// What waits for a writer.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Something an agent said.
    Report(Report),
    /// Answer this ping once everything said before it is written: agents forget what a pong has confirmed.
    Pong(Arc<Connection>, Bytes),
    /// The connection ended; after everything it said.
    Close(Arc<Link>),
}

/// The way in: one bounded queue a writer.
#[derive(Debug)]
pub(crate) struct Intake {
    shards: Vec<parcel::Sender<Entry>>,
}

impl Intake {
    /// As many queues as there are writers.
    pub(crate) fn new(options: &Options) -> (Self, Vec<parcel::Receiver<Entry>>) {
        let (shards, queues) =
            (0..options.ingest_shards.max(1)).map(|_| parcel::channel(options.ingest_bytes)).unzip();
        (Self { shards }, queues)
    }

    fn shard(&self, agent: AgentId) -> &parcel::Sender<Entry> {
        &self.shards[shard_of(agent.as_uuid().as_u128(), self.shards.len())]
    }

    /// Waits for room. An error means that the writers have ended.
    pub(crate) async fn send(&self, agent: AgentId, entry: Entry, weight: usize) -> Result<(), parcel::Gone> {
        self.shard(agent).send(entry, weight + Frame::OVERHEAD).await
    }
}

/// The same agent always has the same writer. The low bits of a UUIDv7 are random.
fn shard_of(agent: u128, shards: usize) -> usize {
    usize::try_from(agent % shards as u128).unwrap_or(0)
}

/// One writer.
pub(crate) struct Writer {
    pub(crate) links: Links,
    pub(crate) queue: parcel::Receiver<Entry>,
    pub(crate) most: usize,
    pub(crate) linger: Duration,
    /// Ends the writer, after what is queued then.
    pub(crate) stop: CancellationToken,
}

impl Writer {
    /// Writes until `stop`, then what is left.
    pub(crate) async fn run(mut self) {
        let mut outage = Outage::new("writing what agents report");
        while let Some(batch) = self.collect().await {
            self.write(batch, &mut outage).await;
        }
    }

    async fn collect(&mut self) -> Option<Vec<parcel::Parcel<Entry>>> {
        let first = tokio::select! {
            biased;
            first = self.queue.recv() => first?,
            () = self.stop.cancelled() => return None,
        };
        let mut batch = vec![first];
        let until = Instant::now() + self.linger;
        while batch.len() < self.most {
            let next = match self.queue.try_recv() {
                Some(next) => next,
                None => match timeout_at(until, self.queue.recv()).await {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => break,
                },
            };
            batch.push(next);
        }
        Some(batch)
    }

    async fn write(&self, batch: Vec<parcel::Parcel<Entry>>, outage: &mut Outage) {
        let mut reports = Vec::with_capacity(batch.len());
        let (mut pongs, mut closed) = (Vec::new(), Vec::new());
        // Held until everything is written: this is what bounds the memory of an outage.
        let mut shares: Vec<OwnedSemaphorePermit> = Vec::with_capacity(batch.len());
        for parcel::Parcel { content, share } in batch {
            shares.push(share);
            match content {
                Entry::Report(report) => reports.push(report),
                Entry::Pong(connection, bytes) => pongs.push((connection, bytes)),
                Entry::Close(link) => closed.push(link),
            }
        }
        let reports = coalesce(reports);
        if !reports.is_empty() {
            self.ingest(reports, outage).await;
        }
        for (connection, bytes) in pongs {
            // A connection that takes nothing more is already being closed.
            let _ = connection.outbox.push([Frame::Pong(bytes)]);
        }
        for link in closed {
            let result = self.links.close(&link).await;
            if let Err(error) = result {
                // The sweep marks the agent offline when its heartbeats stay away.
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, agent = %link.handle(), "the end of a connection was not recorded");
            }
        }
    }

    /// Writes a batch. What the database refuses is halved until the one report at fault is found and left out: the
    /// others must not wait behind it for ever.
    async fn ingest(&self, reports: Vec<Report>, outage: &mut Outage) {
        histogram!("tidegate_hub_ingest_reports").record(precise(reports.len()));
        let started = Instant::now();
        let mut parts = vec![reports];
        while let Some(mut part) = parts.pop() {
            match self.attempt(&part, outage).await {
                Ok(()) => {}
                Err(error) if error.is_unavailable() => {
                    counter!("tidegate_hub_reports_lost_total").increment(part.len() as u64);
                }
                Err(error) if part.len() <= 1 => {
                    counter!("tidegate_hub_reports_refused_total").increment(1);
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "a report could not be written and is left out");
                }
                Err(_) => {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
            }
        }
        histogram!("tidegate_hub_ingest_seconds").record(started.elapsed().as_secs_f64());
    }

    /// Tries until the database answers; gives up only when the process stops meanwhile.
    async fn attempt(&self, reports: &[Report], outage: &mut Outage) -> Result<(), Error> {
        let (mut backoff, mut last) = (Backoff::default(), 0);
        loop {
            let written = self.links.ingest(reports.to_vec()).await;
            match written {
                Ok(ingested) => {
                    outage.note(&Ok(()));
                    counter!("tidegate_hub_reports_applied_total").increment(ingested.applied as u64);
                    counter!("tidegate_hub_reports_ignored_total").increment(ingested.ignored as u64);
                    return Ok(());
                }
                Err(error) if error.is_unavailable() && last < LAST_ATTEMPTS => {
                    last += u32::from(self.stop.is_cancelled());
                    outage.note::<()>(&Err(error));
                    sleep(backoff.wait()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// How a report may be replaced by a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Replaced by a later heartbeat.
    Heartbeat,
    /// Says less than any heartbeat.
    Alive,
    /// Never.
    Other,
}

const fn sign(kind: &ReportKind) -> Sign {
    match kind {
        ReportKind::Heartbeat(_) => Sign::Heartbeat,
        ReportKind::Alive => Sign::Alive,
        ReportKind::Ack(_)
        | ReportKind::Complete { .. }
        | ReportKind::Failed { .. }
        | ReportKind::Status(_)
        | ReportKind::UnknownSession { .. } => Sign::Other,
    }
}

/// Leaves one sign of life a connection: its newest heartbeat, or else its newest pong.
fn coalesce(reports: Vec<Report>) -> Vec<Report> {
    let keys: Vec<_> = reports
        .iter()
        .map(|report| ((report.link.agent_id(), report.link.epoch()), sign(&report.kind)))
        .collect();
    let mut keep = kept(&keys).into_iter();
    reports.into_iter().filter(|_| keep.next().unwrap_or(true)).collect()
}

/// Which reports stay, by connection and sign, in their order.
fn kept<K: Eq + Hash + Copy>(reports: &[(K, Sign)]) -> Vec<bool> {
    let mut newest: HashMap<K, (Sign, usize)> = HashMap::new();
    for (at, &(key, sign)) in reports.iter().enumerate() {
        match (sign, newest.get(&key)) {
            (Sign::Other, _) | (Sign::Alive, Some((Sign::Heartbeat, _))) => {}
            (Sign::Heartbeat | Sign::Alive, _) => {
                newest.insert(key, (sign, at));
            }
        }
    }
    let stays = |(at, (key, sign)): (usize, &(K, Sign))| {
        *sign == Sign::Other || newest.get(key).is_some_and(|(_, newest)| *newest == at)
    };
    reports.iter().enumerate().map(stays).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn of_many_heartbeats_the_newest_of_each_connection_stays() {
        use Sign::{Heartbeat, Other};
        let batch = [('a', Heartbeat), ('b', Heartbeat), ('a', Other), ('a', Heartbeat), ('a', Other)];
        assert_eq!(kept(&batch), [false, true, true, true, true]);
    }

    #[test]
    fn a_pong_stays_only_where_no_heartbeat_says_more() {
        use Sign::{Alive, Heartbeat};
        let batch = [('a', Alive), ('b', Alive), ('a', Heartbeat), ('b', Alive), ('a', Alive)];
        assert_eq!(kept(&batch), [false, false, true, true, false]);
    }

    #[test]
    fn an_agent_always_has_the_same_writer() {
        for agent in 0..100_u128 {
            assert_eq!(shard_of(agent, 3), shard_of(agent, 3));
            assert!(shard_of(u128::MAX - agent, 3) < 3);
        }
    }

    proptest! {
        #[test]
        fn no_batch_loses_anything_but_repeated_signs_of_life(
            batch in proptest::collection::vec((0..4_u8, 0..3_u8), 0..60)
        ) {
            let sign = |n| match n { 0 => Sign::Heartbeat, 1 => Sign::Alive, _ => Sign::Other };
            let batch: Vec<_> = batch.into_iter().map(|(key, n)| (key, sign(n))).collect();
            let keep = kept(&batch);
            for key in 0..4 {
                let mine = || batch.iter().zip(&keep).filter(move |((of, _), _)| *of == key);
                let signs = mine().filter(|((_, sign), keep)| **keep && *sign != Sign::Other).count();
                prop_assert_eq!(signs, usize::from(mine().any(|((_, sign), _)| *sign != Sign::Other)));
                prop_assert!(mine().all(|((_, sign), keep)| *keep || *sign != Sign::Other));
            }
        }
    }
}
