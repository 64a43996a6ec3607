use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tidegate_model::{AgentId, SessionId, UserId};
use tidegate_protocol::TunnelId;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::PollSender;

use super::*;
use crate::{Options, tunnel::Tunnels};

/// The other end of a socket: what it says and what it hears. It hears one frame more than it has read.
struct Peer {
    say: Option<mpsc::UnboundedSender<Result<Frame, TransportError>>>,
    hear: mpsc::Receiver<Frame>,
    relay: JoinHandle<TunnelEnding>,
}

impl Peer {
    fn new(end: TunnelEnd) -> Self {
        let (say, heard) = mpsc::unbounded_channel();
        let (outbound, hear) = mpsc::channel(1);
        let inbound = futures_util::stream::unfold(heard, async |mut heard| {
            heard.recv().await.map(|frame| (frame, heard))
        });
        Self { say: Some(say), hear, relay: tokio::spawn(relay(inbound, PollSender::new(outbound), end)) }
    }

    fn say(&self, frame: Frame) {
        self.say_result(Ok(frame));
    }

    fn say_result(&self, frame: Result<Frame, TransportError>) {
        self.say.as_ref().unwrap().send(frame).unwrap();
    }

    async fn hear(&mut self) -> Option<Frame> {
        self.hear.recv().await
    }
}

struct Setup {
    tunnels: Arc<Tunnels>,
    request: TunnelRequest,
    viewer: Peer,
    agent: Peer,
}

fn open(mode: StreamMode, target: TunnelTarget, tunnel_bytes: usize) -> Setup {
    open_as(StreamKind::Terminal, mode, target, tunnel_bytes)
}

fn open_as(protocol: StreamKind, mode: StreamMode, target: TunnelTarget, tunnel_bytes: usize) -> Setup {
    let tunnels = Tunnels::new(Arc::new(Options { tunnel_bytes, ..Options::default() }));
    let request = TunnelRequest {
        agent_id: AgentId::new(),
        session_id: SessionId::new(),
        generation: 1,
        target,
        protocol,
        mode,
        viewer: UserId::new(),
        port: None,
        after: None,
        follow: None,
    };
    let now = tokio::time::Instant::now();
    let waiting = tunnels.expect_dial(request, now).unwrap();
    let agent = tunnels.accept(request.agent_id, &waiting.id, now).unwrap();
    let viewer = futures_util::FutureExt::now_or_never(waiting.answer()).unwrap().unwrap();
    Setup { tunnels, request, viewer: Peer::new(viewer), agent: Peer::new(agent) }
}

fn terminal(mode: StreamMode) -> Setup {
    open(mode, TunnelTarget::Terminal, 64 * 1024)
}

fn desktop(mode: StreamMode) -> Setup {
    open_as(StreamKind::Vnc, mode, TunnelTarget::Stream, 64 * 1024)
}

fn bytes(text: &'static str) -> Frame {
    Frame::Binary(Bytes::from_static(text.as_bytes()))
}

fn text(text: &str) -> Frame {
    Frame::Text(text.into())
}

fn close(code: CloseCode) -> Frame {
    Frame::Close(code, "".into())
}

fn code(frame: Option<Frame>) -> CloseCode {
    match frame {
        Some(Frame::Close(code, _)) => code,
        other => panic!("a close frame, not {other:?}"),
    }
}

