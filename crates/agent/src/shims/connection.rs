//! The agent's side of a shim's socket, and the streams of sessions whose shim is gone.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, sink, stream};
use tidegate_model::StreamMode;
use tidegate_protocol::TerminalFrame;
use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::text_of;
use crate::{
    Error, SessionKey, SessionStream, StreamFrame, StreamRequest,
    shim::{
        files as remains,
        wire::{CHUNK, FrameCodec, Report, Request},
    },
};

/// How long a shim that has taken the connection may be silent.
pub(crate) const FIRST_FRAME: Duration = Duration::from_secs(10);

pub(crate) type Connection = (FramedRead<OwnedReadHalf, FrameCodec>, FramedWrite<OwnedWriteHalf, FrameCodec>);

/// Connects to a shim and says what is wanted.
pub(crate) async fn connect(socket: &Path, request: &Request) -> io::Result<Connection> {
    let (reader, writer) = UnixStream::connect(socket).await?.into_split();
    let reader = FramedRead::with_capacity(reader, FrameCodec, 2 * CHUNK);
    let mut writer = FramedWrite::new(writer, FrameCodec);
    writer.send(StreamFrame::Text(serde_json::to_string(request)?)).await?;
    Ok((reader, writer))
}

/// Opens a stream. A shim says something at once; one that ends instead, while it is being asked, is an error.
pub(crate) async fn attach(socket: &Path, request: &Request) -> io::Result<SessionStream> {
    let (mut output, input) = connect(socket, request).await?;
    let first = timeout(FIRST_FRAME, output.next()).await?.ok_or(io::ErrorKind::UnexpectedEof)??;
    let output = stream::iter([Ok(first)]).chain(output);
    Ok(SessionStream { output: Box::pin(output), input: Box::pin(input) })
}

/// A shim's report, if that is what came.
pub(crate) fn report(frame: Option<io::Result<StreamFrame>>) -> Option<Report> {
    serde_json::from_str(text_of(&frame?.ok()?)?).ok()
}

/// The stream of a session that ended: what was kept of its output, and its exit.
pub(crate) async fn replay(
    folder: &Path,
    key: &SessionKey,
    request: StreamRequest,
) -> Result<SessionStream, Error> {
    let exit = remains::read_exit(folder, key.generation)?
        .ok_or_else(|| Error::Refused(format!("session {} does not run on this agent", key.session_id)))?;
    let path = remains::output_path(folder, key.generation);
    let kept = tokio::fs::read(&path).await.map_err(Error::file("read", &path))?;
    let after = match request {
        StreamRequest::Terminal(_) | StreamRequest::Stream | StreamRequest::Port(_) => 0,
        StreamRequest::Logs { after, .. } => after,
    };
    let skip = usize::try_from(after.saturating_sub(exit.output_start)).unwrap_or(usize::MAX).min(kept.len());
    let kept = Bytes::from(kept).slice(skip..);
    let mut frames = Vec::new();
    if matches!(request, StreamRequest::Terminal(_)) {
        let mode = TerminalFrame::Mode { mode: StreamMode::View };
        frames.push(StreamFrame::Text(mode.encode()));
    } else {
        let offset = exit.output_start.saturating_add(u64::try_from(skip).unwrap_or(u64::MAX));
        frames.push(StreamFrame::Text(TerminalFrame::Offset { offset }.encode()));
    }
    frames.extend(
        (0..kept.len())
            .step_by(CHUNK)
            .map(|at| StreamFrame::Bytes(kept.slice(at..kept.len().min(at + CHUNK)))),
    );
    let exit = TerminalFrame::Exit { code: exit.code, signal: exit.signal };
    frames.push(StreamFrame::Text(exit.encode()));
    Ok(SessionStream {
        output: Box::pin(stream::iter(frames.into_iter().map(Ok))),
        // Nobody is left to type to.
        input: Box::pin(sink::drain().sink_map_err(|never| match never {})),
    })
}
