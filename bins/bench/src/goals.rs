//! What was measured beside the goals.

use std::collections::HashMap;

use serde::Serialize;

use crate::{
    figures::{Better, Figures},
    parallel::Parallel,
    pipes::Pipes,
    stats::{mean, real},
    streams::Streams,
    sync::{Sync, Took},
};

/// How much worse a figure may be on a grown platform.
const WORSE: f64 = 1.3;
/// Milliseconds within which a message of somebody else is stored while thousands of pipes are made.
const HELD_UP: f64 = 100.0;
/// MiB that what ought to be flat may grow by.
const FLAT: f64 = 16.0;

/// A goal, and whether it is met.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) bound: f64,
    /// Whether the goal is the least or the most.
    pub(crate) at_least: bool,
    pub(crate) met: bool,
}

impl Goal {
    fn least(what: impl Into<String>, value: f64, goal: f64) -> Self {
        Self { what: what.into(), value, unit: "×", bound: goal, at_least: true, met: value >= goal }
    }

    fn most(what: impl Into<String>, value: f64, unit: &'static str, goal: f64) -> Self {
        Self { what: what.into(), value, unit, bound: goal, at_least: false, met: value <= goal }
    }
}

impl Figures {
    /// Every goal that can be judged.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        self.foundation_goals(&mut goals);
        if let Some(streams) = &self.streams {
            streams.goals(&mut goals);
        }
        if let Some(parallel) = &self.parallel {
            parallel.goals(&mut goals);
        }
        if let Some([few, many]) = &self.placement {
            let what = format!("create's p99 with {} agents, of that with {}", many.agents, few.agents);
            let ratio = many.lives.answer_p99 / few.lives.answer_p99.max(f64::EPSILON);
            goals.push(Goal::most(what, ratio, "×", WORSE));
        }
        self.people_goals(&mut goals);
        if let Some(grown) = &self.grown {
            goals.extend(self.worse(grown));
        }
        goals
    }

    fn foundation_goals(&self, goals: &mut Vec<Goal>) {
        let (pgbench, copy) = (mean(&self.pgbench), mean(&self.tcp_copy));
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
    }

    fn people_goals(&self, goals: &mut Vec<Goal>) {
        if let Some(keys) = &self.keys {
            goals.push(Goal {
                unit: "/s",
                ..Goal::least("requests with API keys", keys.per_second, 10_000.0)
            });
            if let Some(tps) = self.select_only {
                let ratio = keys.per_second / tps;
                goals.push(Goal::least("requests with API keys per pgbench select", ratio, 0.25));
            }
            goals.push(Goal::most("memory left by wrong keys", keys.growth(), "MiB", FLAT));
        }
        if let Some(logins) = &self.logins {
            let ratio = logins.p99_beside / logins.p99_alone.max(f64::EPSILON);
            goals.push(Goal::most("p99 of others beside logins", ratio, "×", 2.0));
        }
        if let Some(catalog) = &self.catalog {
            let what = format!("slowest kind of search of {} entries, p99", catalog.entries);
            goals.push(Goal::most(what, catalog.worst(), "ms", 250.0));
        }
        if let Some(sync) = &self.sync {
            sync.goals(goals);
        }
        if let Some(pipes) = &self.pipes {
            pipes.goals(goals);
        }
    }

    /// How much worse each figure is on a grown platform.
    fn worse(&self, grown: &Self) -> Vec<Goal> {
        let again: HashMap<String, f64> =
            grown.lines().into_iter().map(|line| (line.what, line.value)).collect();
        let worse = self.lines().into_iter().filter_map(|line| {
            let (was, is) = (line.value.max(f64::EPSILON), again.get(&line.what)?.max(f64::EPSILON));
            let ratio = match line.better {
                Better::More => was / is,
                Better::Less => is / was,
                Better::Neither => return None,
            };
            Some(Goal::most(format!("grown, worse by: {}", line.what), ratio, "×", WORSE))
        });
        worse.collect()
    }
}

