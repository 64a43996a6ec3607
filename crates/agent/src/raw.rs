//! Streams of plain bytes: a desktop's, a web application's, a port's.

use std::io;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::{
    codec::{BytesCodec, FramedWrite},
    io::ReaderStream,
};

use crate::{SessionStream, StreamFrame};

/// Bytes of one frame; more would delay what stands behind it, less would cost throughput.
const CHUNK: usize = 64 * 1024;

/// The stream that a connection is. Text frames mean nothing to it and are left out.
pub(crate) fn stream<R, W>(reader: R, writer: W) -> SessionStream
where
    R: AsyncRead + Send + 'static,
    W: AsyncWrite + Send + 'static,
{
    let output = ReaderStream::with_capacity(reader, CHUNK).map(|bytes| bytes.map(StreamFrame::Bytes));
    let mut codec = FramedWrite::new(writer, BytesCodec::new());
    // What is on its way is bounded: a program that does not read stops its viewer.
    codec.set_backpressure_boundary(CHUNK);
    let input = Box::pin(codec).with(async |frame: StreamFrame| -> io::Result<Bytes> {
        Ok(match frame {
            StreamFrame::Bytes(bytes) => bytes,
            StreamFrame::Text(_) => Bytes::new(),
        })
    });
    SessionStream { output: Box::pin(output), input: Box::pin(input) }
}
