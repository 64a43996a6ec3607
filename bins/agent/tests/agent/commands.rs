//! Commands over the link: carried out once, in order, with reports that survive a lost connection.

use serde_json::json;
use tidegate_agent::Exited;
use tidegate_model::{AgentReportedStatus, CommandAction, SessionState, StreamMode};
use tidegate_protocol::{FromAgent, ShutdownMessage, TerminalFrame, TunnelTarget};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    control_plane::{ControlPlane, start_payload},
    support::{Agent, Folder, shims, until, with_argument},
};

fn of(session: &str) -> serde_json::Value {
    json!({"sessionId": session, "generation": 1})
}

#[tokio::test]
async fn a_session_starts_is_reported_and_stops() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.command("cmd-1", CommandAction::StartSession, start_payload("s-1", "sleep 86460.5")).await;
    link.wait_for("an ack", |message| matches!(message, FromAgent::Ack(ack) if ack.command_id == "cmd-1"))
        .await;
    assert_eq!(link.completed("cmd-1").await["sessionId"], "s-1");
    let running = link.status("s-1", SessionState::Running).await;
    assert_eq!((running.generation, running.streaming_ready), (Some(1), Some(true)));
    assert!(running.platform_metadata.unwrap()["limits"].is_string());
    link.command("cmd-2", CommandAction::StopSession, of("s-1")).await;
    link.completed("cmd-2").await;
    let ended = link.status("s-1", SessionState::Terminated).await;
    assert_eq!(ended.platform_metadata.unwrap()["exitCode"], 129);
    agent.stop().await;
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_running_first_and_terminated_then() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.start("s-1", "exit 3").await;
    link.status("s-1", SessionState::Running).await;
    let ended = link.status("s-1", SessionState::Terminated).await;
    assert_eq!(ended.platform_metadata.unwrap()["exitCode"], 3);
    agent.stop().await;
}

#[tokio::test]
async fn a_repeated_command_is_answered_and_not_carried_out_again() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    let payload = start_payload("s-1", "echo once >> /proc/self/fd/3; sleep 86461.5");
    for _ in 0..3 {
        link.command("cmd-1", CommandAction::StartSession, payload.clone()).await;
    }
    link.completed("cmd-1").await;
    link.command("cmd-1", CommandAction::StartSession, payload).await;
    link.completed("cmd-1").await;
    assert_eq!(shims(folder.path()).len(), 1);
    link.command("cmd-2", CommandAction::StopSession, of("s-1")).await;
    link.completed("cmd-2").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_restarted_agent_answers_repeats_from_its_journal() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.command(
        "cmd-1",
        CommandAction::StartSession,
        json!({"sessionId": "s-1", "user": "alice", "template": "firefox"}),
    )
    .await;
    let why = link.failed("cmd-1").await;
    assert!(why.contains("no template firefox"), "{why}");
    drop(link);
    agent.stop().await;
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.command("cmd-1", CommandAction::StartSession, start_payload("s-1", "sleep 86462.5")).await;
    assert_eq!(link.failed("cmd-1").await, why);
    assert!(shims(folder.path()).is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn a_command_begun_before_a_crash_is_carried_out_after_it() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let private = folder.path().join("private");
    std::fs::create_dir_all(&private).unwrap();
    let command = json!({"commandId": "cmd-1", "action": "start_session", "payload": start_payload("s-1", "sleep 86463.5")});
    let begun = json!({"begun": {"command": command, "at": "2026-01-01T00:00:00Z"}});
    std::fs::write(private.join("journal.jsonl"), format!("{begun}\n{{\"ended\":{{\"id\":\"cm")).unwrap();
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.completed("cmd-1").await;
    link.status("s-1", SessionState::Running).await;
    link.command("cmd-2", CommandAction::StopSession, of("s-1")).await;
    link.completed("cmd-2").await;
    agent.stop().await;
}

#[tokio::test]
async fn reports_made_without_a_connection_come_with_the_next_one() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.start("s-1", "while [ ! -e ~/go ]; do sleep 0.01; done; exit 5").await;
    link.status("s-1", SessionState::Running).await;
    drop(link);
    std::fs::write(folder.path().join("homes/ephemeral/s-1/go"), "").unwrap();
    until("the end", || shims(folder.path()).is_empty()).await;
    let mut link = plane.link().await;
    let ended = link.status("s-1", SessionState::Terminated).await;
    assert_eq!((ended.generation, &ended.platform_metadata.unwrap()["exitCode"]), (Some(1), &json!(5)));
    agent.stop().await;
}

