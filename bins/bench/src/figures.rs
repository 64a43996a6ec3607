//! Everything that was measured in one run.

use serde::Serialize;

use crate::{
    catalog::Catalog,
    credentials::{Keys, Logins, Users},
    dispatch::Dispatch,
    heartbeats::Heartbeats,
    lifecycles::Lives,
    memory::{Course, Memory},
    parallel::Parallel,
    pipes::{Paths, Pipes},
    placement::Placed,
    stats::real,
    streams::{Latency, Streams},
    sync::{Sync, Took},
    terminal::Terminal,
};

/// What was measured; what was not asked for is absent.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    /// Finished commands that were there before.
    pub(crate) aged: u32,
    /// Simulated agents that took sessions.
    pub(crate) agents: u32,
    /// HTTP connections.
    pub(crate) connections: u32,
    /// pgbench simple-update transactions a second, each time it was run.
    pub(crate) pgbench: Vec<f64>,
    /// MiB a second of a plain TCP copy, each time it was run.
    pub(crate) tcp_copy: Vec<f64>,
    /// Many organizations.
    pub(crate) spread: Option<Lives>,
    /// One organization.
    pub(crate) single: Option<Lives>,
    /// One organization, all in one group with a quota.
    pub(crate) grouped: Option<Lives>,
    pub(crate) dispatch: Option<Dispatch>,
    pub(crate) heartbeats: Option<Heartbeats>,
    pub(crate) memory: Option<Memory>,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) streams: Option<Streams>,
    pub(crate) parallel: Option<Parallel>,
    /// pgbench select-only transactions a second.
    pub(crate) select_only: Option<f64>,
    pub(crate) keys: Option<Keys>,
    pub(crate) logins: Option<Logins>,
    pub(crate) users: Option<Users>,
    pub(crate) catalog: Option<Catalog>,
    pub(crate) sync: Option<Sync>,
    pub(crate) pipes: Option<Pipes>,
    /// MiB a second of a tunnel fed from memory.
    pub(crate) tunnel: Option<f64>,
    /// Creates with a few agents, then with many.
    pub(crate) placement: Option<[Placed; 2]>,
    /// The foundation's figures again, with ten times the rows and many agents connected.
    pub(crate) grown: Option<Box<Figures>>,
}

/// A measured figure.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    #[serde(skip)]
    pub(crate) better: Better,
}

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
    /// It says what the machine or the load was.
    Neither,
}

/// Figures, line by line.
#[derive(Debug, Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, better: Better) {
        self.0.push(Line { what: what.into(), value, unit, better });
    }

    fn more(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.add(what, value, unit, Better::More);
    }

    fn less(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.add(what, value, unit, Better::Less);
    }

    fn plain(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.add(what, value, unit, Better::Neither);
    }
}