#[tokio::test]
async fn bytes_cross_untouched_both_ways_and_in_order() {
    let mut it = terminal(StreamMode::Control);
    it.viewer.say(bytes("ls\n"));
    it.viewer.say(text(r#"{"type":"resize","cols":80,"rows":24}"#));
    assert_eq!(it.agent.hear().await, Some(bytes("ls\n")));
    assert_eq!(it.agent.hear().await, Some(text(r#"{"type":"resize","cols":80,"rows":24}"#)));
    it.agent.say(bytes("one"));
    it.agent.say(bytes("two"));
    assert_eq!((it.viewer.hear().await, it.viewer.hear().await), (Some(bytes("one")), Some(bytes("two"))));
}

#[tokio::test]
async fn input_of_a_viewer_who_only_watches_is_dropped() {
    let mut it = terminal(StreamMode::View);
    it.viewer.say(bytes("rm -rf /\n"));
    it.viewer.say(text(r#"{"type":"resize","cols":80,"rows":24}"#));
    it.viewer.say(close(CloseCode::NORMAL));
    assert_eq!(code(it.agent.hear().await), CloseCode::NORMAL);
}

#[tokio::test]
async fn what_is_typed_is_activity_once_it_crossed_and_until_it_was_asked_for() {
    let mut it = terminal(StreamMode::Control);
    let (session, viewer) = (it.request.session_id, it.request.viewer);
    it.viewer.say(text(r#"{"type":"resize","cols":80,"rows":24}"#));
    it.agent.say(bytes("output"));
    it.agent.hear().await;
    it.viewer.hear().await;
    assert!(it.tunnels.take_activity().is_empty(), "neither a resize nor what is seen");
    it.viewer.say(bytes("ls"));
    it.viewer.say(text(r#"{"type":"resize","cols":81,"rows":24}"#));
    // The frame after it has crossed: it was counted before.
    assert_eq!(it.agent.hear().await, Some(bytes("ls")));
    it.agent.hear().await;
    assert_eq!(it.tunnels.take_activity().into_iter().collect::<Vec<_>>(), [(session, viewer)]);
    assert!(it.tunnels.take_activity().is_empty(), "asked for already");
    it.viewer.say(bytes("exit"));
    it.viewer.say(close(CloseCode::NORMAL));
    while it.agent.hear().await.is_some() {}
    it.viewer.relay.await.unwrap();
    it.agent.relay.await.unwrap();
    assert_eq!(
        it.tunnels.take_activity().into_keys().collect::<Vec<_>>(),
        [session],
        "of one that has ended"
    );
}

#[tokio::test]
async fn input_that_is_dropped_is_no_activity() {
    let mut it = terminal(StreamMode::View);
    it.viewer.say(bytes("ls"));
    it.viewer.say(close(CloseCode::NORMAL));
    assert_eq!(code(it.agent.hear().await), CloseCode::NORMAL);
    drop((it.viewer, it.agent));
    assert!(it.tunnels.take_activity().is_empty());
}

#[tokio::test]
async fn a_desktop_is_watched_once_it_has_said_how_it_reads() {
    let mut it = desktop(StreamMode::View);
    for piece in ["RFB 0", "03.008\n", "garbage"] {
        it.agent.say(bytes(piece));
        assert_eq!(it.viewer.hear().await, Some(bytes(piece)), "it passes untouched");
    }
    it.viewer.say(bytes("RFB 003.008\n\u{1}\u{0}"));
    assert_eq!(it.agent.hear().await, Some(bytes("RFB 003.008\n\u{1}\u{1}")));
    it.viewer.say(bytes("\u{4}\u{1}\0\0\0\0\0a"));
    it.viewer.say(close(CloseCode::NORMAL));
    assert_eq!(code(it.agent.hear().await), CloseCode::NORMAL, "a key goes nowhere");
}

#[tokio::test]
async fn nobody_only_watches_a_desktop_that_would_read_another_message_than_was_let_pass() {
    for said in ["RFB 003.003\n\0\0\0\u{1}", "HTTP/1.1 200 OK\r\n\r\n"] {
        let mut it = desktop(StreamMode::View);
        it.agent.say(bytes(said));
        assert_eq!(code(it.viewer.hear().await), CloseCode::POLICY);
        assert_eq!(code(it.agent.hear().await), CloseCode::NORMAL);
        assert_eq!(it.viewer.relay.await.unwrap(), TunnelEnding::Unintelligible);
    }
}

#[tokio::test]
async fn nobody_who_only_watches_speaks_before_the_desktop() {
    let mut it = desktop(StreamMode::View);
    it.agent.say(bytes("RFB 003.00"));
    assert_eq!(it.viewer.hear().await, Some(bytes("RFB 003.00")));
    it.viewer.say(bytes("RFB 003.008\n\u{1}\u{1}"));
    assert_eq!(code(it.viewer.hear().await), CloseCode::PROTOCOL);
    assert_eq!(code(it.agent.hear().await), CloseCode::NORMAL, "nothing was said to it");
}

#[tokio::test]
async fn whoever_controls_a_desktop_may_have_one_of_any_kind() {
    let mut it = desktop(StreamMode::Control);
    it.viewer.say(bytes("RFB 003.008\n"));
    assert_eq!(it.agent.hear().await, Some(bytes("RFB 003.008\n")));
    it.agent.say(bytes("no desktop at all"));
    assert_eq!(it.viewer.hear().await, Some(bytes("no desktop at all")));
}

#[tokio::test]
async fn logs_go_one_way() {
    let mut it = open(StreamMode::Control, TunnelTarget::Logs, 1024);
    it.viewer.say(bytes("input"));
    it.agent.say(bytes("line"));
    assert_eq!(it.viewer.hear().await, Some(bytes("line")));
    it.viewer.say(close(CloseCode::NORMAL));
    assert_eq!(code(it.agent.hear().await), CloseCode::NORMAL);
}

#[tokio::test]
async fn frames_that_are_none_of_a_terminals_are_ignored() {
    let mut it = terminal(StreamMode::Control);
    for bad in ["", "{", "[]", r#"{"type":"resize","cols":0,"rows":1}"#, r#"{"type":"exit","code":0}"#] {
        it.viewer.say(text(bad));
    }
    for bad in ["{", r#"{"type":"resize","cols":1,"rows":1}"#, r#"{"type":"paint"}"#] {
        it.agent.say(text(bad));
    }
    it.agent.say(text(r#"{"type":"exit","code":3}"#));
    it.viewer.say(bytes("last"));
    assert_eq!(it.agent.hear().await, Some(bytes("last")));
    assert_eq!(it.viewer.hear().await, Some(text(r#"{"type":"exit","code":3}"#)));
}

#[tokio::test]
async fn a_ping_is_answered_by_the_side_it_reached() {
    let mut it = terminal(StreamMode::View);
    it.viewer.say(Frame::Ping(Bytes::from_static(b"7")));
    assert_eq!(it.viewer.hear().await, Some(Frame::Pong(Bytes::from_static(b"7"))));
}

#[tokio::test]
async fn what_the_agent_said_before_it_closed_still_arrives() {
    let mut it = terminal(StreamMode::Control);
    for _ in 0..100 {
        it.agent.say(bytes("output"));
    }
    it.agent.say(text(r#"{"type":"exit","code":0}"#));
    it.agent.say(close(CloseCode::NORMAL));
    assert_eq!(it.agent.relay.await.unwrap(), TunnelEnding::Finished);
    for _ in 0..100 {
        assert_eq!(it.viewer.hear().await, Some(bytes("output")));
    }
    assert_eq!(it.viewer.hear().await, Some(text(r#"{"type":"exit","code":0}"#)));
    assert_eq!(code(it.viewer.hear().await), CloseCode::NORMAL);
}

#[tokio::test]
async fn a_lost_agent_closes_its_viewer_with_1012() {
    let mut it = terminal(StreamMode::Control);
    it.agent.say = None;
    assert_eq!(code(it.viewer.hear().await), CloseCode::RESTART);
    assert_eq!(it.viewer.relay.await.unwrap(), TunnelEnding::AgentLost);
}

#[tokio::test]
async fn an_end_that_is_dropped_without_a_socket_closes_the_other() {
    let (viewer, agent) = ends(1024);
    drop(agent);
    assert_eq!(code(Peer::new(viewer).hear().await), CloseCode::RESTART);
}

#[tokio::test]
async fn a_viewer_who_breaks_the_rules_is_told_so_and_the_agent_sees_a_normal_end() {
    let mut it = terminal(StreamMode::Control);
    it.viewer.say_result(Err(TransportError::TooLarge));
    assert_eq!(code(it.viewer.hear().await), CloseCode::TOO_LARGE);
    assert_eq!(code(it.agent.hear().await), CloseCode::NORMAL);
}

#[tokio::test]
async fn a_viewer_whose_login_ended_is_cut_at_once() {
    let mut it = terminal(StreamMode::Control);
    it.tunnels.of_session(it.request.session_id)[0].cut(TunnelEnding::LoginEnded);
    assert_eq!(code(it.viewer.hear().await), CloseCode::POLICY);
    assert_eq!(code(it.agent.hear().await), CloseCode::NORMAL);
}

#[tokio::test]
async fn a_stop_of_the_process_cuts_both_sides_with_1012() {
    let mut it = terminal(StreamMode::Control);
    it.tunnels.cut_all();
    assert_eq!(code(it.viewer.hear().await), CloseCode::RESTART);
    assert_eq!(code(it.agent.hear().await), CloseCode::RESTART);
}

/// Both ends of a tunnel without sockets.
fn ends(tunnel_bytes: usize) -> (TunnelEnd, TunnelEnd) {
    let request = terminal(StreamMode::Control).request;
    let tunnels = Tunnels::new(Arc::new(Options { tunnel_bytes, ..Options::default() }));
    super::super::end::Live::pair(TunnelId::from_random([1; 16]), request, &tunnels)
}

/// Lets every task run until the number moves no more.
async fn settled(number: &AtomicUsize) -> usize {
    let mut last = usize::MAX;
    while last != number.load(Ordering::Relaxed) {
        last = number.load(Ordering::Relaxed);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    last
}

#[tokio::test]
async fn a_viewer_who_does_not_read_stops_the_reading_of_the_agent() {
    let (viewer, agent) = ends(16 * 1024);
    let mut viewer = Peer::new(viewer);
    let taken = Arc::new(AtomicUsize::new(0));
    let endless = futures_util::stream::repeat_with({
        let taken = Arc::clone(&taken);
        move || {
            taken.fetch_add(1, Ordering::Relaxed);
            Ok(Frame::Binary(Bytes::from(vec![0; 1024])))
        }
    });
    let relay = tokio::spawn(relay(endless, futures_util::sink::drain(), agent));
    let first = settled(&taken).await;
    assert!((10..20).contains(&first), "{first} frames of a KiB for a bound of 16 KiB");
    for _ in 0..50 {
        assert!(viewer.hear().await.is_some());
    }
    let second = settled(&taken).await;
    assert!((60..70).contains(&second), "{second} frames after fifty were read");
    viewer.say(close(CloseCode::NORMAL));
    assert_eq!(viewer.relay.await.unwrap(), TunnelEnding::ViewerLeft);
    relay.abort();
}

#[tokio::test]
async fn a_slow_viewer_of_one_tunnel_slows_no_other() {
    let slow = terminal(StreamMode::Control);
    let mut quick = terminal(StreamMode::Control);
    for _ in 0..10_000 {
        slow.agent.say(Frame::Binary(Bytes::from_static(&[0; 1024])));
    }
    for _ in 0..100 {
        quick.viewer.say(bytes("k"));
        assert_eq!(quick.agent.hear().await, Some(bytes("k")));
    }
}

#[tokio::test]
async fn an_endless_peer_whose_frames_are_let_go_leaves_the_thread_to_others() {
    let (viewer, agent) = ends(1024);
    drop(viewer);
    let endless = futures_util::stream::repeat_with(|| Ok(text("no frame of a terminal")));
    // On one thread: this ends only if the relay lets its other direction see that the viewer is gone.
    assert_eq!(relay(endless, futures_util::sink::drain(), agent).await, TunnelEnding::ViewerLeft);
}
