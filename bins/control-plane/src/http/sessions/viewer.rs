//! What terminals and logs share: the tunnel to the agent, and the watch over whoever looks through it.

use std::time::Duration;

use actix_web::rt;
use futures_util::{Sink, Stream};
use tidegate_hub::{Frame, TransportError, TunnelEnd, TunnelEnding, TunnelHandle, TunnelRequest, relay};
use tidegate_model::StreamKind;
use tidegate_protocol::TunnelTarget;
use tidegate_service::{Nudge, OpenedStream, ViewerStanding, Viewing};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::http::{Context, Problem};

/// Longest time without a look at a viewer's login and share: those that other programs end, and those that expire, are
/// announced by nobody.
const LOOK: Duration = Duration::from_millis(750);

/// What of the session's output is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// Its terminal.
    Terminal,
    /// What it printed after so many bytes.
    Logs {
        /// Bytes to leave out.
        after: u64,
        /// Whether to stay until the program ends.
        follow: bool,
    },
    /// Its desktop, or its web application: what its stream port carries.
    Stream(StreamKind),
    /// Another port of it.
    Port(u16),
}

/// Asks the session's agent for a tunnel.
pub(crate) async fn tunnel(
    context: &Context,
    opened: &OpenedStream,
    wanted: Wanted,
) -> Result<TunnelEnd, Problem> {
    let of = |target, protocol| TunnelRequest {
        agent_id: opened.agent,
        session_id: opened.session,
        generation: opened.generation,
        target,
        protocol,
        mode: opened.mode,
        viewer: opened.caller.user().user_id(),
        port: None,
        after: None,
        follow: None,
    };
    let request = match wanted {
        Wanted::Terminal => of(TunnelTarget::Terminal, StreamKind::Terminal),
        Wanted::Logs { after, follow } => TunnelRequest {
            after: Some(after),
            follow: Some(follow),
            ..of(TunnelTarget::Logs, StreamKind::Terminal)
        },
        Wanted::Stream(protocol) => of(TunnelTarget::Stream, protocol),
        Wanted::Port(port) => TunnelRequest { port: Some(port), ..of(TunnelTarget::Port, StreamKind::Http) },
    };
    Ok(context.hub.open_tunnel(request).await?)
}

/// Runs what moves a tunnel's bytes until it ends, and ends it when the viewer's login, their right to the session, or the
/// viewing itself does.
pub(crate) fn guard(
    context: &Context,
    viewing: Viewing,
    tunnel: TunnelHandle,
    moves: impl Future<Output = TunnelEnding> + 'static,
) {
    let over = CancellationToken::new();
    rt::spawn(context.tasks.track_future(watch(context.clone(), viewing, tunnel, over.clone())));
    rt::spawn(context.tasks.track_future(async move {
        let _over = over.drop_guard();
        let ending = moves.await;
        tracing::debug!(ending = ending.as_str(), "a stream ended");
    }));
}

/// Moves frames until the tunnel ends, and ends it as [`guard`] does.
pub(crate) fn serve<S, K>(context: &Context, viewing: Viewing, end: TunnelEnd, inbound: S, outbound: K)
where
    S: Stream<Item = Result<Frame, TransportError>> + 'static,
    K: Sink<Frame> + 'static,
{
    guard(context, viewing, end.handle(), relay(inbound, outbound, end));
}

/// Looks at a viewer's login, and at their right to the session, again and again until the stream is over.
async fn watch(context: Context, viewing: Viewing, tunnel: TunnelHandle, over: CancellationToken) {
    let mut nudges = context.hub.subscribe();
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            _ = timeout(LOOK, Nudge::revalidation(&mut nudges)) => {}
        }
        // Outside of the select: work on the database is never cut half-way.
        match context.services.streams.stands(&viewing).await {
            Ok(ViewerStanding::Stands) => {}
            Ok(ViewerStanding::LoginEnded) => return tunnel.cut(TunnelEnding::LoginEnded),
            Ok(ViewerStanding::ShareEnded) => return tunnel.cut(TunnelEnding::ShareEnded),
            Ok(ViewerStanding::Disconnected) => return tunnel.cut(TunnelEnding::Disconnected),
            // An outage ends no stream: it took nobody's rights away.
            Err(error) => tracing::debug!(error = crate::chain(&error), "a viewer's login was not looked at"),
        }
    }
}
