//! A session's program is started once, whenever the agent dies.

use std::{fs, process::Child, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidegate_model::{CommandAction, SessionState};

use crate::{
    adoption::spawn,
    control_plane::{ControlPlane, start_payload},
    support::{Folder, until},
};

/// Adds the process that started the program, which is its shim, to a list in its home.
const SIGN: &str = "echo $PPID >> ~/started; exec sleep 86480.5";

/// The shims that an agent has just started.
fn shims_of(agent: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{agent}/task")).into_iter().flatten().flatten();
    let children = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children: Vec<i32> = children
        .flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    let is_shim = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| command.ends_with(b"session-shim\0"))
    };
    children.into_iter().filter(is_shim).collect()
}

/// The files a process has open.
fn open_files(pid: u32) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).collect()
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

#[tokio::test]
async fn a_shim_that_was_told_what_to_start_and_does_not_listen_yet_is_waited_for_by_the_next_agent() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Running(spawn(&folder, &plane.url(), &[]));
    let mut link = plane.link().await;
    let mut seen = Vec::new();
    let (session, shim) = loop {
        let round = seen.len();
        assert!(round < 50, "every shim was faster than this test");
        let session = format!("s-{round}");
        let payload = start_payload(&session, SIGN);
        link.command(&format!("cmd-start-{session}"), CommandAction::StartSession, payload).await;
        let shim = loop {
            if let Some(shim) = shims_of(agent.0.id()).into_iter().find(|pid| !seen.contains(pid)) {
                break shim;
            }
            tokio::task::yield_now().await;
        };
        signal(shim, Signal::SIGSTOP);
        if !folder.path().join(format!("run/{session}.1.sock")).exists() {
            break (session, shim);
        }
        signal(shim, Signal::SIGCONT);
        link.completed(&format!("cmd-start-{session}")).await;
        seen.push(shim);
    };
    // It has been told everything once the agent has closed its end.
    let told = fs::read_link(format!("/proc/{shim}/fd/0")).unwrap();
    until("the agent to have told it", || !open_files(agent.0.id()).contains(&told)).await;
    drop((agent, link));
    let _agent = Running(spawn(&folder, &plane.url(), &[]));
    // The next agent has time to start a second one.
    let early = tokio::time::timeout(Duration::from_millis(1_500), plane.link()).await;
    signal(shim, Signal::SIGCONT);
    let mut link = match early {
        Ok(link) => link,
        Err(_) => plane.link().await,
    };
    link.completed(&format!("cmd-start-{session}")).await;
    link.status(&session, SessionState::Running).await;
    let started = folder.path().join(format!("homes/ephemeral/{session}/started"));
    let read = || fs::read_to_string(&started).unwrap_or_default();
    until("the first shim to start the program", || read().lines().any(|pid| pid == shim.to_string())).await;
    assert_eq!(read(), format!("{shim}\n"), "the program was started by another shim too");
}