#[tokio::test]
async fn hibernate_and_wake_raise_the_generation_and_old_starts_are_refused() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.start("s-1", "sleep 86464.5").await;
    link.command("cmd-2", CommandAction::HibernateSession, of("s-1")).await;
    link.completed("cmd-2").await;
    link.status("s-1", SessionState::Hibernated).await;
    let mut wake = start_payload("s-1", "sleep 86464.5");
    wake["generation"] = json!(2);
    link.command("cmd-3", CommandAction::WakeSession, wake).await;
    link.completed("cmd-3").await;
    link.command("cmd-4", CommandAction::StartSession, start_payload("s-1", "sleep 86464.5")).await;
    assert!(link.failed("cmd-4").await.contains("generation 2"));
    link.command("cmd-5", CommandAction::StopSession, json!({"sessionId": "s-1", "generation": 2})).await;
    link.completed("cmd-5").await;
    assert_eq!(link.status("s-1", SessionState::Terminated).await.generation, Some(2));
    agent.stop().await;
}

#[tokio::test]
async fn a_failed_wake_leaves_the_session_asleep_with_its_home() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.start("s-1", "echo kept > ~/note; sleep 86467.5").await;
    let note = folder.path().join("homes/ephemeral/s-1/note");
    until("the note", || std::fs::read_to_string(&note).is_ok_and(|text| text == "kept\n")).await;
    link.command("cmd-2", CommandAction::HibernateSession, of("s-1")).await;
    link.completed("cmd-2").await;
    link.status("s-1", SessionState::Hibernated).await;
    // Where the next shim has to listen lies something that is no socket.
    let obstacle = folder.path().join("run/s-1.2.sock");
    std::fs::create_dir(&obstacle).unwrap();
    let wake = |generation: i64| {
        let mut wake = start_payload("s-1", "cat ~/note; sleep 86467.5");
        wake["generation"] = json!(generation);
        wake
    };
    link.command("cmd-3", CommandAction::WakeSession, wake(2)).await;
    assert!(link.failed("cmd-3").await.contains("listen"));
    link.status("s-1", SessionState::Hibernated).await;
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "kept\n");
    link.command("cmd-4", CommandAction::WakeSession, wake(3)).await;
    link.completed("cmd-4").await;
    let stop = json!({"sessionId": "s-1", "generation": 3});
    link.command("cmd-5", CommandAction::StopSession, stop).await;
    link.completed("cmd-5").await;
    assert!(!note.exists());
    agent.stop().await;
}

#[tokio::test]
async fn a_stop_of_an_unknown_session_succeeds_and_a_full_agent_says_so() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    std::fs::create_dir_all(folder.path().join("private")).unwrap();
    std::fs::write(folder.path().join("private/agent.key"), "ab".repeat(32)).unwrap();
    let agent = Agent::start_with(&folder, &plane.url(), |options| options.max_sessions = 1);
    let mut link = plane.link().await;
    link.command("cmd-1", CommandAction::StopSession, of("s-unknown")).await;
    link.completed("cmd-1").await;
    link.start("s-1", "sleep 86465.5").await;
    link.command("cmd-2", CommandAction::StartSession, start_payload("s-2", "true")).await;
    assert!(link.failed("cmd-2").await.contains("which is its limit"));
    link.command("cmd-3", CommandAction::StopSession, of("s-1")).await;
    link.completed("cmd-3").await;
    agent.stop().await;
}

#[tokio::test]
async fn asked_to_shut_down_it_drains_ends_its_sessions_reports_and_exits() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.start("s-1", "sleep 86466.5").await;
    link.say(ShutdownMessage { reason: Some("maintenance".into()) }.into()).await;
    link.wait_for("a draining heartbeat", |message| {
        matches!(message, FromAgent::Heartbeat(heartbeat) if heartbeat.status == AgentReportedStatus::Draining)
    })
    .await;
    link.status("s-1", SessionState::Terminated).await;
    let serve = tokio::spawn(async move { link.wait_for("nothing more", |_| false).await });
    assert_eq!(agent.exited().await, Exited::Asked);
    assert!(serve.await.is_err() && with_argument("86466.5").is_empty());
}