impl Streams {
    fn goals(&self, goals: &mut Vec<Goal>) {
        goals.push(Goal::least("http stream, of haproxy", self.http / mean(&self.haproxy), 0.3));
        goals.push(Goal::least("vnc stream, of websockify", self.vnc / mean(&self.websockify), 2.0));
        goals.push(Goal::most("added to a small http request, p99", self.request.added(), "ms", 1.0));
        goals.push(Goal::most("added to a pixel of a desktop, p99", self.pixel.added(), "ms", 1.0));
        let grown = self.bulk_memory.peak.beyond(self.bulk_memory.before);
        let what = format!("{} MiB through http: growth of the", self.bulk >> 20);
        goals.push(Goal::most(format!("{what} control plane"), real(grown.server) / 1024.0, "MiB", FLAT));
        goals.push(Goal::most(format!("{what} agent"), real(grown.agent) / 1024.0, "MiB", FLAT));
    }
}

impl Sync {
    fn goals(&self, goals: &mut Vec<Goal>) {
        let of = self.manifests;
        let statements = |took: &Took| real(took.statements as u64);
        let what = format!("statements of a sync of {of} manifests without a change");
        goals.push(Goal::most(what, statements(&self.unchanged), "", 10.0));
        // Changes come in batches: more of them are more rows, and no more statements.
        let more = statements(&self.changed) - statements(&self.unchanged);
        goals.push(Goal::most("statements more with one of a hundred changed", more, "", 10.0));
        goals.push(Goal::most("rows written for each that changed", self.rows_each(), "", 3.0));
        // A hundredth, and what is the same for any number of them.
        goals.push(Goal::most("time for one of a hundred, of that for all", self.share(), "×", 0.1));
    }
}

impl Pipes {
    fn goals(&self, goals: &mut Vec<Goal>) {
        let raw = self.always.reference();
        let (nats, http) = (self.always.nats.per_second / raw, self.always.http.per_second / raw);
        goals.push(Goal::least("messages through NATS, of a bare client's", nats, 0.9));
        goals.push(Goal::least("messages through HTTP, of a bare client's", http, 0.3));
        goals.push(Goal::most("revoked until disconnected, most", self.cut_off[1], "ms", 100.0));
        let (made, kept) = (&self.made, &self.kept);
        let pipes = made.pipes;
        goals.push(Goal::most(format!("{pipes} pipes made with their streams"), made.seconds, "s", 5.0));
        goals.push(Goal::most(format!("{pipes} pipes listed"), made.listed, "ms", 100.0));
        goals.push(Goal::most(
            "p99 of another organization's messages meanwhile",
            made.others[1],
            "ms",
            HELD_UP,
        ));
        let sum = |[nats, server]: [f64; 2]| nats + server;
        goals.push(Goal::most("memory of an idle source that was used", sum(kept.used), "KiB", 60.0));
        goals.push(Goal::most("memory of an idle source that was not", sum(kept.unused), "KiB", 0.5));
    }
}

impl Parallel {
    fn goals(&self, goals: &mut Vec<Goal>) {
        let ratio = self.beside[1] / self.alone[1].max(f64::EPSILON);
        let what = format!("p99 of {} streams beside a stalled one", self.streams - 1);
        goals.push(Goal::most(what, ratio, "×", WORSE));
        goals.push(Goal::most("closed streams are gone after", self.gone_after, "s", 10.0));
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
        assert!(Figures::default().goals().is_empty());
    }

    #[test]
    fn a_grown_platform_is_judged_by_what_got_worse_whichever_way_that_is() {
        let keys = |per_second, p99| crate::credentials::Keys {
            per_second,
            p50: 1.0,
            p99,
            memory_before: 0,
            memory_during: 0,
            memory_after: 0,
            wrong: 0,
        };
        let figures = |keys| Figures { keys: Some(keys), select_only: Some(1.0), ..Figures::default() };
        let (small, grown) = (figures(keys(1_000.0, 4.0)), figures(keys(500.0, 2.0)));
        let of = |what: &str| {
            let goals = small.worse(&grown);
            let goal = goals.iter().find(|goal| goal.what.ends_with(what)).unwrap();
            (goal.value, goal.met)
        };
        assert_eq!(of("requests with API keys"), (2.0, false));
        assert_eq!(of("an API key, p99"), (0.5, true));
        assert!(
            small.worse(&grown).iter().all(|goal| !goal.what.contains("pgbench")),
            "the machine is not judged"
        );
    }
}
