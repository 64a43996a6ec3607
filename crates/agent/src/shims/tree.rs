//! Finding and ending processes: descendants, marked strangers, members of a cgroup.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;

/// The variable that marks every process of a session.
pub(crate) const MARK: &str = "TIDEGATE_SESSION_ID";
/// The variable that says whose it is: agents of one machine must never clean up after each other.
pub(crate) const MARK_AGENT: &str = "TIDEGATE_AGENT";
/// The variable that says which start of it.
pub(crate) const MARK_GENERATION: &str = "TIDEGATE_SESSION_GENERATION";

/// How often processes that were stopped are looked at until they stand still.
const STANDS_STILL: u32 = 100;

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Parent and state of a process; `None` when it is gone.
fn parent_of(pid: i32) -> Option<(i32, u8)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses too.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let mut fields = stat.get(after..)?.split(|byte| *byte == b' ');
    let state = *fields.next()?.first()?;
    let parent = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    Some((parent, state))
}

/// Every living descendant of a process.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<(i32, u8)>> = HashMap::new();
    for pid in pids() {
        if let Some((parent, state)) = parent_of(pid) {
            children.entry(parent).or_default().push((pid, state));
        }
    }
    let (mut found, mut open) = (Vec::new(), vec![root]);
    while let Some(pid) = open.pop() {
        for (child, state) in children.remove(&pid).unwrap_or_default() {
            open.push(child);
            if !matches!(state, b'Z' | b'X') {
                found.push(child);
            }
        }
    }
    found
}

/// Every living process that carries the marks of this start of this session of this agent.
pub(crate) fn marked(agent: &str, session_id: &str, generation: i64) -> Vec<i32> {
    let marks = [
        format!("{MARK_AGENT}={agent}"),
        format!("{MARK}={session_id}"),
        format!("{MARK_GENERATION}={generation}"),
    ];
    pids()
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let variables: HashSet<&[u8]> = environment.split(|byte| *byte == 0).collect();
            marks.iter().all(|mark| variables.contains(mark.as_bytes()))
        })
        .filter(|pid| parent_of(*pid).is_some_and(|(_, state)| !matches!(state, b'Z' | b'X')))
        .collect()
}

/// Every process whose standard error is this file.
pub(crate) fn with_errors_to(file: &Path) -> Vec<i32> {
    pids()
        .filter(|pid| fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|target| target == file))
        .collect()
}

/// Every process in a cgroup that a container of this id has, however deep.
pub(crate) fn in_cgroup_of(id: &str) -> Vec<i32> {
    let is_in = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroups| cgroups.contains(id))
    };
    // An id of no length would be everybody's.
    if id.len() < 12 { Vec::new() } else { pids().filter(is_in).collect() }
}

/// What keeps the container of this id for the engine (`containerd-shim… -id ID`).
pub(crate) fn keepers_of(id: &str) -> Vec<i32> {
    let keeps = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let name = words.first().and_then(|program| program.rsplit(|byte| *byte == b'/').next());
        name.is_some_and(|name| name.starts_with(b"containerd-shim"))
            && words.windows(2).any(|pair| pair == [b"-id", id.as_bytes()])
    };
    if id.len() < 12 { Vec::new() } else { pids().filter(keeps).collect() }
}

/// Stops processes of a container and looks whether they are the runtime's own, which it makes before the container's
/// program and which become it. They stay stopped: what was looked at is what will be killed.
pub(crate) async fn are_unborn(pids: &[i32]) -> bool {
    signal_all(pids, Signal::SIGSTOP);
    for _ in 0..STANDS_STILL {
        if pids.iter().all(|pid| matches!(parent_of(*pid), Some((_, b'T')) | None)) {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    pids.iter().all(|pid| matches!(parent_of(*pid), Some((_, b'T'))) && is_the_runtimes(*pid))
}

/// Whether a process is a container's first before it has become what the container runs. The program itself may have any
/// name, but is never the first: that is the engine's init.
fn is_the_runtimes(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    let name = words.next().and_then(|program| program.rsplit(|byte| *byte == b'/').next());
    name == Some(b"runc") && words.next() == Some(b"init")
}

/// The processes of a cgroup.
pub(crate) fn members(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for processes that cannot be seen from here, and so not be ended.
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// Sends a signal to each; those that are gone are gone.
pub(crate) fn signal_all(pids: &[i32], signal: Signal) {
    for pid in pids {
        // 0 and below name groups, 1 is init: a parse that went wrong must never reach them.
        if *pid > 1 {
            let _ = kill(Pid::from_raw(*pid), signal);
        }
    }
}

/// Removes a cgroup that may just have become empty.
pub(crate) fn remove_cgroup(path: &PathBuf) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Kills whatever is in these cgroups and below them at once, where the kernel can (v2, since 5.14).
pub(crate) fn kill_cgroups<'a>(cgroups: impl IntoIterator<Item = &'a Path>) {
    for cgroup in cgroups {
        let file = cgroup.join("cgroup.kill");
        if file.exists() {
            let _ = fs::write(file, "1");
        }
    }
}

/// A sentence about processes that do not end although they were killed.
pub(crate) fn remaining(pids: &[i32]) -> String {
    let named: Vec<String> = pids.iter().take(5).map(ToString::to_string).collect();
    format!(
        "{} of the session's processes do not end although they were killed ({}): they wait for the machine's disk or \
         network",
        pids.len(),
        named.join(", ")
    )
}

/// Lets the processes of these cgroups start no more, so that whoever kills them comes to an end: what forks faster
/// than `/proc` is read would be ahead of every look. Without cgroups there is no such means, and this does nothing.
pub(crate) fn forbid_forks<'a>(cgroups: impl IntoIterator<Item = &'a Path>) {
    for cgroup in cgroups {
        // Not every controller's tree has the file; the one that has it is enough.
        let _ = fs::write(cgroup.join("pids.max"), "0");
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    #[tokio::test]
    async fn what_has_become_a_program_is_not_unborn() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("init"), "sleep 600 & wait").unwrap();
        let shell = |name: &str| {
            Command::new("/bin/sh").arg0(name).arg("init").current_dir(folder.path()).spawn().unwrap()
        };
        let (mut runtime, mut program) = (shell("runc"), shell("sh"));
        let (one, other) = (runtime.id().cast_signed(), program.id().cast_signed());
        let found = (are_unborn(&[one]).await, are_unborn(&[other]).await, are_unborn(&[one, other]).await);
        for (child, pid) in [(&mut runtime, one), (&mut program, other)] {
            signal_all(&descendants(pid), Signal::SIGKILL);
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(found, (true, false, false));
        assert!(!are_unborn(&[one]).await, "one that is gone tells nothing");
    }
}