#[tokio::test]
async fn a_tunnel_carries_a_terminal_both_ways_and_outlives_the_link() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.start("s-1", "while read line; do [ $line = end ] && exit 4; echo \"$GREETING <$line>\"; done")
        .await;
    link.open_tunnel("s-1", TunnelTarget::Terminal, StreamMode::Control).await;
    let mut tunnel = plane.tunnel().await;
    assert_eq!(tunnel.next().await, Some(Message::text(r#"{"type":"mode","mode":"control"}"#)));
    tunnel.send(Message::binary(&b"one\n"[..])).await;
    tunnel.read_until("hello <one>").await;
    drop(link);
    let _link = plane.link().await;
    tunnel.send(Message::binary(&b"two\n"[..])).await;
    tunnel.read_until("hello <two>").await;
    tunnel.send(Message::binary(&b"end\n"[..])).await;
    let (_, frames) = tunnel.read_all().await;
    assert_eq!(frames, [TerminalFrame::Exit { code: 4, signal: None }]);
    agent.stop().await;
}

#[tokio::test]
async fn logs_through_a_tunnel_are_complete() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.start("s-1", "head -c 20000000 /dev/zero | tr '\\0' x").await;
    link.open_tunnel("s-1", TunnelTarget::Logs, StreamMode::View).await;
    let mut tunnel = plane.tunnel().await;
    let (bytes, mut frames) = tunnel.read_all().await;
    assert!(matches!(frames.remove(1), TerminalFrame::Resize { .. }), "the size is said behind the offset");
    let wanted = vec![TerminalFrame::Offset { offset: 0 }, TerminalFrame::Exit { code: 0, signal: None }];
    assert_eq!((bytes.len(), frames), (20_000_000, wanted));
    agent.stop().await;
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_made_is_refused_with_a_sentence() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    link.start("s-1", "sleep 60").await;
    for (session, target, why) in [
        ("s-1", TunnelTarget::Stream, "no stream but its terminal"),
        ("s-none", TunnelTarget::Terminal, "not on this agent"),
    ] {
        link.open_tunnel(session, target, StreamMode::Control).await;
        let failed =
            link.wait_for("a refusal", |message| matches!(message, FromAgent::TunnelFailed(_))).await;
        let FromAgent::TunnelFailed(failed) = failed else { unreachable!() };
        assert!(failed.error.contains(why), "{}", failed.error);
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_stop_that_asks_for_it_deletes_the_home_and_says_so() {
    let (folder, plane) = (Folder::new(), ControlPlane::new().await);
    let agent = Agent::start(&folder, &plane.url());
    let mut link = plane.link().await;
    let mut payload = start_payload("s-1", "echo kept > kept.txt");
    payload["persistentHome"] = json!(true);
    payload["orgId"] = json!("org-1");
    payload["userId"] = json!("user-1");
    link.command("cmd-1", CommandAction::StartSession, payload).await;
    link.completed("cmd-1").await;
    link.status("s-1", SessionState::Terminated).await;
    let home = folder.path().join("homes/org-1/user-1");
    assert!(home.join("kept.txt").exists(), "{}", home.display());
    link.command("cmd-2", CommandAction::StopSession, of("s-1")).await;
    assert!(link.completed("cmd-2").await.get("homeDeleted").is_none());
    assert!(home.exists(), "nobody asked for it");
    let ask = json!({"sessionId": "s-1", "deleteHome": true, "orgId": "org-1", "userId": "user-1", "user": "alice"});
    link.command("cmd-3", CommandAction::StopSession, ask.clone()).await;
    assert_eq!(link.completed("cmd-3").await["homeDeleted"], true);
    assert!(!home.exists());
    // Of a session that nobody knows any more, and of a home that is gone: it is what was asked for.
    let mut unknown = ask;
    unknown["sessionId"] = json!("s-9");
    link.command("cmd-4", CommandAction::StopSession, unknown.clone()).await;
    assert_eq!(link.completed("cmd-4").await["homeDeleted"], true);
    unknown["userId"] = json!("../..");
    link.command("cmd-5", CommandAction::StopSession, unknown).await;
    assert!(link.failed("cmd-5").await.contains("letters"), "no path leads out");
    agent.stop().await;
}
