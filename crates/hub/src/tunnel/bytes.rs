//! The viewer's end of a tunnel as a stream of plain bytes, for those who speak a protocol of their own through it.

use std::{io, pin::pin};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio_util::{
    codec::{BytesCodec, FramedWrite},
    io::ReaderStream,
};

use super::{TunnelEnd, TunnelEnding, relay};
use crate::{Frame, TransportError};

/// Bytes that may wait between the tunnel and whoever speaks through it.
const WAITING: usize = 256 * 1024;
/// Bytes of one frame.
const CHUNK: usize = 64 * 1024;

/// The bytes of a tunnel, and what moves them: it has to run as long as the bytes are wanted. Dropping the bytes ends the
/// tunnel; a tunnel that ends is their end.
pub fn plain(end: TunnelEnd) -> (DuplexStream, impl Future<Output = TunnelEnding>) {
    let (ours, theirs) = tokio::io::duplex(WAITING);
    let moves = async move {
        let (reader, writer) = tokio::io::split(theirs);
        let inbound = ReaderStream::with_capacity(reader, CHUNK).map(|bytes| match bytes {
            Ok(bytes) => Ok(Frame::Binary(bytes)),
            Err(error) => Err(TransportError::Lost(Some(error))),
        });
        let mut codec = FramedWrite::new(writer, BytesCodec::new());
        codec.set_backpressure_boundary(CHUNK);
        let outbound = codec.with(async |frame: Frame| -> io::Result<Bytes> {
            Ok(match frame {
                Frame::Binary(bytes) => bytes,
                Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Close(..) => Bytes::new(),
            })
        });
        relay(pin!(inbound), pin!(outbound), end).await
    };
    (ours, moves)
}
