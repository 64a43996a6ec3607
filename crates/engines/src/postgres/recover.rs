//! Clears away what an earlier run left: its processes, and a pid file that points at a stranger.
//! Never touches a process that does not work inside this very cluster folder, and never removes the files by which
//! PostgreSQL itself tells that a cluster is in use.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::layout::{Layout, PORT};
use super::postmaster::Launch;
use super::programs;
use crate::error::Context;
use crate::{Error, Result};

/// How often the end of a process is looked for.
const POLL: Duration = Duration::from_millis(50);
/// How long processes get after a signal that leaves them no choice.
const GRACE: Duration = Duration::from_secs(5);
/// Lists the pids of this user's processes named postgres whose working folder is the cluster's. Others are not readable.
const LIST_MEMBERS: &str = r#"for process in /proc/[0-9]*; do
  [ "$process/cwd" -ef "$1" ] 2>/dev/null || continue
  name=
  read -r name <"$process/comm" 2>/dev/null
  case "$name" in postgres* | postmaster*) echo "${process#/proc/}" ;; esac
done 2>/dev/null
exit 0"#;

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
    let running = members(launch).await?;
    if let Some(postmaster) = recorded_postmaster(cluster).filter(|pid| running.contains(pid)) {
        tracing::warn!(pid = postmaster, "stopping the PostgreSQL of an owner that is gone");
        signal(&BTreeSet::from([postmaster]), Signal::SIGINT);
        gone_within(launch, launch.shutdown_timeout).await?;
    }
    for last_resort in [Signal::SIGQUIT, Signal::SIGKILL] {
        let running = members(launch).await?;
        if running.is_empty() {
            return disown_recorded_pids(&launch.layout);
        }
        tracing::warn!(pids = ?running, signal = %last_resort, "ending leftover PostgreSQL processes");
        signal(&running, last_resort);
        gone_within(launch, GRACE).await?;
    }
    let pids = members(launch).await?;
    if pids.is_empty() {
        return disown_recorded_pids(&launch.layout);
    }
    Err(Error::Orphans { pids: pids.into_iter().collect(), cluster: cluster.clone() })
}

/// The pid in the first line of the cluster's pid file.
fn recorded_postmaster(cluster: &Path) -> Option<i32> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    // a stand-alone backend writes its pid negated
    text.lines().next()?.trim().parse::<i32>().ok().map(i32::abs)
}

async fn gone_within(launch: &Launch, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !members(launch).await?.is_empty() && Instant::now() < deadline {
        sleep(POLL).await;
    }
    Ok(())
}

fn signal(pids: &BTreeSet<i32>, signal: Signal) {
    for pid in pids {
        // the only failure here is that it is gone, which is what is wanted
        kill(Pid::from_raw(*pid), signal).ok();
    }
}

/// The processes of this cluster: those named postgres that work inside its folder, told by device and inode, so that
/// neither a reused pid nor a folder of the same name elsewhere is mistaken for ours.
///
/// The database user looks, because in a container root may lack the right to see where another user's process works.
async fn members(launch: &Launch) -> Result<BTreeSet<i32>> {
    if !launch.layout.cluster.exists() {
        return Ok(BTreeSet::new());
    }
    let mut command = launch.identity.command(Path::new("/bin/sh"));
    command.args(["-c", LIST_MEMBERS, "tidegate-members"]).arg(&launch.layout.cluster);
    let pids = programs::run("sh", command, "").await?;
    Ok(pids.lines().filter_map(|pid| pid.parse().ok()).collect())
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
