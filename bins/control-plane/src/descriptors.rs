//! How many files this process may have open: every agent, viewer and tunnel is one.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than this is of no use, and some programs walk through every number up to the limit.
const MOST: u64 = 1 << 20;

/// Raises the limit of this process to what the machine allows.
pub fn raise_descriptors() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(MOST);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}
