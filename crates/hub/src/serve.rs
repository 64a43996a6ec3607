//! The frame loop: one agent's connection from its first frame to its last. It runs on the caller's task, which may
//! vanish at any await: database work runs in tasks of the hub, and the seat is given back by its `Drop`.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use metrics::counter;
use tidegate_protocol::{
    FromAgent, HelloMessage, PROTOCOL_VERSION, ToAgent, TunnelFailedMessage, WelcomeMessage,
};
use tidegate_service::{AgentIdentity, Report};
use tokio::{
    task::consume_budget,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    CloseReason, Frame, Hub, TransportError,
    backoff::Backoff,
    connection::Connection,
    hub::Inner,
    ingest::Entry,
    outbox::Drained,
    reader::{self, Reader, Verdict},
    registry::Admission,
};

/// How long the closing handshake may take.
const GOODBYE: Duration = Duration::from_secs(2);

impl Hub {
    /// Serves an agent's connection until it ends, and says why it did. The last frame is sent here, and `outbound` is
    /// closed.
    ///
    /// An older connection of the same agent is closed. Reading pauses while reports wait for the database; commands
    /// that do not fit into the outgoing queue stay open in the database and go to the agent's next connection.
    pub async fn serve_agent<S, K>(&self, identity: AgentIdentity, inbound: S, outbound: K) -> CloseReason
    where
        S: Stream<Item = Result<Frame, TransportError>>,
        K: Sink<Frame>,
    {
        let (mut inbound, mut outbound) = (pin!(inbound), pin!(outbound));
        let seat = match Seat::take(&self.inner, identity).await {
            Ok(seat) => seat,
            Err(reason) => {
                goodbye(outbound, reason).await;
                return reason;
            }
        };
        tracing::info!(agent = %seat.connection.link.handle(), epoch = seat.connection.link.epoch(), "agent connected");
        let reason = tokio::select! {
            reason = seat.connection.outbox.closed() => reason,
            reason = seat.read(inbound.as_mut()) => reason,
            reason = seat.write(outbound.as_mut()) => reason,
        };
        counter!("tidegate_hub_connections_closed_total", "reason" => reason.as_str()).increment(1);
        tracing::info!(agent = %seat.connection.link.handle(), reason = reason.as_str(), "agent disconnected");
        // Given back first: a peer that does not read must not look connected while the last frame waits.
        drop(seat);
        goodbye(outbound, reason).await;
        reason
    }
}

/// A connection that counts. Dropping it, however that comes, frees the seat and records the end.
struct Seat {
    hub: Arc<Inner>,
    connection: Arc<Connection>,
    /// Last: a shutdown waits for it, and `Drop` must have run by then.
    _token: TaskTrackerToken,
}

impl Seat {
    async fn take(hub: &Arc<Inner>, identity: AgentIdentity) -> Result<Self, CloseReason> {
        // Before the look at `stopping`: either the shutdown sees this token, or this sees the shutdown.
        let token = hub.seats.token();
        if hub.stopping.is_cancelled() {
            return Err(CloseReason::Shutdown);
        }
        let links = hub.links.clone();
        let name = format!("{:016x}", rand::random::<u64>());
        let opening = hub.chores.spawn_on(async move { links.open(&identity, &name).await }, &hub.runtime);
        let opened = tokio::select! {
            opened = opening => opened.map_err(|_| CloseReason::Failed)?,
            () = hub.stopping.cancelled() => return Err(CloseReason::Shutdown),
        };
        let link = opened.map_err(|error| {
            let error_text: &dyn std::error::Error = &error;
            tracing::error!(error = error_text, "an agent's connection could not be recorded");
            if error.is_unavailable() { CloseReason::Unavailable } else { CloseReason::Failed }
        })?;
        let connection = Arc::new(Connection::new(link, &hub.options));
        let seat = Self { hub: Arc::clone(hub), connection, _token: token };
        seat.sit_down()?;
        Ok(seat)
    }

    fn sit_down(&self) -> Result<(), CloseReason> {
        let (agent, epoch) = (self.connection.agent(), self.connection.link.epoch());
        match self.hub.registry.admit(agent, epoch, Arc::clone(&self.connection)) {
            Admission::Seated { superseded: Some(older) } => older.close(CloseReason::Superseded),
            Admission::Seated { superseded: None } => {}
            Admission::Late => return Err(CloseReason::Superseded),
        }
        self.hub.count_connected();
        if self.hub.stopping.is_cancelled() { Err(CloseReason::Shutdown) } else { Ok(()) }
    }

