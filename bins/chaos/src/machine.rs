//! The machine's processes, read from `/proc`: whose they are, and ending those that are certainly ours.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A process of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) pid: i32,
    pub(crate) session: String,
    pub(crate) generation: i64,
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Parent and state letter; `None` when the process is gone.
fn stat(pid: i32) -> Option<(i32, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses too.
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// Whether it is there and not merely waiting to be buried.
pub(crate) fn lives(pid: i32) -> bool {
    stat(pid).is_some_and(|(_, state)| !matches!(state, 'Z' | 'X'))
}

fn environment(pid: i32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variables = bytes.split(|byte| *byte == 0).filter_map(|variable| {
        let (name, value) = std::str::from_utf8(variable).ok()?.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    variables.collect()
}

/// The living processes of sessions whose home is below `folder`.
pub(crate) fn marked(folder: &Path) -> Vec<Marked> {
    let read = |pid: i32| {
        let variables = environment(pid);
        let session = variables.get("TIDEGATE_SESSION_ID")?.clone();
        let generation = variables.get("TIDEGATE_SESSION_GENERATION")?.parse().ok()?;
        // Other agents of this machine have sessions too.
        let ours = variables.get("HOME").is_some_and(|home| Path::new(home).starts_with(folder));
        (ours && lives(pid)).then_some(Marked { pid, session, generation })
    };
    pids().into_iter().filter_map(read).collect()
}

/// The living shims below `folder`, with the session each holds.
pub(crate) fn shims(folder: &Path) -> Vec<(i32, String)> {
    let read = |pid: i32| {
        // A shim's standard error is the log in its session's folder.
        let log = fs::read_link(format!("/proc/{pid}/fd/2")).ok()?;
        let shim = command_line(pid).iter().any(|part| part == "session-shim");
        let session = log.parent()?.file_name()?.to_str()?.to_owned();
        (shim && log.starts_with(folder) && lives(pid)).then_some((pid, session))
    };
    pids().into_iter().filter_map(read).collect()
}

fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

/// The living processes whose command line names a path below `folder`.
pub(crate) fn naming(folder: &Path) -> Vec<i32> {
    let names = |part: &String| {
        let path = part.split_once("://").map_or(part.as_str(), |(_, path)| path);
        Path::new(path).starts_with(folder)
    };
    pids().into_iter().filter(|pid| lives(*pid) && command_line(*pid).iter().any(names)).collect()
}

/// The living processes in containers, with the session of each: not of this run's sessions alone.
pub(crate) fn in_containers() -> Vec<(i32, String)> {
    let read = |pid: i32| {
        let variables = environment(pid);
        let contained = variables.get("HOME").is_some_and(|home| home == "/home/tidegate");
        let session = variables.get("TIDEGATE_SESSION_ID")?.clone();
        (contained && lives(pid)).then_some((pid, session))
    };
    pids().into_iter().filter_map(read).collect()
}

/// The living processes that carry a container's terminal by way of this engine.
pub(crate) fn bridges(engine: &Path) -> Vec<i32> {
    let engine = engine.to_string_lossy();
    let is_one = |pid: &i32| {
        let line = command_line(*pid);
        line.iter().any(|part| part == "session-container") && line.iter().any(|part| part.contains(&*engine))
    };
    pids().into_iter().filter(|pid| lives(*pid) && is_one(pid)).collect()
}

/// The process of the PostgreSQL whose cluster this is, if it certainly is.
pub(crate) fn postmaster(cluster: &Path) -> Option<i32> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    // The file outlives a killed server, and its pid may be a stranger's by now.
    command_line(pid).iter().any(|part| Path::new(part) == cluster).then_some(pid)
}

/// The nats-server whose folder this is, if it certainly is.
pub(crate) fn nats_server(folder: &Path) -> Option<i32> {
    let text = fs::read_to_string(folder.join("nats-server.pid")).ok()?;
    let (pid, config) = (text.trim().parse().ok()?, folder.join("nats.conf"));
    command_line(pid).iter().any(|part| Path::new(part) == config).then_some(pid)
}

/// Every living child of a process.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let child = |pid: &i32| stat(*pid).is_some_and(|(of, state)| of == parent && !matches!(state, 'Z' | 'X'));
    pids().into_iter().filter(child).collect()
}

/// Sends a signal; a process that is gone is gone.
pub(crate) fn send(pid: i32, signal: Signal) {
    // 0 and below name groups, 1 is init: a parse that went wrong must never reach them.
    if pid > 1 {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Kills what is left of sessions and shims below `folder`.
pub(crate) fn sweep(folder: &Path) {
    for (pid, _) in shims(folder) {
        send(pid, Signal::SIGKILL);
    }
    for process in marked(folder) {
        send(process.pid, Signal::SIGKILL);
    }
}

/// How many processes each session has.
pub(crate) fn by_session(marked: &[Marked]) -> HashMap<&str, Vec<&Marked>> {
    let mut sessions: HashMap<&str, Vec<&Marked>> = HashMap::new();
    for process in marked {
        sessions.entry(&process.session).or_default().push(process);
    }
    sessions
}
