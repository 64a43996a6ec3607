//! What of a viewer's frames is a sign of a person: the one place that knows it. What they see is none, and neither is
//! what a program of theirs says by itself.

use tidegate_model::StreamMode;
use tidegate_protocol::TunnelTarget;

use super::TunnelRequest;
use crate::Frame;

/// Whether a frame of a viewer, one that may cross, keeps the session alive.
pub(crate) fn counts_as_activity(request: &TunnelRequest, frame: &Frame) -> bool {
    if request.mode != StreamMode::Control {
        return false;
    }
    match (request.target, frame) {
        // Keys. A terminal that is resized may be a window manager's doing.
        (TunnelTarget::Terminal, Frame::Binary(bytes)) => !bytes.is_empty(),
        // Whoever carries a stream or a port looks at what is said, and tells the hub: [`crate::Hub::note_activity`].
        (TunnelTarget::Stream | TunnelTarget::Port | TunnelTarget::Logs, _)
        | (TunnelTarget::Terminal, Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Close(..)) => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidegate_model::{AgentId, SessionId, UserId};

    use super::*;

    fn request(target: TunnelTarget, mode: StreamMode) -> TunnelRequest {
        TunnelRequest {
            agent_id: AgentId::new(),
            session_id: SessionId::new(),
            generation: 1,
            target,
            protocol: tidegate_model::StreamKind::Terminal,
            mode,
            viewer: UserId::new(),
            port: None,
            after: None,
            follow: None,
        }
    }

    #[test]
    fn keys_of_whoever_may_type_count_and_nothing_else_does() {
        let keys = Frame::Binary(Bytes::from_static(b"ls\n"));
        let terminal = request(TunnelTarget::Terminal, StreamMode::Control);
        assert!(counts_as_activity(&terminal, &keys));
        for other in [
            Frame::Binary(Bytes::new()),
            Frame::Text(r#"{"type":"resize","cols":80,"rows":24}"#.into()),
            Frame::Ping(Bytes::new()),
            Frame::Pong(Bytes::new()),
        ] {
            assert!(!counts_as_activity(&terminal, &other), "{other:?}");
        }
        assert!(!counts_as_activity(&request(TunnelTarget::Terminal, StreamMode::View), &keys));
        assert!(!counts_as_activity(&request(TunnelTarget::Logs, StreamMode::Control), &keys));
    }
}
