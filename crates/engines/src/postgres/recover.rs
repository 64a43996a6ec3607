//! Clears away what an earlier run left: its processes, its pid file, its socket. After this the cluster is nobody's.
//! Never touches a process that does not work inside this very cluster folder.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::layout::{Layout, PORT};
use crate::error::Context;
use crate::{Error, Result};

/// How often the end of a process is looked for.
const POLL: Duration = Duration::from_millis(20);
/// How long processes get after a signal that leaves them no choice.
const GRACE: Duration = Duration::from_secs(5);

/// Ends every process of the cluster and removes the files that would make a new server believe in them.
///
/// A server that still runs (its owner was killed) gets `fast_timeout` for a fast shutdown; backends without a server
/// have nothing left to save and are ended at once. The caller holds the owner's lock.
pub(super) async fn clear(layout: &Layout, fast_timeout: Duration) -> Result<()> {
    if !Path::new("/proc/self/cwd").exists() {
        // no /proc: PostgreSQL's own interlocks (pid file, shared memory) refuse a second server by themselves
        return Ok(());
    }
    let cluster = &layout.cluster;
    let running = members(cluster)?;
    if let Some(postmaster) = recorded_postmaster(cluster).filter(|pid| running.contains(pid)) {
        tracing::warn!(pid = postmaster, "stopping the PostgreSQL of an owner that is gone");
        signal(&BTreeSet::from([postmaster]), Signal::SIGINT);
        gone_within(cluster, fast_timeout).await?;
    }
    for last_resort in [Signal::SIGQUIT, Signal::SIGKILL] {
        let running = members(cluster)?;
        if running.is_empty() {
            return remove_stale_files(layout);
        }
        tracing::warn!(pids = ?running, signal = %last_resort, "ending leftover PostgreSQL processes");
        signal(&running, last_resort);
        gone_within(cluster, GRACE).await?;
    }
    let pids = members(cluster)?;
    if pids.is_empty() {
        return remove_stale_files(layout);
    }
    Err(Error::Orphans { pids: pids.into_iter().collect(), cluster: cluster.clone() })
}

/// The pid in the first line of the cluster's pid file.
pub(super) fn recorded_postmaster(cluster: &Path) -> Option<i32> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    // a stand-alone backend writes its pid negated
    text.lines().next()?.trim().parse::<i32>().ok().map(i32::abs)
}

async fn gone_within(cluster: &Path, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !members(cluster)?.is_empty() && Instant::now() < deadline {
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
fn members(cluster: &Path) -> Result<BTreeSet<i32>> {
    let home = match fs::metadata(cluster) {
        Ok(metadata) => (metadata.dev(), metadata.ino()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).context("look at", cluster),
    };
    let proc = Path::new("/proc");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(proc).context("list", proc)?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // processes of other users and those that end meanwhile are not readable, and not ours
        let Ok(place) = fs::metadata(entry.path().join("cwd")) else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if (place.dev(), place.ino()) == home
            && (name.starts_with("postgres") || name.starts_with("postmaster"))
        {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// With no process left, these files can only mislead: their pids may belong to strangers by now (after a reboot or in
/// a container they usually do), and PostgreSQL would refuse to start.
fn remove_stale_files(layout: &Layout) -> Result<()> {
    remove(&layout.cluster.join("postmaster.pid"))?;
    let lock = layout.sockets.join(format!(".s.PGSQL.{PORT}.lock"));
    let owner = fs::read_to_string(&lock).unwrap_or_default();
    // the second line names the cluster; another cluster's socket is left alone
    if owner.lines().nth(1).is_some_and(|line| Path::new(line) == layout.cluster) {
        remove(&layout.sockets.join(format!(".s.PGSQL.{PORT}")))?;
        remove(&lock)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}
