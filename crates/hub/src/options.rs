//! Every period and bound of the hub, with the defaults of the contract.

use std::time::Duration;

/// Settings of the hub. Tests set short periods here; nothing else in the hub knows a number of this kind.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seconds between an agent's heartbeats, told in `welcome`. Default 10 s.
    pub heartbeat: Duration,
    /// Heartbeats an agent may miss before its connection is closed. Default 3.
    pub missed_heartbeats: u32,
    /// Time between pings of one connection. Default 25 s.
    pub ping: Duration,
    /// How often silence, pings and endings of tunnels are looked at. Default 1 s.
    pub tick: Duration,
    /// How often commands are looked for without a nudge. Default 1 s.
    pub poll: Duration,
    /// How long nudges are collected before one claim serves them all. Default 1 ms.
    pub coalesce: Duration,
    /// How long commands are held back for an agent that has not said anything yet. Default 500 ms.
    pub hello_grace: Duration,
    /// Commands taken by one claim. Default 256.
    pub claim_limit: usize,
    /// How often deadlines, offline agents and stuck sessions are swept up. Default 1 s.
    pub sweep: Duration,
    /// How often connections are compared with their agents' rows. Default 400 ms: revocation bites within 1 s.
    pub stale: Duration,
    /// Bytes that may wait for one agent; an agent with more is closed and connects again. Default 1 MiB.
    pub outbox_bytes: usize,
    /// Writers of reports. One agent's reports always go through the same one. Default 2.
    pub ingest_shards: usize,
    /// Reports in one transaction. Default 2000.
    pub ingest_batch: usize,
    /// How long a transaction waits for more reports. Default 2 ms.
    pub ingest_linger: Duration,
    /// Bytes of reports that may wait for one writer; beyond it reading from agents pauses. Default 8 MiB.
    pub ingest_bytes: usize,
    /// How long an agent has to dial a tunnel. Default 10 s.
    pub tunnel_dial: Duration,
    /// Bytes on their way in one direction of one tunnel. Default 512 KiB.
    pub tunnel_bytes: usize,
    /// How long an agent has to end the tunnels of an ended session by itself. Default 5 s.
    pub tunnel_grace: Duration,
    /// Tunnels of one session, those still being dialled included. Default 64.
    pub tunnels_per_session: usize,
    /// How long a shutdown waits for connections, and again for reports to be written. Default 10 s.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            missed_heartbeats: 3,
            ping: Duration::from_secs(25),
            tick: Duration::from_secs(1),
            poll: Duration::from_secs(1),
            coalesce: Duration::from_millis(1),
            hello_grace: Duration::from_millis(500),
            claim_limit: 256,
            sweep: Duration::from_secs(1),
            stale: Duration::from_millis(400),
            outbox_bytes: 1024 * 1024,
            ingest_shards: 2,
            ingest_batch: 2_000,
            ingest_linger: Duration::from_millis(2),
            ingest_bytes: 8 * 1024 * 1024,
            tunnel_dial: Duration::from_secs(10),
            tunnel_bytes: 512 * 1024,
            tunnel_grace: Duration::from_secs(5),
            tunnels_per_session: 64,
            drain: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// How long a connection may be silent.
    pub(crate) fn silence(&self) -> Duration {
        self.heartbeat * self.missed_heartbeats.max(1)
    }
}
