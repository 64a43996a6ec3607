//! What agent and shim say to each other over the session's Unix socket: one request, then frames.
//!
//! A frame is one byte for its kind, its length as four big-endian bytes, and its bytes.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tidegate_model::StreamMode;
use tokio_util::codec::{Decoder, Encoder};

use crate::{StreamFrame, platform::Exit};

/// Bytes of output in one frame; more would delay what stands behind it, less would cost throughput.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Longest frame taken.
const MAX_FRAME: usize = 1024 * 1024;
const HEADER: usize = 5;

/// First frame of every connection to a shim, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Say that the session lives, then when it ended.
    Watch,
    /// End it: ask politely, kill after the grace. Answered like `Watch`.
    Stop {
        /// How long the program may take to end by itself.
        grace_ms: u64,
    },
    /// The terminal: bytes and terminal frames both ways.
    Terminal {
        /// What the viewer may do.
        mode: StreamMode,
    },
    /// What was printed, one way.
    Logs {
        /// Bytes to leave out, counted from the first.
        after: u64,
        /// Whether to stay until the program ends.
        follow: bool,
    },
}

/// What a watcher hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Report {
    /// The session lives.
    Running,
    /// It has ended and its viewers have everything.
    Ended(Exit),
}

/// Frames over a byte stream.
#[derive(Debug, Default)]
pub(crate) struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = StreamFrame;
    type Error = io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> io::Result<Option<StreamFrame>> {
        if source.len() < HEADER {
            return Ok(None);
        }
        let kind = source[0];
        let length = u32::from_be_bytes([source[1], source[2], source[3], source[4]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame is longer than 1 MiB"));
        }
        if source.len() < HEADER + length {
            source.reserve(HEADER + length - source.len());
            return Ok(None);
        }
        source.advance(HEADER);
        let payload = source.split_to(length).freeze();
        match kind {
            0 => Ok(Some(StreamFrame::Bytes(payload))),
            1 => String::from_utf8(payload.into())
                .map(|text| Some(StreamFrame::Text(text)))
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "text frame is not UTF-8")),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "unknown kind of frame")),
        }
    }
}

impl Encoder<StreamFrame> for FrameCodec {
    type Error = io::Error;

    fn encode(&mut self, frame: StreamFrame, target: &mut BytesMut) -> io::Result<()> {
        let (kind, payload) = match frame {
            StreamFrame::Bytes(bytes) => (0, bytes),
            StreamFrame::Text(text) => (1, Bytes::from(text)),
        };
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= MAX_FRAME)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "frame is longer than 1 MiB"))?;
        target.reserve(HEADER + payload.len());
        target.put_u8(kind);
        target.put_u32(length);
        target.put_slice(&payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let frames = [
            StreamFrame::Bytes(Bytes::from_static(b"\x00\xff")),
            StreamFrame::Text("{}".into()),
            StreamFrame::Bytes(Bytes::new()),
        ];
        let mut wire = BytesMut::new();
        for frame in &frames {
            FrameCodec.encode(frame.clone(), &mut wire).unwrap();
        }
        let (mut source, mut read) = (BytesMut::new(), Vec::new());
        for byte in wire {
            source.put_u8(byte);
            read.extend(FrameCodec.decode(&mut source).unwrap());
        }
        assert_eq!(read, frames);
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_is_kept() {
        let mut source = BytesMut::from(&[0, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(FrameCodec.decode(&mut source).is_err());
    }
}
