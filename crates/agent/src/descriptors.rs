//! How many files a process may have open: the agent and its shims as many as the machine lets them, a session's programs
//! as many as they expect.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Error;

/// More than this is of no use, and some programs walk through every number up to the limit.
const MOST: u64 = 1 << 20;
/// What a session gets: some programs fail with less, and those that use `select` with much more.
const OF_SESSIONS: std::ops::RangeInclusive<u64> = 1_024..=4_096;

/// The limit that this process was started with.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// Raises the limit of this process to what the machine allows. Called once, before anything is opened.
pub fn raise_descriptors() -> Result<(), Error> {
    let what = "raise the limit of open files";
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::system(what))?;
    let _ = BEFORE.set(soft);
    let wanted = hard.min(MOST);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_err(Error::system(what))?;
    }
    Ok(())
}

/// What `session-exec` sets for a session: the limit that was there before it was raised, within what programs expect.
/// They may raise it themselves.
pub(crate) fn of_sessions() -> u64 {
    let now = || getrlimit(Resource::RLIMIT_NOFILE).map_or(*OF_SESSIONS.start(), |(soft, _)| soft);
    let before = BEFORE.get().copied().unwrap_or_else(now);
    before.clamp(*OF_SESSIONS.start(), *OF_SESSIONS.end())
}
