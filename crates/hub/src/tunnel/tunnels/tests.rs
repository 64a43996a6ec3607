use std::time::Duration;

use futures_util::FutureExt;
use tidegate_model::StreamMode;
use tidegate_protocol::TunnelTarget;

use super::*;
use crate::CloseCode;

fn tunnels(options: Options) -> Arc<Tunnels> {
    Tunnels::new(Arc::new(options))
}

fn request() -> TunnelRequest {
    TunnelRequest {
        agent_id: AgentId::new(),
        session_id: SessionId::new(),
        generation: 1,
        target: TunnelTarget::Terminal,
        protocol: tidegate_model::StreamKind::Terminal,
        mode: StreamMode::Control,
        viewer: UserId::new(),
        port: None,
        after: None,
        follow: None,
    }
}

#[tokio::test]
async fn a_dial_of_the_right_agent_joins_both_ends() {
    let (tunnels, request, now) = (tunnels(Options::default()), request(), Instant::now());
    let waiting = tunnels.expect_dial(request, now).unwrap();
    let id = waiting.id.clone();
    assert!(tunnels.accept(AgentId::new(), &id, now).is_none(), "another agent");
    let agent = tunnels.accept(request.agent_id, &id, now).unwrap();
    let viewer = waiting.answer().await.unwrap();
    assert_eq!(viewer.handle().session_id(), request.session_id);
    assert!(tunnels.accept(request.agent_id, &id, now).is_none(), "used");
    assert_eq!(tunnels.of_session(request.session_id).len(), 1);
    drop((agent, viewer));
    assert!(tunnels.of_session(request.session_id).is_empty());
}

#[tokio::test]
async fn a_viewer_who_leaves_takes_the_request_back() {
    let (tunnels, request, now) = (tunnels(Options::default()), request(), Instant::now());
    let waiting = tunnels.expect_dial(request, now).unwrap();
    let id = waiting.id.clone();
    drop(waiting);
    assert!(tunnels.accept(request.agent_id, &id, now).is_none());
}

#[tokio::test]
async fn an_agent_that_does_not_dial_in_time_did_not_answer() {
    let options = Options { tunnel_dial: Duration::from_millis(5), ..Options::default() };
    let (tunnels, request) = (tunnels(options), request());
    let waiting = tunnels.expect_dial(request, Instant::now()).unwrap();
    assert_eq!(waiting.answer().await.err(), Some(TunnelError::AgentDidNotAnswer));
}

#[tokio::test]
async fn a_refusal_counts_only_from_the_agent_that_was_asked() {
    let (tunnels, request, now) = (tunnels(Options::default()), request(), Instant::now());
    let waiting = tunnels.expect_dial(request, now).unwrap();
    let id = waiting.id.clone();
    let mut answer = Box::pin(waiting.answer());
    tunnels.refuse(AgentId::new(), &id, "not mine", now);
    assert!(answer.as_mut().now_or_never().is_none());
    tunnels.refuse(request.agent_id, &id, "no\u{1b}[31m terminal", now);
    assert_eq!(answer.await.err(), Some(TunnelError::AgentRefused("no[31m terminal".into())));
}

#[tokio::test]
async fn a_session_has_a_bounded_number_of_viewers() {
    let options = Options { tunnels_per_session: 2, ..Options::default() };
    let (tunnels, request, now) = (tunnels(options), request(), Instant::now());
    let first = tunnels.expect_dial(request, now).unwrap();
    let agents_end = tunnels.accept(request.agent_id, &first.id, now).unwrap();
    let second = tunnels.expect_dial(request, now).unwrap();
    assert_eq!(tunnels.expect_dial(request, now).err(), Some(TunnelError::TooManyViewers { limit: 2 }));
    drop(second);
    assert!(tunnels.expect_dial(request, now).is_ok());
    drop((first, agents_end));
}

#[tokio::test]
async fn a_revoked_agent_loses_its_tunnels_and_its_dials() {
    let (tunnels, request, now) = (tunnels(Options::default()), request(), Instant::now());
    let other = TunnelRequest { agent_id: AgentId::new(), ..request };
    let (mine, theirs) =
        (tunnels.expect_dial(request, now).unwrap(), tunnels.expect_dial(other, now).unwrap());
    let open = tunnels.expect_dial(request, now).unwrap();
    let agents_end = tunnels.accept(request.agent_id, &open.id, now).unwrap();
    tunnels.cut_agent(request.agent_id);
    assert_eq!(mine.answer().await.err(), Some(TunnelError::AgentOffline));
    assert_eq!(agents_end.live.ending(), Some(TunnelEnding::AgentRevoked));
    assert!(tunnels.accept(other.agent_id, &theirs.id, now).is_some());
}

