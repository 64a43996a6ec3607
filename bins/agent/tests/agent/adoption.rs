//! Sessions outlive the agent: the next one finds them, or says what became of them.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidegate_model::{CommandAction, SessionState, StreamMode};
use tidegate_protocol::{FromAgent, TunnelTarget};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    control_plane::ControlPlane,
    support::{Agent, Folder, PROGRAM, shims, until, with_argument},
};

/// The program itself, as an operator starts it.
pub(crate) fn spawn(folder: &Folder, server: &str, more: &[&str]) -> Child {
    let private = folder.path().join("private");
    std::fs::create_dir_all(&private).unwrap();
    std::fs::write(private.join("agent.key"), "ab".repeat(32)).unwrap();
    Command::new(PROGRAM)
        .args(["--server", server, "--agent-id", "agent-1", "--data-dir"])
        .arg(folder.path())
        .args(more)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn end(mut agent: Child, signal: Signal) {
    // It may have gone already.
    let _ = kill(Pid::from_raw(agent.id().cast_signed()), signal);
    agent.wait().unwrap();
}

#[tokio::test]
async fn a_session_survives_kill_9_of_the_agent_and_is_adopted_by_the_next() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = spawn(&folder, &plane.url(), &[]);
    let mut link = plane.link().await;
    link.start("s-1", "while read line; do echo \"<$line>\"; done").await;
    end(agent, Signal::SIGKILL);
    let agent = spawn(&folder, &plane.url(), &[]);
    let mut link = plane.link().await;
    let hello = link.wait_for("hello", |message| matches!(message, FromAgent::Hello(_))).await;
    let FromAgent::Hello(hello) = hello else { unreachable!() };
    assert_eq!((hello.sessions.len(), hello.sessions[0].state), (1, SessionState::Running));
    link.status("s-1", SessionState::Running).await;
    link.open_tunnel("s-1", TunnelTarget::Terminal, StreamMode::Control).await;
    let mut tunnel = plane.tunnel().await;
    tunnel.send(Message::binary(&b"still here\n"[..])).await;
    tunnel.read_until("<still here>").await;
    link.command(
        "cmd-2",
        CommandAction::StopSession,
        serde_json::json!({"sessionId": "s-1", "generation": 1}),
    )
    .await;
    link.completed("cmd-2").await;
    end(agent, Signal::SIGTERM);
}

#[tokio::test]
async fn an_end_while_no_agent_ran_is_reported_by_the_next() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.start("s-1", "while [ ! -e ~/go ]; do sleep 0.01; done; exit 6").await;
    link.start("s-2", "sleep 86470.5").await;
    drop(link);
    agent.stop().await;
    std::fs::write(folder.path().join("homes/ephemeral/s-1/go"), "").unwrap();
    until("the end", || shims(folder.path()).len() == 1).await;
    kill(Pid::from_raw(shims(folder.path())[0]), Signal::SIGKILL).unwrap();
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    let ended = link.status("s-1", SessionState::Terminated).await;
    assert_eq!(ended.platform_metadata.unwrap()["exitCode"], 6);
    let lost = link.status("s-2", SessionState::Failed).await;
    assert!(lost.reason.unwrap().contains("was killed"));
    assert!(with_argument("86470.5").is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn told_to_go_the_agent_leaves_its_sessions_running() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = spawn(&folder, &plane.url(), &[]);
    let mut link = plane.link().await;
    link.start("s-1", "sleep 86471.5").await;
    kill(Pid::from_raw(agent.id().cast_signed()), Signal::SIGTERM).unwrap();
    let serve = tokio::spawn(async move { link.wait_for("nothing more", |_| false).await });
    let _last = tokio::time::timeout(Duration::from_secs(5), serve).await;
    end(agent, Signal::SIGTERM);
    assert_eq!(shims(folder.path()).len(), 1);
}

#[tokio::test]
async fn told_to_go_and_to_stop_its_sessions_the_agent_does_both() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = spawn(&folder, &plane.url(), &["--stop-sessions-on-exit"]);
    let mut link = plane.link().await;
    link.start("s-1", "sleep 86472.5").await;
    kill(Pid::from_raw(agent.id().cast_signed()), Signal::SIGTERM).unwrap();
    drop(link);
    let mut last = plane.link().await;
    last.status("s-1", SessionState::Terminated).await;
    let serve = tokio::spawn(async move { last.wait_for("nothing more", |_| false).await });
    end(agent, Signal::SIGTERM);
    assert!(serve.await.is_err() && with_argument("86472.5").is_empty());
}

#[tokio::test]
async fn a_second_agent_on_a_folder_says_who_has_it_and_goes() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let first = Agent::start(&folder, &plane.url());
    let _link = plane.link().await;
    let refused = Agent::start(&folder, &plane.url()).refused().await;
    assert!(
        refused.contains(&format!("in use by another agent, process {}:", std::process::id())),
        "{refused}"
    );
    first.stop().await;
}

#[tokio::test]
async fn a_shim_that_is_stopped_keeps_no_agent_away_and_its_session_can_be_ended() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = spawn(&folder, &plane.url(), &[]);
    let mut link = plane.link().await;
    link.start("s-1", "sleep 86473.5").await;
    end(agent, Signal::SIGKILL);
    kill(Pid::from_raw(shims(folder.path())[0]), Signal::SIGSTOP).unwrap();
    let agent = spawn(&folder, &plane.url(), &[]);
    let mut link = plane.link().await;
    let hello = link.wait_for("hello", |message| matches!(message, FromAgent::Hello(_))).await;
    let FromAgent::Hello(hello) = hello else { unreachable!() };
    assert_eq!((hello.sessions.len(), hello.sessions[0].state), (1, SessionState::Running));
    // Another session waits for nothing.
    link.start("s-2", "sleep 86474.5").await;
    let stop = serde_json::json!({"sessionId": "s-1", "generation": 1});
    link.command("cmd-stop", CommandAction::StopSession, stop).await;
    until_gone("86473.5").await;
    link.completed("cmd-stop").await;
    assert_eq!(with_argument("86474.5").len(), 1);
    end(agent, Signal::SIGTERM);
}

/// Longer than anything else here: it is waited for that a shim says nothing, twice.
async fn until_gone(argument: &str) {
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let gone = async {
        while !with_argument(argument).is_empty() {
            look.tick().await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(90), gone).await;
    assert!(ended.is_ok(), "the session is ended from outside");
}
