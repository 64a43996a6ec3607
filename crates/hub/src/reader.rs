//! What becomes of each frame an agent sends: a message, something to skip, or the end of the connection. Plain
//! decisions, no socket and no database.

use bytes::Bytes;
use tidegate_model::{AgentStatusUpdate, CommandId};
use tidegate_protocol::{DecodeError, Decoded, FromAgent, MAX_FRAME_BYTES, StatusMessage};
use tidegate_service::ReportKind;

use crate::{CloseReason, Frame};

/// Undecodable frames in a row that end a connection.
const MAX_UNDECODABLE: u8 = 10;

/// What a frame means for its connection.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// A message to act on.
    Message(FromAgent),
    /// Answer with a pong that carries these bytes.
    Ping(Bytes),
    /// No message; the connection lives.
    Undecodable,
    /// A type this version does not know; the connection lives.
    Unknown,
    /// A pong of the transport: a sign of life, nothing else.
    Nothing,
    /// The connection ends.
    Close(CloseReason),
}

/// Judges the frames of one connection.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Undecodable frames since the last one that could be read.
    undecodable: u8,
}

impl Reader {
    pub(crate) fn judge(&mut self, frame: Frame) -> Verdict {
        match frame {
            Frame::Text(text) => self.judge_text(&text),
            Frame::Binary(_) => Verdict::Close(CloseReason::Binary),
            Frame::Ping(bytes) => Verdict::Ping(bytes),
            Frame::Pong(_) => Verdict::Nothing,
            Frame::Close(..) => Verdict::Close(CloseReason::Left),
        }
    }

    fn judge_text(&mut self, text: &str) -> Verdict {
        if text.len() > MAX_FRAME_BYTES {
            return Verdict::Close(CloseReason::TooLarge);
        }
        match FromAgent::decode(text) {
            Ok(decoded) => {
                self.undecodable = 0;
                match decoded {
                    Decoded::Message(message) => Verdict::Message(message),
                    Decoded::Unknown(_) => Verdict::Unknown,
                }
            }
            Err(DecodeError::TooLarge(_)) => Verdict::Close(CloseReason::TooLarge),
            Err(DecodeError::Malformed { .. } | DecodeError::Payload { .. }) => {
                self.undecodable += 1;
                if self.undecodable >= MAX_UNDECODABLE {
                    Verdict::Close(CloseReason::Undecodable)
                } else {
                    Verdict::Undecodable
                }
            }
        }
    }
}

/// What a message means to the rows; `None` where it is about a command that cannot be one of ours.
/// Messages that are no report at all (`hello`, `tunnel_failed`) are `None` too: they are dealt with before.
pub(crate) fn report(message: FromAgent) -> Option<ReportKind> {
    match message {
        FromAgent::Heartbeat(heartbeat) => Some(ReportKind::Heartbeat(heartbeat)),
        FromAgent::Pong(_) => Some(ReportKind::Alive),
        FromAgent::Ack(ack) => CommandId::from_wire(&ack.command_id).map(ReportKind::Ack),
        FromAgent::Complete(done) => CommandId::from_wire(&done.command_id)
            .map(|command| ReportKind::Complete { command, result: done.result }),
        FromAgent::Failed(failed) => CommandId::from_wire(&failed.command_id)
            .map(|command| ReportKind::Failed { command, error: failed.error }),
        FromAgent::Status(status) => Some(status_report(status)),
        FromAgent::Hello(_) | FromAgent::TunnelFailed(_) => None,
    }
}

fn status_report(status: StatusMessage) -> ReportKind {
    let Ok(session_id) = status.session_id.parse() else {
        return ReportKind::UnknownSession { session_id: status.session_id, state: status.state };
    };
    ReportKind::Status(AgentStatusUpdate {
        session_id,
        state: status.state,
        generation: status.generation,
        streaming_ready: status.streaming_ready,
        streaming_port: status.streaming_port,
        platform_metadata: status.platform_metadata,
        reason: status.reason,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_model::{SessionId, SessionState};
    use tidegate_protocol::{AckMessage, PongMessage};

    use super::*;
    use crate::CloseCode;

    fn text(text: &str) -> Frame {
        Frame::Text(text.into())
    }

    #[test]
    fn ten_undecodable_frames_in_a_row_end_the_connection() {
        let mut reader = Reader::default();
        for bad in ["{", r#"{"type":"ack","payload":{}}"#, "[]", "", "null", "7", "\"x\"", "{}", "}"] {
            assert_eq!(reader.judge(text(bad)), Verdict::Undecodable, "{bad}");
        }
        assert_eq!(reader.judge(text("{")), Verdict::Close(CloseReason::Undecodable));
    }

    #[test]
    fn a_readable_frame_begins_the_count_of_undecodable_ones_anew() {
        let mut reader = Reader::default();
        for good in [r#"{"type":"pong"}"#, r#"{"type":"brandnew"}"#] {
            for _ in 0..9 {
                assert_eq!(reader.judge(text("{")), Verdict::Undecodable);
            }
            assert!(!matches!(reader.judge(text(good)), Verdict::Close(_)), "{good}");
        }
        assert_eq!(reader.judge(text("{")), Verdict::Undecodable);
    }

    #[test]
    fn unknown_types_are_skipped_without_end() {
        let mut reader = Reader::default();
        for _ in 0..100 {
            assert_eq!(reader.judge(text(r#"{"type":"command"}"#)), Verdict::Unknown);
        }
    }

    #[test]
    fn a_frame_that_is_too_large_or_binary_ends_the_connection() {
        let mut reader = Reader::default();
        let large = " ".repeat(MAX_FRAME_BYTES + 1);
        assert_eq!(reader.judge(text(&large)), Verdict::Close(CloseReason::TooLarge));
        let binary = Frame::Binary(Bytes::from_static(b"bytes"));
        assert_eq!(reader.judge(binary), Verdict::Close(CloseReason::Binary));
        let left = Frame::Close(CloseCode::NORMAL, "".into());
        assert_eq!(reader.judge(left), Verdict::Close(CloseReason::Left));
    }

    #[test]
    fn a_command_id_that_cannot_be_ours_is_no_report() {
        let ack = |id: &str| FromAgent::Ack(AckMessage { command_id: id.into() });
        let id = CommandId::new();
        assert!(matches!(report(ack(&id.to_wire())), Some(ReportKind::Ack(command)) if command == id));
        assert!(report(ack("cmd-7")).is_none());
        assert!(report(ack("")).is_none());
    }

    #[test]
    fn a_status_of_a_session_without_a_uuid_is_a_session_nobody_knows() {
        let status = |id: &str| {
            let frame = format!(r#"{{"type":"status","payload":{{"sessionId":"{id}","state":"running"}}}}"#);
            let Verdict::Message(message) = Reader::default().judge(text(&frame)) else {
                panic!("a message")
            };
            report(message).unwrap()
        };
        assert!(matches!(status("sess-1"), ReportKind::UnknownSession { session_id, state }
            if session_id == "sess-1" && state == SessionState::Running));
        let id = SessionId::new();
        assert!(matches!(status(&id.to_string()), ReportKind::Status(update)
            if update.session_id == id && update.streaming_ready.is_none()));
        assert!(matches!(report(FromAgent::Pong(PongMessage::default())), Some(ReportKind::Alive)));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(frames in proptest::collection::vec(".{0,40}", 0..30)) {
            let mut reader = Reader::default();
            for frame in frames {
                let _ = reader.judge(text(&frame));
            }
        }
    }
}
