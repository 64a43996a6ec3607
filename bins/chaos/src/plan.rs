//! What a session is meant to go through, drawn from the seed.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;

/// The life of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Plan {
    /// Started, seen running, stopped.
    Stop,
    /// Started and stopped soon, whatever it is doing.
    Hurry,
    /// Started, hibernated, woken, stopped.
    Nap,
    /// Ends by itself with an exit code.
    Exit,
    /// Left running until the end.
    Stay,
}

/// The exit code of programs that end by themselves.
pub(crate) const EXIT_CODE: i32 = 7;

impl Plan {
    /// The plan of session `index`, and how long it dawdles between steps, in milliseconds.
    pub(crate) fn of(seed: u64, index: usize) -> (Self, u64) {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(index as u64));
        let plan = match random.random_range(0..100) {
            0..45 => Self::Stop,
            45..65 => Self::Hurry,
            65..80 => Self::Nap,
            80..92 => Self::Exit,
            _ => Self::Stay,
        };
        (plan, random.random_range(0..400))
    }

    /// What its program does after it has signed the ledger.
    pub(crate) fn program(self) -> String {
        match self {
            Self::Exit => format!("exit {EXIT_CODE}"),
            Self::Stop | Self::Hurry | Self::Nap | Self::Stay => "exec sleep 1000000".to_owned(),
        }
    }
}

/// What runs a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The process platform.
    Process,
    /// A container; its home outlives it or not, and asleep it is paused or gone.
    Container { keeps_home: bool, pauses: bool },
}

impl Kind {
    /// What runs session `index`, where there are containers.
    pub(crate) fn of(seed: u64, index: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_033).wrapping_add(index as u64));
        match random.random_range(0..8) {
            // More of these: each has more that can be lost.
            0..5 => Self::Container { keeps_home: random.random_bool(0.5), pauses: random.random_bool(0.5) },
            _ => Self::Process,
        }
    }

    pub(crate) const fn is_container(self) -> bool {
        matches!(self, Self::Container { .. })
    }
}