#[tokio::test]
async fn an_ended_session_leaves_its_agent_some_time() {
    let (tunnels, request, now) = (tunnels(Options::default()), request(), Instant::now());
    let waiting = tunnels.expect_dial(request, now).unwrap();
    let agents_end = tunnels.accept(request.agent_id, &waiting.id, now).unwrap();
    tunnels.end_session(request.session_id, now);
    tunnels.end_session(request.session_id, now + Duration::from_secs(4));
    tunnels.cut_overdue(now + Duration::from_secs(4));
    assert_eq!(agents_end.live.ending(), None);
    tunnels.cut_overdue(now + Duration::from_secs(5));
    assert_eq!(agents_end.live.ending(), Some(TunnelEnding::SessionEnded));
}

#[tokio::test]
async fn the_log_of_an_ended_session_is_read_to_its_end() {
    let (tunnels, now) = (tunnels(Options::default()), Instant::now());
    let terminal = request();
    let log = TunnelRequest { target: TunnelTarget::Logs, mode: StreamMode::View, ..terminal };
    let follow = TunnelRequest { follow: Some(true), ..log };
    let (open, followed) =
        (tunnels.expect_dial(log, now).unwrap(), tunnels.expect_dial(follow, now).unwrap());
    let agents_end = tunnels.accept(log.agent_id, &open.id, now).unwrap();
    let followed_end = tunnels.accept(log.agent_id, &followed.id, now).unwrap();
    let (seen, asked) = (tunnels.expect_dial(terminal, now).unwrap(), tunnels.expect_dial(log, now).unwrap());
    tunnels.end_session(terminal.session_id, now);
    tunnels.cut_overdue(now + Duration::from_mins(1));
    assert!(matches!(seen.answer().await.err(), Some(TunnelError::AgentRefused(_))));
    assert!(tunnels.accept(log.agent_id, &asked.id, now).is_some(), "its agent has it still");
    assert_eq!(agents_end.live.ending(), None, "it ends by itself");
    assert_eq!(followed_end.live.ending(), Some(TunnelEnding::SessionEnded));
    let code = |request: TunnelRequest| TunnelEnding::SessionEnded.viewer_code(request.target);
    assert_eq!((code(follow), code(terminal)), (CloseCode::RESTART, CloseCode::NORMAL));
}

#[test]
fn a_refusal_is_cut_short_and_has_no_control_characters() {
    assert_eq!(refusal_text(&"x\n".repeat(1_000)), "x".repeat(300));
    assert_eq!(refusal_text(""), "no reason was given");
}

/// Runs both at once.
fn at_once<A: Send, B: Send>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B + Send) -> (A, B) {
    let start = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            start.wait();
            one()
        });
        start.wait();
        let other = other();
        (one.join().unwrap(), other)
    })
}

/// How often two that race are let go.
const RACES: usize = 3_000;

#[test]
fn an_agent_that_is_revoked_while_it_dials_has_no_tunnel() {
    let (tunnels, now) = (tunnels(Options::default()), Instant::now());
    for _ in 0..RACES {
        let request = request();
        let waiting = tunnels.expect_dial(request, now).unwrap();
        let agent = request.agent_id;
        let (end, ()) = at_once(|| tunnels.accept(agent, &waiting.id, now), || tunnels.cut_agent(agent));
        if let Some(end) = end {
            assert_eq!(end.live.ending(), Some(TunnelEnding::AgentRevoked), "it was dialled and not cut");
        }
    }
}

#[test]
fn a_session_that_ends_while_its_tunnel_is_dialled_ends_the_tunnel() {
    let (tunnels, now) = (tunnels(Options::default()), Instant::now());
    for _ in 0..RACES {
        let request = request();
        let waiting = tunnels.expect_dial(request, now).unwrap();
        let (end, ()) = at_once(
            || tunnels.accept(request.agent_id, &waiting.id, now),
            || tunnels.end_session(request.session_id, now),
        );
        if let Some(end) = end {
            assert!(end.live.is_overdue(now + Duration::from_mins(10)), "nothing ends it");
        }
    }
}

#[test]
fn a_tunnel_that_is_only_just_dialled_is_counted() {
    let (tunnels, now) = (tunnels(Options { tunnels_per_session: 1, ..Options::default() }), Instant::now());
    for _ in 0..RACES {
        let request = request();
        let waiting = tunnels.expect_dial(request, now).unwrap();
        let (end, another) = at_once(
            || tunnels.accept(request.agent_id, &waiting.id, now),
            || tunnels.expect_dial(request, now),
        );
        assert_eq!(another.err(), Some(TunnelError::TooManyViewers { limit: 1 }));
        assert!(end.is_some());
    }
}
