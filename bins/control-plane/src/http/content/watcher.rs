//! The frames of a WebSocket (RFC 6455) whose viewer may only watch: what keeps it open goes on, what says something does
//! not. Read and written by the library that serves WebSockets; nothing is kept of what is dropped.

use actix_http::ws::{OpCode, Parser};
use bytes::{Bytes, BytesMut};

/// Longest frame of somebody who has nothing to say.
const LONGEST: usize = 64 * 1024;

/// The viewer's side of one WebSocket.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    waiting: BytesMut,
}

impl Watcher {
    /// What of these bytes goes on; an error where they are no frames, or one is too long.
    pub(super) fn take(&mut self, bytes: &Bytes) -> Result<Bytes, ()> {
        self.waiting.extend_from_slice(bytes);
        let mut kept = BytesMut::new();
        loop {
            match Parser::parse(&mut self.waiting, true, LONGEST) {
                Ok(Some((finished, code, payload))) => {
                    let payload = payload.unwrap_or_default();
                    if matches!(code, OpCode::Ping | OpCode::Pong | OpCode::Close) {
                        Parser::write_message(&mut kept, payload, code, finished, true);
                    }
                }
                Ok(None) => break,
                Err(_) => return Err(()),
            }
        }
        // A frame's head says how long it is before it is here.
        if self.waiting.len() > 2 * LONGEST { Err(()) } else { Ok(kept.freeze()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(code: OpCode, text: &str) -> BytesMut {
        let mut wire = BytesMut::new();
        Parser::write_message(&mut wire, text, code, true, true);
        wire
    }

    #[test]
    fn what_keeps_it_open_goes_on_and_nothing_that_is_said() {
        let mut said = BytesMut::new();
        for (code, text) in
            [(OpCode::Text, "typed"), (OpCode::Ping, "p"), (OpCode::Binary, "clicked"), (OpCode::Close, "")]
        {
            said.extend_from_slice(&frame(code, text));
        }
        for pieces in [1, 3, said.len()] {
            let (mut watcher, mut kept) = (Watcher::default(), BytesMut::new());
            for piece in said.chunks(pieces) {
                kept.extend_from_slice(&watcher.take(&Bytes::copy_from_slice(piece)).unwrap());
            }
            let mut codes = Vec::new();
            while let Some((_, code, _)) = Parser::parse(&mut kept, true, LONGEST).unwrap() {
                codes.push(code);
            }
            assert_eq!(codes, [OpCode::Ping, OpCode::Close]);
        }
    }

    #[test]
    fn what_is_no_frame_ends_it() {
        let mut watcher = Watcher::default();
        let unmasked = Bytes::from_static(&[0x81, 0x01, b'x']);
        assert!(watcher.take(&unmasked).is_err());
    }
}
