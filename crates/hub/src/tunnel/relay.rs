//! Moves frames between a socket and one end of a tunnel, both ways, with the peer's own back pressure.

use std::{borrow::Cow, pin::pin, sync::Mutex, time::Duration};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use metrics::{Counter, counter};
use tidegate_model::{StreamKind, StreamMode};
use tidegate_protocol::{TerminalFrame, TunnelTarget};
use tokio::{
    sync::Notify,
    task::consume_budget,
    time::{sleep, timeout},
};

use super::{
    TunnelEnd, TunnelEnding, TunnelRequest,
    activity::counts_as_activity,
    end::{Live, Side},
    rfb::{self, Confused},
};
use crate::{CloseCode, Frame, TransportError, guard::lock, parcel};

/// How long a tunnel that has ended may take to deliver what is on its way.
const LINGER: Duration = Duration::from_secs(30);
/// How long the closing handshake may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Pumps both directions until the tunnel ends, then closes the socket; returns why the tunnel ended. The handler of a
/// viewer's socket and the handler of an agent's tunnel socket both call it, each with its own end.
///
/// At most [`crate::Options::tunnel_bytes`] are on their way in each direction: a viewer that does not read stops the
/// reading of the agent's socket, and the other way round.
pub async fn relay<S, K>(inbound: S, outbound: K, end: TunnelEnd) -> TunnelEnding
where
    S: Stream<Item = Result<Frame, TransportError>>,
    K: Sink<Frame>,
{
    let (mut inbound, mut outbound) = (pin!(inbound), pin!(outbound));
    let TunnelEnd { side, outgoing, mut incoming, live } = end;
    let shared = Shared { pongs: Pongs::default(), desktop: watched_desktop(side, &live.request) };
    let stop = {
        let take_in = take_in(inbound.as_mut(), &outgoing, &shared, &live, side);
        let give_out = give_out(outbound.as_mut(), &mut incoming, &shared, &live, side);
        let lingered = async {
            live.ended.cancelled().await;
            sleep(LINGER).await;
        };
        tokio::select! {
            () = live.stopped(side) => Stop::of(TunnelEnding::SessionEnded),
            stop = take_in => stop,
            stop = give_out => stop,
            () = lingered => Stop::of(TunnelEnding::ViewerLeft),
        }
    };
    // The cause is known before the other side sees the channels close.
    let ending = live.end(stop.ending);
    drop((outgoing, incoming));
    let code = stop.code.unwrap_or(match side {
        Side::Viewer => ending.viewer_code(live.request.target),
        Side::Agent => ending.agent_code(),
    });
    let goodbye = async {
        let close = Frame::Close(code, Cow::Borrowed(ending.sentence()));
        if outbound.send(close).await.is_ok() {
            // A socket that is gone already needs no closing.
            let _ = outbound.close().await;
        }
    };
    // A peer that does not read loses the last frame; the socket is dropped all the same.
    let _ = timeout(GOODBYE, goodbye).await;
    ending
}

/// Why one side stopped, and the code of its own socket where that is not the tunnel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stop {
    ending: TunnelEnding,
    code: Option<CloseCode>,
}

impl Stop {
    const fn of(ending: TunnelEnding) -> Self {
        Self { ending, code: None }
    }
}

/// What both directions of one socket know.
#[derive(Debug)]
struct Shared {
    pongs: Pongs,
    /// What the desktop said first, where its viewer only watches.
    desktop: Option<Mutex<rfb::Desktop>>,
}

/// The newest ping that waits for its answer; older ones need none.
#[derive(Debug, Default)]
struct Pongs {
    newest: Mutex<Option<Bytes>>,
    some: Notify,
}

impl Pongs {
    fn answer(&self, ping: Bytes) {
        *lock(&self.newest) = Some(ping);
        self.some.notify_one();
    }

    fn take(&self) -> Option<Frame> {
        lock(&self.newest).take().map(Frame::Pong)
    }

    async fn some(&self) {
        self.some.notified().await;
    }
}

/// Socket → tunnel.
async fn take_in<S>(
    mut inbound: std::pin::Pin<&mut S>,
    outgoing: &parcel::Sender<Frame>,
    shared: &Shared,
    live: &Live,
    side: Side,
) -> Stop
where
    S: Stream<Item = Result<Frame, TransportError>>,
{
    let moved = counter(side);
    let mut desktop = desktop_of(side, &live.request);
    while let Some(frame) = inbound.next().await {
        // Frames that are let go wait for nothing: without this an endless peer would keep the thread for itself.
        consume_budget().await;
        let mut is_activity = false;
        let frame = match frame {
            Ok(Frame::Ping(bytes)) => {
                shared.pongs.answer(bytes);
                continue;
            }
            Ok(Frame::Close(code, _)) => return Stop::of(left(side, code)),
            Ok(Frame::Binary(bytes)) if let Some(viewer) = &mut desktop => match said(viewer, &bytes, shared)
            {
                Ok(followed) if followed.bytes.is_empty() => continue,
                Ok(followed) => {
                    // Asking for pictures is none.
                    is_activity = followed.input && live.request.mode == StreamMode::Control;
                    Frame::Binary(followed.bytes)
                }
                Err(Confused) => {
                    return Stop { ending: TunnelEnding::ViewerLeft, code: Some(CloseCode::PROTOCOL) };
                }
            },
            Ok(frame) if may_cross(side, &live.request, &frame) => frame,
            Ok(_) => continue,
            Err(error) => return Stop { ending: lost(side), code: error.close_code() },
        };
        let (bytes, weight) = (frame.len() as u64, frame.weight());
        is_activity |= side == Side::Viewer && counts_as_activity(&live.request, &frame);
        // The other side takes nothing more: what comes is let go until this side has been told everything.
        if outgoing.send(frame, weight).await.is_ok() {
            moved.increment(bytes);
            if is_activity {
                live.count_typed();
            }
        }
    }
    Stop::of(lost(side))
}