impl Figures {
    /// Every figure, in the order of the run.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut lines = Lines::default();
        self.sessions(&mut lines);
        self.bytes(&mut lines);
        self.agents(&mut lines);
        self.people(&mut lines);
        lines.0
    }

    fn sessions(&self, lines: &mut Lines) {
        for (number, tps) in (1..).zip(&self.pgbench) {
            lines.plain(format!("pgbench simple-update, 16 clients, run {number}"), *tps, "tx/s");
        }
        for lives in self.spread.iter().chain(&self.single) {
            let over = format!("{} organization(s)", lives.organizations);
            lines.more(format!("sessions started, {over}"), lives.started_per_second, "/s");
            lines.more(format!("command lifecycles, {over}"), lives.per_second, "/s");
            lines.less(format!("create, request to answer, p50, {over}"), lives.answer_p50, "ms");
            lines.less(format!("create, request to answer, p99, {over}"), lives.answer_p99, "ms");
        }
        if let Some(lives) = &self.grouped {
            lines.more("sessions started, one group with a quota", lives.started_per_second, "/s");
            lines.less("create in one group, request to answer, p99", lives.answer_p99, "ms");
        }
        if let Some(dispatch) = &self.dispatch {
            lines.plain("load of the dispatch measurement", dispatch.per_second, "/s");
            lines.less("dispatch, answer to frame, p50", dispatch.p50, "ms");
            lines.less("dispatch, answer to frame, p99", dispatch.p99, "ms");
            lines.less("request to frame, p50", dispatch.from_request_p50, "ms");
            lines.less("request to frame, p99", dispatch.from_request_p99, "ms");
        }
        for Placed { agents, lives } in self.placement.iter().flatten() {
            lines.more(format!("sessions started, {agents} agents"), lives.started_per_second, "/s");
            lines.less(format!("create, p50, {agents} agents"), lives.answer_p50, "ms");
            lines.less(format!("create, p99, {agents} agents"), lives.answer_p99, "ms");
        }
    }

    fn bytes(&self, lines: &mut Lines) {
        if let Some(terminal) = &self.terminal {
            lines.plain("PTY read by a plain program", terminal.plain, "MiB/s");
            lines.more("terminal, program to viewer", terminal.viewed, "MiB/s");
            lines.plain("of what was printed, seen", terminal.seen * 100.0, "%");
            lines.less("keystroke there and back, p50", terminal.keys_alone[0], "ms");
            lines.less("keystroke there and back, p99", terminal.keys_alone[1], "ms");
            lines.less("keystroke beside a burst, p50", terminal.keys_beside[0], "ms");
            lines.less("keystroke beside a burst, p99", terminal.keys_beside[1], "ms");
            lines.plain("the burst meanwhile", terminal.burst, "MiB/s");
        }
        for copy in &self.tcp_copy {
            lines.plain("plain TCP copy over loopback", *copy, "MiB/s");
        }
        if let Some(tunnel) = self.tunnel {
            lines.more("tunnel fed from memory", tunnel, "MiB/s");
        }
        if let Some(streams) = &self.streams {
            streams.lines(lines);
        }
        if let Some(parallel) = &self.parallel {
            parallel.lines(lines);
        }
    }

    fn agents(&self, lines: &mut Lines) {
        if let Some(memory) = &self.memory {
            lines.less(format!("memory of an idle agent, of {}", memory.agents), memory.each, "KiB");
        }
        if let Some(beats) = &self.heartbeats {
            lines.more(format!("heartbeats of {} agents", beats.agents), beats.per_second, "/s");
            lines.plain("rows written for them", beats.rows_per_second, "/s");
        }
    }

    fn people(&self, lines: &mut Lines) {
        if let Some(tps) = self.select_only {
            lines.plain("pgbench select-only, 16 clients", tps, "tx/s");
        }
        if let Some(keys) = &self.keys {
            lines.more("requests with API keys", keys.per_second, "/s");
            lines.less("request with an API key, p50", keys.p50, "ms");
            lines.less("request with an API key, p99", keys.p99, "ms");
            lines.less(format!("{} wrong keys: most memory meanwhile", keys.wrong), keys.peak(), "MiB");
            lines.less(format!("{} wrong keys: memory left", keys.wrong), keys.growth(), "MiB");
        }
        if let Some(logins) = &self.logins {
            lines.more("logins", logins.per_second, "/s");
            lines.less("another request without logins, p99", logins.p99_alone, "ms");
            lines.less("another request beside logins, p99", logins.p99_beside, "ms");
        }
        if let Some(users) = &self.users {
            lines.less(format!("first page of {} users, p50", users.count), users.p50, "ms");
            lines.less(format!("first page of {} users, p99", users.count), users.p99, "ms");
        }
        if let Some(catalog) = &self.catalog {
            catalog.lines(lines);
        }
        if let Some(sync) = &self.sync {
            sync.lines(lines);
        }
        if let Some(pipes) = &self.pipes {
            pipes.lines(lines);
        }
    }
}

impl Pipes {
    fn lines(&self, lines: &mut Lines) {
        self.always.lines("on disk", lines);
        self.relaxed.lines("default sync", lines);
        lines.more("credentials for NATS", self.exchange.per_second, "/s");
        lines.less("credential for NATS, p50", self.exchange.p50, "ms");
        lines.less("credential for NATS, p99", self.exchange.p99, "ms");
        lines.less("revoked until disconnected, p50", self.cut_off[0], "ms");
        lines.less("revoked until disconnected, most", self.cut_off[1], "ms");
        lines.less("key over pipes there and back, p50", self.typed.keys[0], "ms");
        lines.less("key over pipes there and back, p99", self.typed.keys[1], "ms");
        lines.more("output over pipes", self.typed.output, "MiB/s");
        let (made, kept) = (&self.made, &self.kept);
        lines.less(format!("{} pipes made with their streams", made.pipes), made.seconds, "s");
        lines.less(format!("{} streams made by a bare client of NATS", made.pipes), made.bare, "s");
        lines.less(format!("{} pipes listed", made.pipes), made.listed, "ms");
        for (when, p99) in ["alone", "while they were made", "while they were listed"].iter().zip(made.others)
        {
            lines.less(format!("a message of another organization, p99, {when}"), p99, "ms");
        }
        for (state, [nats, server]) in [("unused", kept.unused), ("used once", kept.used)] {
            let what = format!("memory of an idle source, of {}, {state}", kept.sources);
            lines.less(format!("{what}, nats-server"), nats, "KiB");
            lines.less(format!("{what}, control plane"), server, "KiB");
        }
    }
}