    /// Reads until the connection ends.
    async fn read<S>(&self, mut inbound: Pin<&mut S>) -> CloseReason
    where
        S: Stream<Item = Result<Frame, TransportError>>,
    {
        let mut reader = Reader::default();
        let frames = counter!("tidegate_hub_frames_in_total");
        while let Some(frame) = inbound.next().await {
            // Frames that are skipped wait for nothing: without this an endless peer would keep the thread for itself.
            consume_budget().await;
            self.connection.liveness.heard(Instant::now());
            frames.increment(1);
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return CloseReason::from(&error),
            };
            let bytes = frame.len();
            let acted = match reader.judge(frame) {
                Verdict::Message(message) => self.act(message, bytes).await,
                Verdict::Ping(payload) => {
                    self.submit(Entry::Pong(Arc::clone(&self.connection), payload), bytes).await
                }
                Verdict::Undecodable => {
                    counter!("tidegate_hub_frames_undecodable_total").increment(1);
                    Ok(())
                }
                Verdict::Unknown => {
                    counter!("tidegate_hub_frames_unknown_total").increment(1);
                    Ok(())
                }
                Verdict::Nothing => Ok(()),
                Verdict::Close(reason) => Err(reason),
            };
            if let Err(reason) = acted {
                return reason;
            }
        }
        CloseReason::Lost
    }

    async fn act(&self, message: FromAgent, bytes: usize) -> Result<(), CloseReason> {
        if let FromAgent::Hello(hello) = message {
            return self.welcome(hello).await;
        }
        if self.connection.make_ready() {
            self.hub.wanted.add(self.connection.agent());
        }
        if let FromAgent::TunnelFailed(failed) = message {
            self.refuse_tunnel(&failed);
            return Ok(());
        }
        let Some(kind) = reader::report(message) else {
            counter!("tidegate_hub_reports_ignored_total").increment(1);
            return Ok(());
        };
        let report = Report { link: Arc::clone(&self.connection.link), kind };
        self.submit(Entry::Report(report), bytes).await
    }

    /// Waits for room in the writer's queue. Meanwhile nothing is read, and silence is not held against the agent.
    async fn submit(&self, entry: Entry, bytes: usize) -> Result<(), CloseReason> {
        self.connection.liveness.pause();
        let sent = self.hub.intake.send(self.connection.agent(), entry, bytes).await;
        self.connection.liveness.resume(Instant::now());
        sent.map_err(|_| CloseReason::Shutdown)
    }

    fn refuse_tunnel(&self, failed: &TunnelFailedMessage) {
        if let Ok(id) = failed.tunnel_id.parse() {
            self.hub.tunnels.refuse(self.connection.agent(), &id, &failed.error, Instant::now());
        }
    }

    /// Records the inventory, then answers. Frames that follow are read after it, so that they meet reconciled rows.
    async fn welcome(&self, hello: HelloMessage) -> Result<(), CloseReason> {
        if !speaks_our_version(&hello.protocol_versions) {
            return Err(CloseReason::NoCommonVersion);
        }
        self.connection.liveness.pause();
        let recording = record_hello(Arc::clone(&self.hub), Arc::clone(&self.connection), hello);
        let recorded = self.hub.chores.spawn_on(recording, &self.hub.runtime).await;
        self.connection.liveness.resume(Instant::now());
        recorded.map_err(|_| CloseReason::Failed)??;
        let seconds = self.hub.options.heartbeat.as_secs().max(1);
        let welcome = ToAgent::Welcome(WelcomeMessage {
            protocol_version: PROTOCOL_VERSION,
            epoch: self.connection.link.epoch(),
            heartbeat_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        });
        self.connection.say([&welcome], self.hub.clock.now()).map_err(|_| CloseReason::OutboundFull)?;
        self.connection.make_ready();
        self.hub.wanted.add(self.connection.agent());
        Ok(())
    }

    /// Writes what is queued until the socket is gone.
    async fn write<K: Sink<Frame>>(&self, mut outbound: Pin<&mut K>) -> CloseReason {
        let frames = counter!("tidegate_hub_frames_out_total");
        loop {
            self.connection.outbox.filled().await;
            while let Some((frame, drained)) = self.connection.outbox.pop() {
                if drained == Drained::Now {
                    self.hub.wanted.add(self.connection.agent());
                }
                if outbound.feed(frame).await.is_err() {
                    return CloseReason::Lost;
                }
                frames.increment(1);
            }
            if outbound.flush().await.is_err() {
                return CloseReason::Lost;
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Whoever still works for this connection learns that it is over.
        self.connection.close(CloseReason::Lost);
        let link = Arc::clone(&self.connection.link);
        self.hub.registry.leave(link.agent_id(), link.epoch());
        self.hub.count_connected();
        let hub = Arc::clone(&self.hub);
        let record = async move {
            // Writers that have ended already: the sweep misses the agent's heartbeats instead.
            let _ = hub.intake.send(link.agent_id(), Entry::Close(link), 0).await;
        };
        self.hub.chores.spawn_on(record, &self.hub.runtime);
    }
}

/// Whether there is a version both sides speak. An agent that names none speaks the first.
fn speaks_our_version(versions: &[u32]) -> bool {
    versions.is_empty() || versions.contains(&PROTOCOL_VERSION)
}

/// Records an agent's inventory; an outage of the database is waited out as long as the connection stands.
async fn record_hello(
    hub: Arc<Inner>,
    connection: Arc<Connection>,
    hello: HelloMessage,
) -> Result<(), CloseReason> {
    let mut backoff = Backoff::default();
    loop {
        let recorded = hub.links.hello(&connection.link, &hello).await;
        let Err(error) = recorded else { return Ok(()) };
        if !error.is_unavailable() {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, agent = %connection.link.handle(), "an agent's inventory could not be recorded");
            return Err(CloseReason::Failed);
        }
        tokio::select! {
            () = sleep(backoff.wait()) => {}
            reason = connection.outbox.closed() => return Err(reason),
        }
    }
}

/// Sends the last frame, where somebody is left to read it.
async fn goodbye<K: Sink<Frame>>(mut outbound: Pin<&mut K>, reason: CloseReason) {
    let say = async {
        if let Some(frame) = reason.frame()
            && outbound.send(frame).await.is_err()
        {
            return;
        }
        // A socket that is gone already needs no closing.
        let _ = outbound.close().await;
    };
    // A peer that does not read loses the last frame; the socket is dropped all the same.
    let _ = timeout(GOODBYE, say).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_names_no_version_speaks_the_first() {
        assert!(speaks_our_version(&[]));
        assert!(speaks_our_version(&[2, PROTOCOL_VERSION]));
        assert!(!speaks_our_version(&[2, 3]));
    }
}
