//! A session that forks without end: what was forked since the last look goes on, so whoever only kills what it sees
//! never comes to an end.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidegate_agent::{Keep, Platform, StreamRequest};

use crate::support::{Folder, read_until, script, soon};

/// Bounded twice, for the machine's sake: by the session's cgroup, and here to a few hundred of its user's processes.
const BOMB: &str = "ulimit -p 300 2>/dev/null || ulimit -u 300; f() { f & f & }; trap '' HUP TERM; f; echo up; exec sleep 86413.5";

/// The folders of a session's cgroups.
fn cgroups(session: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut open: Vec<(PathBuf, u8)> = mounts
        .lines()
        .filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")))
        .map(|line| (PathBuf::from(line.split(' ').nth(1).unwrap()), 0))
        .collect();
    let mut found = Vec::new();
    while let Some((folder, depth)) = open.pop() {
        let folders = fs::read_dir(&folder).into_iter().flatten().flatten();
        for folder in folders.map(|entry| entry.path()).filter(|path| path.is_dir()) {
            if folder.file_name().is_some_and(|name| name == session) {
                found.push(folder);
            } else if depth < 6 {
                open.push((folder, depth + 1));
            }
        }
    }
    found
}

/// Ends with the test, however that ends.
struct Bomb(Vec<PathBuf>);

fn members(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

impl Drop for Bomb {
    fn drop(&mut self) {
        for cgroup in &self.0 {
            let _ = fs::write(cgroup.join("pids.max"), "0");
        }
        for _ in 0..1_000 {
            let left: Vec<i32> = self.0.iter().flat_map(|cgroup| members(cgroup)).collect();
            if left.is_empty() {
                return;
            }
            for pid in left.into_iter().filter(|pid| *pid > 1) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// Watches a session's limit of processes to the end of its cgroup: whether it was ever 0.
fn was_forbidden(limit: &Path) -> bool {
    while let Ok(text) = fs::read_to_string(limit) {
        if text.trim() == "0" {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[tokio::test]
async fn a_session_that_forks_without_end_is_stopped() {
    let folder = Folder::new();
    let platform = folder.platform();
    if platform.metadata().get("limits").is_some_and(|limits| limits == "rlimits") {
        eprintln!("NOT TESTED: without cgroups nothing can be kept from forking");
        return;
    }
    let spec = script(&format!("s-forks-{}", std::process::id()), 1, BOMB);
    platform.start(&spec, tidegate_agent::Progress::silent()).await.unwrap();
    let bomb = Bomb(cgroups(&spec.key.to_string()));
    let logs = StreamRequest::Logs { after: 0, follow: true };
    let mut logs = platform.open(&spec.key, logs).await.unwrap();
    read_until(&mut logs, "up\r\n").await;
    let limit = bomb.0.iter().map(|cgroup| cgroup.join("pids.max")).find(|file| file.exists()).unwrap();
    let watch = std::thread::spawn(move || was_forbidden(&limit));
    let exit = soon("the stop", platform.stop(&spec.key, Keep::Nothing)).await.unwrap().unwrap();
    assert_eq!(exit.signal.as_deref(), Some("SIGKILL"));
    // On a quiet machine killing alone may win the race, so that it came to an end proves little.
    assert!(watch.join().unwrap(), "nothing kept it from forking while it was killed");
    assert!(bomb.0.iter().all(|cgroup| members(cgroup).is_empty()));
}