impl Paths {
    fn lines(&self, sync: &str, lines: &mut Lines) {
        let [before, after] = self.raw;
        lines.plain(format!("bare client of NATS, {sync}, before"), before.per_second, "/s");
        lines.plain(format!("bare client of NATS, {sync}, after"), after.per_second, "/s");
        lines.plain(format!("bare client of NATS, {sync}, p99, before"), before.p99, "ms");
        for (way, sends) in [("NATS", self.nats), ("HTTP", self.http)] {
            lines.more(format!("messages through {way}, {sync}"), sends.per_second, "/s");
            lines.less(format!("message through {way}, {sync}, p50"), sends.p50, "ms");
            lines.less(format!("message through {way}, {sync}, p99"), sends.p99, "ms");
        }
    }
}

impl Sync {
    fn lines(&self, lines: &mut Lines) {
        let of = self.manifests;
        for (what, took) in [
            ("first", self.first),
            ("without a change", self.unchanged),
            ("with one of a hundred changed", self.changed),
        ] {
            let Took { millis, statements, rows, .. } = took;
            lines.less(format!("sync of {of} manifests, {what}"), millis, "ms");
            lines.less(format!("its statements, {what}"), real(statements as u64), "");
            lines.plain(format!("its rows of entries, {what}"), rows, "");
        }
    }
}

impl Catalog {
    fn lines(&self, lines: &mut Lines) {
        lines.plain("request with a credential and little else, p50", self.reference[0], "ms");
        lines.plain("request with a credential and little else, p99", self.reference[1], "ms");
        for (what, [p50, p99]) in &self.searches {
            let of = format!("search of {} entries, {what}", self.entries);
            lines.less(format!("{of}, p50"), *p50, "ms");
            lines.less(format!("{of}, p99"), *p99, "ms");
        }
        lines.more("searches", self.per_second, "/s");
        lines.more("views of one plugin by 64, counted exactly", self.views, "/s");
        lines.more("ratings of one plugin by 64, counted exactly", self.ratings, "/s");
    }
}

impl Streams {
    fn lines(&self, lines: &mut Lines) {
        for rate in &self.haproxy {
            lines.plain("http through haproxy, plain TCP", *rate, "MiB/s");
        }
        lines.more("http through a session's stream", self.http, "MiB/s");
        for rate in &self.websockify {
            lines.plain("vnc through websockify", *rate, "MiB/s");
        }
        lines.more("vnc through a session's stream", self.vnc, "MiB/s");
        self.request.lines("small http request", lines);
        self.pixel.lines("pixel of a desktop", lines);
        lines.more(format!("{} MiB in one answer", self.bulk >> 20), self.bulk_rate, "MiB/s");
        let Course { before, peak, after } = self.bulk_memory;
        for (when, at) in [("before", before), ("at its peak", peak), ("after", after)] {
            lines.plain(format!("memory of the control plane {when}"), real(at.server) / 1024.0, "MiB");
            lines.plain(format!("memory of the agent {when}"), real(at.agent) / 1024.0, "MiB");
        }
    }
}

impl Latency {
    fn lines(&self, what: &str, lines: &mut Lines) {
        lines.plain(format!("{what}, direct, p50"), self.direct[0], "ms");
        lines.plain(format!("{what}, direct, p99"), self.direct[1], "ms");
        lines.less(format!("{what}, through the stream, p50"), self.through[0], "ms");
        lines.less(format!("{what}, through the stream, p99"), self.through[1], "ms");
    }
}

impl Parallel {
    fn lines(&self, lines: &mut Lines) {
        let others = format!("pixel of {} of {} streams", self.streams - 1, self.streams);
        lines.less(format!("{others}, p50"), self.alone[0], "ms");
        lines.less(format!("{others}, p99"), self.alone[1], "ms");
        lines.less(format!("{others}, one stalled, p50"), self.beside[0], "ms");
        lines.less(format!("{others}, one stalled, p99"), self.beside[1], "ms");
        lines.less(format!("an open stream, of {}, control plane", self.open), self.server_each, "KiB");
        lines.less(format!("an open stream, of {}, agent", self.open), self.agent_each, "KiB");
        lines.less("closed streams are gone after", self.gone_after, "s");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_has_no_line() {
        assert!(Figures::default().lines().is_empty());
    }
}
