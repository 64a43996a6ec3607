//! What strikes at random: each kind comes once before any comes again, and the seed repeats the order and the pauses.

use std::time::Duration;

use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{machine, report::Report, stand::Stand};

/// How long what was killed stays down at most, in milliseconds.
const DOWN: u64 = 800;

/// What strikes.
pub(crate) struct Hand<F> {
    random: StdRng,
    kinds: Vec<Kind<F>>,
    /// Places in `kinds` that come before any comes again.
    bag: Vec<usize>,
    pause: u64,
}

/// A kind of fault, and how often it struck.
struct Kind<F> {
    fault: F,
    name: &'static str,
    struck: usize,
}

impl<F: Copy> Hand<F> {
    /// With pauses of so many milliseconds at most.
    pub(crate) fn new(seed: u64, kinds: impl IntoIterator<Item = (F, &'static str)>, pause: u64) -> Self {
        let kind = |(fault, name)| Kind { fault, name, struck: 0 };
        let kinds = kinds.into_iter().map(kind).collect();
        Self { random: StdRng::seed_from_u64(seed), kinds, bag: Vec::new(), pause: pause.max(1) }
    }

    /// The pause before the next fault, and whether the last one is recovered from before that: one in four comes meanwhile.
    pub(crate) fn pause(&mut self) -> (Duration, bool) {
        let pause = Duration::from_millis(self.random.random_range(0..self.pause));
        (pause, self.random.random_range(0..4) > 0)
    }

    /// The next fault, and how long what it kills stays down.
    pub(crate) fn draw(&mut self) -> (F, Duration) {
        if self.bag.is_empty() {
            self.bag = (0..self.kinds.len()).collect();
        }
        let place = self.bag.swap_remove(self.random.random_range(0..self.bag.len()));
        let down = Duration::from_millis(self.random.random_range(0..DOWN));
        let kind = &mut self.kinds[place];
        kind.struck += 1;
        (kind.fault, down)
    }

    /// One of the processes that PostgreSQL's first one has started.
    pub(crate) fn backend(&mut self, stand: &Stand) -> Option<i32> {
        let children = machine::children(stand.postmaster()?);
        let place = self.random.random_range(0..children.len().max(1));
        children.get(place).copied()
    }

    /// How often these struck.
    pub(crate) fn struck(&self, these: impl Fn(F) -> bool) -> usize {
        self.kinds.iter().filter(|kind| these(kind.fault)).map(|kind| kind.struck).sum()
    }

    /// Says how often each struck.
    pub(crate) fn count(&self, report: &mut Report) {
        for kind in &self.kinds {
            report.count(kind.name, kind.struck);
        }
    }
}

/// Kills a process, where there is one.
pub(crate) fn kill_found(pid: Option<i32>) {
    if let Some(pid) = pid {
        machine::send(pid, Signal::SIGKILL);
    }
}
