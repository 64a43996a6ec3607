//! Everything that was measured in one run, and what it comes to beside the goals.

use serde::Serialize;

use crate::{
    credentials::{Keys, Logins, Users},
    dispatch::Dispatch,
    heartbeats::Heartbeats,
    lifecycles::Lives,
    memory::Memory,
    stats::mean,
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
    /// pgbench select-only transactions a second.
    pub(crate) select_only: Option<f64>,
    pub(crate) keys: Option<Keys>,
    pub(crate) logins: Option<Logins>,
    pub(crate) users: Option<Users>,
    /// MiB a second of a tunnel fed from memory.
    pub(crate) tunnel: Option<f64>,
}

/// A measured figure.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// A goal, and whether it is met.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) bound: f64,
    /// Whether the goal is the least or the most.
    pub(crate) at_least: bool,
    pub(crate) met: bool,
}

impl Goal {
    fn least(what: &'static str, value: f64, goal: f64) -> Self {
        Self { what, value, unit: "×", bound: goal, at_least: true, met: value >= goal }
    }

    fn most(what: &'static str, value: f64, unit: &'static str, goal: f64) -> Self {
        Self { what, value, unit, bound: goal, at_least: false, met: value <= goal }
    }
}

impl Figures {
    /// Every figure, in the order of the run.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut line = |what: String, value: f64, unit| lines.push(Line { what, value, unit });
        for (number, tps) in self.pgbench.iter().enumerate() {
            line(format!("pgbench simple-update, 16 clients, run {}", number + 1), *tps, "tx/s");
        }
        for lives in self.spread.iter().chain(&self.single) {
            let over = format!("{} organization(s)", lives.organizations);
            line(format!("sessions started, {over}"), lives.started_per_second, "/s");
            line(format!("command lifecycles, {over}"), lives.per_second, "/s");
            line(format!("create, request to answer, p50, {over}"), lives.answer_p50, "ms");
            line(format!("create, request to answer, p99, {over}"), lives.answer_p99, "ms");
        }
        if let Some(lives) = &self.grouped {
            line("sessions started, one group with a quota".into(), lives.started_per_second, "/s");
            line("create in one group, request to answer, p99".into(), lives.answer_p99, "ms");
        }
        if let Some(dispatch) = &self.dispatch {
            line("load of the dispatch measurement".into(), dispatch.per_second, "/s");
            line("dispatch, answer to frame, p50".into(), dispatch.p50, "ms");
            line("dispatch, answer to frame, p99".into(), dispatch.p99, "ms");
            line("request to frame, p50".into(), dispatch.from_request_p50, "ms");
            line("request to frame, p99".into(), dispatch.from_request_p99, "ms");
        }
        if let Some(terminal) = &self.terminal {
            line("PTY read by a plain program".into(), terminal.plain, "MiB/s");
            line("terminal, program to viewer".into(), terminal.viewed, "MiB/s");
            line("of what was printed, seen".into(), terminal.seen * 100.0, "%");
            line("keystroke there and back, p50".into(), terminal.keys_alone[0], "ms");
            line("keystroke there and back, p99".into(), terminal.keys_alone[1], "ms");
            line("keystroke beside a burst, p50".into(), terminal.keys_beside[0], "ms");
            line("keystroke beside a burst, p99".into(), terminal.keys_beside[1], "ms");
            line("the burst meanwhile".into(), terminal.burst, "MiB/s");
        }
        for copy in &self.tcp_copy {
            line("plain TCP copy over loopback".into(), *copy, "MiB/s");
        }
        if let Some(tunnel) = self.tunnel {
            line("tunnel fed from memory".into(), tunnel, "MiB/s");
        }
        if let Some(memory) = &self.memory {
            line(format!("memory of an idle agent, of {}", memory.agents), memory.each, "KiB");
        }
        if let Some(beats) = &self.heartbeats {
            line(format!("heartbeats of {} agents", beats.agents), beats.per_second, "/s");
            line("rows written for them".into(), beats.rows_per_second, "/s");
        }
        if let Some(tps) = self.select_only {
            line("pgbench select-only, 16 clients".into(), tps, "tx/s");
        }
        if let Some(keys) = &self.keys {
            line("requests with API keys".into(), keys.per_second, "/s");
            line("request with an API key, p50".into(), keys.p50, "ms");
            line("request with an API key, p99".into(), keys.p99, "ms");
            line(format!("{} wrong keys: most memory meanwhile", keys.wrong), keys.peak(), "MiB");
            line(format!("{} wrong keys: memory left", keys.wrong), keys.growth(), "MiB");
        }
        if let Some(logins) = &self.logins {
            line("logins".into(), logins.per_second, "/s");
            line("another request without logins, p99".into(), logins.p99_alone, "ms");
            line("another request beside logins, p99".into(), logins.p99_beside, "ms");
        }
        if let Some(users) = &self.users {
            line(format!("first page of {} users, p50", users.count), users.p50, "ms");
            line(format!("first page of {} users, p99", users.count), users.p99, "ms");
        }
        lines
    }

    /// Every goal that can be judged.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let (pgbench, copy) = (mean(&self.pgbench), mean(&self.tcp_copy));
        let mut goals = Vec::new();
        if let Some(lives) = &self.spread {
            goals.push(Goal::least(
                "lifecycles per pgbench transaction, many organizations",
                lives.per_second / pgbench,
                0.2,
            ));
        }
        if let Some(dispatch) = &self.dispatch {
            goals.push(Goal::most("dispatch p99 at half load", dispatch.p99, "ms", 10.0));
        }
        if let Some(beats) = &self.heartbeats {
            goals.push(Goal::least("heartbeats per pgbench transaction", beats.per_second / pgbench, 3.0));
        }
        if let Some(memory) = &self.memory {
            goals.push(Goal::most("memory of an idle agent", memory.each, "KiB", 32.0));
        }
        if let Some(terminal) = &self.terminal {
            goals.push(Goal::least("terminal, of the plain PTY", terminal.viewed / terminal.plain, 0.5));
            goals.push(Goal::most("keystroke p99 beside a burst", terminal.keys_beside[1], "ms", 10.0));
        }
        if let Some(tunnel) = self.tunnel {
            goals.push(Goal::least("tunnel fed from memory, of the TCP copy", tunnel / copy, 0.15));
        }
        if let Some(keys) = &self.keys {
            goals.push(Goal {
                unit: "/s",
                ..Goal::least("requests with API keys", keys.per_second, 10_000.0)
            });
            if let Some(tps) = self.select_only {
                let ratio = keys.per_second / tps;
                goals.push(Goal::least("requests with API keys per pgbench select", ratio, 0.25));
            }
            goals.push(Goal::most("memory left by wrong keys", keys.growth(), "MiB", 16.0));
        }
        if let Some(logins) = &self.logins {
            let ratio = logins.p99_beside / logins.p99_alone.max(f64::EPSILON);
            goals.push(Goal::most("p99 of others beside logins", ratio, "×", 2.0));
        }
        goals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_at_its_bound_and_not_past_it() {
        assert!(Goal::least("a", 0.2, 0.2).met && !Goal::least("a", 0.19, 0.2).met);
        assert!(Goal::most("b", 10.0, "ms", 10.0).met && !Goal::most("b", 10.1, "ms", 10.0).met);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert!(Figures::default().goals().is_empty() && Figures::default().lines().is_empty());
    }
}