/// Tunnel → socket.
async fn give_out<K: Sink<Frame>>(
    mut outbound: std::pin::Pin<&mut K>,
    incoming: &mut parcel::Receiver<Frame>,
    shared: &Shared,
    live: &Live,
    side: Side,
) -> Stop {
    let gone = Stop::of(lost(side));
    let Shared { pongs, desktop } = shared;
    let mut unheard = desktop.as_ref();
    loop {
        // Looked at before each frame: a stream that never pauses must not let its peer think nobody is there.
        if let Some(pong) = pongs.take()
            && outbound.feed(pong).await.is_err()
        {
            return gone;
        }
        let ready = incoming.try_recv();
        let next = if ready.is_some() {
            ready
        } else {
            // Nothing more for now: what was fed goes out before this waits.
            if outbound.flush().await.is_err() {
                return gone;
            }
            tokio::select! {
                next = incoming.recv() => next,
                () = pongs.some() => continue,
            }
        };
        let Some(parcel::Parcel { content, share }) = next else {
            // An end that was dropped without a word was lost.
            let other = match side {
                Side::Viewer => TunnelEnding::AgentLost,
                Side::Agent => TunnelEnding::ViewerLeft,
            };
            return Stop::of(live.ending().unwrap_or(other));
        };
        // Known before its viewer hears it, who answers.
        if let (Some(desktop), Frame::Binary(bytes)) = (unheard, &content) {
            let mut desktop = lock(desktop);
            if desktop.take(bytes) == Err(Confused) {
                return Stop::of(TunnelEnding::Unintelligible);
            }
            unheard = unheard.filter(|_| !desktop.is_known());
        }
        if outbound.feed(content).await.is_err() {
            return gone;
        }
        drop(share);
    }
}

/// The viewer of a desktop, whose input is told from the rest.
fn desktop_of(side: Side, request: &TunnelRequest) -> Option<rfb::Viewer> {
    let is_desktop = side == Side::Viewer && request.protocol == StreamKind::Vnc;
    is_desktop.then(|| rfb::Viewer::new(request.mode))
}

/// The desktop of a viewer who only watches it.
fn watched_desktop(side: Side, request: &TunnelRequest) -> Option<Mutex<rfb::Desktop>> {
    let watches = desktop_of(side, request).is_some() && request.mode == StreamMode::View;
    watches.then(Mutex::default)
}

/// What comes of what the viewer of a desktop says.
fn said(viewer: &mut rfb::Viewer, bytes: &Bytes, shared: &Shared) -> Result<rfb::Followed, Confused> {
    if let Some(desktop) = &shared.desktop {
        viewer.meet(&lock(desktop))?;
    }
    viewer.take(bytes)
}

/// What may cross. Input of those who only watch ends here, and so does everything that is no frame of this stream.
fn may_cross(side: Side, request: &TunnelRequest, frame: &Frame) -> bool {
    let types = request.mode == StreamMode::Control && request.target != TunnelTarget::Logs;
    let speaks = matches!(request.target, TunnelTarget::Terminal | TunnelTarget::Logs);
    match (side, frame) {
        (Side::Viewer, Frame::Binary(_)) => types,
        (Side::Agent, Frame::Binary(_)) => true,
        (Side::Viewer, Frame::Text(text)) => {
            types && speaks && matches!(TerminalFrame::decode(text), Some(TerminalFrame::Resize { .. }))
        }
        (Side::Agent, Frame::Text(text)) => {
            let frame = if speaks { TerminalFrame::decode(text) } else { None };
            match frame {
                Some(TerminalFrame::Exit { .. } | TerminalFrame::Mode { .. }) => true,
                Some(TerminalFrame::Offset { .. } | TerminalFrame::Resize { .. }) => {
                    request.target == TunnelTarget::Logs
                }
                None => false,
            }
        }
        (_, Frame::Ping(_) | Frame::Pong(_) | Frame::Close(..)) => false,
    }
}

/// What a socket's close frame means for the tunnel.
fn left(side: Side, code: CloseCode) -> TunnelEnding {
    match (side, code) {
        (Side::Viewer, _) => TunnelEnding::ViewerLeft,
        (Side::Agent, CloseCode::NORMAL | CloseCode::NO_STATUS) => TunnelEnding::Finished,
        (Side::Agent, CloseCode::ERROR) => TunnelEnding::AgentFailed,
        (Side::Agent, _) => TunnelEnding::AgentLost,
    }
}

const fn lost(side: Side) -> TunnelEnding {
    match side {
        Side::Viewer => TunnelEnding::ViewerLeft,
        Side::Agent => TunnelEnding::AgentLost,
    }
}

fn counter(side: Side) -> Counter {
    let to = match side {
        Side::Viewer => "agent",
        Side::Agent => "viewer",
    };
    counter!("tidegate_hub_tunnel_bytes_total", "to" => to)
}

#[cfg(test)]
mod tests;
