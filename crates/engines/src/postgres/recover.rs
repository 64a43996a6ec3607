//! Clears away what an earlier run left: its processes, and a pid file that points at a stranger.
//! Never touches a process that does not work inside this very cluster folder, and never removes the files by which
//! PostgreSQL itself tells that a cluster is in use.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ENGINE;
use super::layout::{Layout, PORT};
use super::postmaster::Launch;
use crate::Result;
use crate::error::Context;
use crate::leftovers::Leftovers;

/// Ends every process of the cluster and corrects files that would make a new server mistake strangers for them.
///
/// A server that still runs (its owner was killed) gets its time for a fast shutdown; backends without a server
/// have nothing left to save and are ended at once. The caller holds the owner's lock.
pub(super) async fn clear(launch: &Launch) -> Result<()> {
    if !Path::new("/proc/self/cwd").exists() {
        // no /proc: PostgreSQL's own interlocks (pid file, shared memory) refuse a second server by themselves
        return Ok(());
    }
    let cluster = &launch.layout.cluster;
    let leftovers = Leftovers {
        engine: ENGINE.name,
        identity: &launch.identity,
        folder: cluster,
        names: ["postgres", "postmaster"],
        impolite: Signal::SIGQUIT,
    };
    leftovers.end(recorded_postmaster(cluster), launch.shutdown_timeout).await?;
    disown_recorded_pids(&launch.layout)
}

/// The pid in the first line of the cluster's pid file.
fn recorded_postmaster(cluster: &Path) -> Option<i32> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    // a stand-alone backend writes its pid negated
    text.lines().next()?.trim().parse::<i32>().ok().map(i32::abs)
}

/// With no process left, a recorded pid that lives is a stranger's (after a reboot, or in a container, it usually is),
/// and PostgreSQL would refuse to start. Our own pid in its place says the same as a dead one, since PostgreSQL does
/// not take its parent for a rival, and leaves its second check, of the shared memory, to do its work.
fn disown_recorded_pids(layout: &Layout) -> Result<()> {
    for name in [layout.cluster.join("postmaster.pid"), layout.sockets.join(format!(".s.PGSQL.{PORT}.lock"))]
    {
        disown(&name, &layout.cluster).context("correct", &name)?;
    }
    Ok(())
}

fn disown(path: &Path, cluster: &Path) -> std::io::Result<()> {
    // the database user could have put a link here, and we may be root
    let flags = OFlag::O_NOFOLLOW.bits();
    let mut file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let Some((pid, rest)) = text.split_once('\n') else { return Ok(()) };
    let lives =
        pid.trim().parse::<i32>().is_ok_and(|pid| kill(Pid::from_raw(pid.abs()), None) != Err(Errno::ESRCH));
    // the second line names the cluster; the socket of another one is left alone
    if lives && rest.lines().next().is_some_and(|line| Path::new(line) == cluster) {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(format!("{}\n{rest}", std::process::id()).as_bytes())?;
    }
    Ok(())
}
