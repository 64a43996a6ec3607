//! The agent's side of a shim's socket, and the streams of sessions whose shim is gone.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

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

use super::{hold, text_of};
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

/// A stream of logs whose end is the end of the log. A shim says the exit where there is one; without it the reader has
/// caught up with a program that runs, and so its shim lives. One that was killed ended nothing: that is an error.
pub(crate) fn whole(stream: SessionStream, hold: PathBuf) -> SessionStream {
    let SessionStream { output, input } = stream;
    let read = stream::unfold((output, Some(hold), false), |(mut output, hold, ended)| async move {
        let hold = hold?;
        match output.next().await {
            Some(Ok(frame)) => {
                let ended = text_of(&frame).is_some_and(is_exit);
                Some((Ok(frame), (output, Some(hold), ended)))
            }
            Some(Err(error)) => Some((Err(error), (output, None, ended))),
            None if ended || hold::is_taken(&hold) => None,
            None => Some((Err(io::ErrorKind::UnexpectedEof.into()), (output, None, ended))),
        }
    });
    SessionStream { output: Box::pin(read), input }
}

fn is_exit(text: &str) -> bool {
    matches!(TerminalFrame::decode(text), Some(TerminalFrame::Exit { .. }))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a log of these frames came to its end.
    async fn comes_to_its_end(frames: Vec<StreamFrame>, hold: &Path) -> bool {
        let stream = SessionStream {
            output: Box::pin(stream::iter(frames.into_iter().map(Ok))),
            input: Box::pin(sink::drain().sink_map_err(|never| match never {})),
        };
        let read: Vec<_> = whole(stream, hold.to_owned()).output.collect().await;
        assert!(matches!(read[0], Ok(StreamFrame::Bytes(_))), "what came is given in any case");
        read.iter().all(Result::is_ok)
    }

    #[tokio::test]
    async fn a_log_that_a_killed_shim_broke_off_is_no_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = hold::path(folder.path(), &SessionKey::new("s-1", 1).unwrap());
        let printed = || StreamFrame::Bytes(Bytes::from_static(b"printed"));
        let exit = StreamFrame::Text(TerminalFrame::Exit { code: 0, signal: None }.encode());
        let lives = hold::take(&path).unwrap().unwrap();
        assert!(comes_to_its_end(vec![printed()], &path).await, "the program runs, and the reader caught up");
        drop(lives);
        assert!(!comes_to_its_end(vec![printed()], &path).await);
        assert!(comes_to_its_end(vec![printed(), exit], &path).await, "the session has ended");
    }
}
