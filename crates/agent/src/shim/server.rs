//! The shim's side of the socket: watchers, terminals, readers of logs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use nix::unistd::Uid;
use tidegate_model::StreamMode;
use tidegate_protocol::TerminalFrame;
use tokio::{
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::{
    codec::{FramedRead, FramedWrite},
    task::TaskTracker,
};

use super::{
    output::{Next, Output},
    terminal::Terminal,
    wire::{FrameCodec, Report, Request},
};
use crate::{StreamFrame, platform::Exit};

/// Connections at one time; more are closed at once.
const CONNECTIONS: usize = 256;
/// How long the agent is kept waiting for the end while viewers still fetch the last bytes.
const VIEWERS_FIRST: Duration = Duration::from_secs(5);
/// How long the shim stays for viewers that are slower than that.
const LAST_VIEWERS: Duration = Duration::from_mins(10);

type Reader = FramedRead<OwnedReadHalf, FrameCodec>;
type Writer = FramedWrite<OwnedWriteHalf, FrameCodec>;

/// What all connections share.
pub(super) struct Server {
    output: Arc<Output>,
    terminal: Terminal,
    connections: TaskTracker,
    open: AtomicUsize,
    stop: mpsc::Sender<Duration>,
    stops: std::sync::Mutex<Option<mpsc::Receiver<Duration>>>,
    told: watch::Sender<Option<Exit>>,
}

impl Server {
    pub(super) fn new(output: Arc<Output>, terminal: Terminal) -> Arc<Self> {
        // One stop is enough: a second one while the first is carried out is the same wish.
        let (stop, stops) = mpsc::channel(1);
        Arc::new(Self {
            output,
            terminal,
            connections: TaskTracker::new(),
            open: AtomicUsize::new(0),
            stop,
            stops: std::sync::Mutex::new(Some(stops)),
            told: watch::Sender::new(None),
        })
    }

    /// Wishes to stop, each with its grace. There is one receiver.
    pub(super) fn stop_requests(&self) -> mpsc::Receiver<Duration> {
        let taken = self.stops.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        taken.unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Takes connections until aborted.
    pub(super) async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors: some will be closed.
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let peer = stream.peer_cred().map(|peer| peer.uid());
            let ours = peer.is_ok_and(|uid| uid == 0 || uid == Uid::effective().as_raw());
            if ours && self.open.load(Ordering::Relaxed) < CONNECTIONS {
                let server = Arc::clone(&self);
                server.open.fetch_add(1, Ordering::Relaxed);
                self.connections.spawn(async move {
                    // A broken connection is the agent's to notice: it opened it.
                    let _ = server.answer(stream).await;
                    server.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }

    /// The session ended: tells the watchers once the viewers have everything, and waits for all to go. Connections are
    /// taken meanwhile; those that came last are waited for by [`Server::rest`].
    pub(super) async fn end(&self, exit: Exit) {
        let mut changes = self.output.changes();
        let _ = timeout(VIEWERS_FIRST, async {
            while self.output.has_readers() {
                let _ = changes.changed().await;
            }
        })
        .await;
        self.told.send_replace(Some(exit));
        self.connections.close();
        self.rest().await;
    }

    /// Waits until nobody is answered any more. Whoever asks after that finds no shim, and reads what it left.
    pub(super) async fn rest(&self) {
        let _ = timeout(LAST_VIEWERS, self.connections.wait()).await;
    }

    async fn answer(&self, stream: UnixStream) -> std::io::Result<()> {
        let (reader, writer) = stream.into_split();
        let mut reader = FramedRead::new(reader, FrameCodec);
        let writer = FramedWrite::new(writer, FrameCodec);
        let Some(StreamFrame::Text(text)) = reader.next().await.transpose()? else { return Ok(()) };
        match serde_json::from_str(&text)? {
            Request::Watch => self.watch(reader, writer).await,
            Request::Stop { grace_ms } => {
                let _ = self.stop.try_send(Duration::from_millis(grace_ms));
                self.watch(reader, writer).await
            }
            Request::Terminal { mode } => self.terminal(reader, writer, mode).await,
            Request::Logs { after, follow } => self.logs(reader, writer, after, follow).await,
        }
    }

    async fn watch(&self, mut reader: Reader, mut writer: Writer) -> std::io::Result<()> {
        let mut told = self.told.subscribe();
        let running = serde_json::to_string(&Report::Running)?;
        writer.send(StreamFrame::Text(running)).await?;
        let exit = tokio::select! {
            exit = told.wait_for(Option::is_some) => exit.ok().and_then(|exit| exit.clone()),
            // Watchers say nothing more: anything here is their end.
            _ = reader.next() => None,
        };
        match exit {
            Some(exit) => writer.send(StreamFrame::Text(serde_json::to_string(&Report::Ended(exit))?)).await,
            None => Ok(()),
        }
    }

    async fn terminal(
        &self,
        mut reader: Reader,
        mut writer: Writer,
        mode: StreamMode,
    ) -> std::io::Result<()> {
        writer.send(StreamFrame::Text(TerminalFrame::Mode { mode }.encode())).await?;
        let id = self.output.attach_terminal();
        let result = tokio::select! {
            result = self.pump(id, &mut writer, Stay::UntilEnd, Told::Nothing) => result,
            result = self.take_input(id, &mut reader, mode) => result,
        };
        self.output.detach(id);
        self.terminal.leave(id, &self.output);
        result
    }

    async fn logs(
        &self,
        mut reader: Reader,
        mut writer: Writer,
        after: u64,
        follow: bool,
    ) -> std::io::Result<()> {
        let (id, offset) = self.output.attach_logs(after);
        let stay = if follow { Stay::UntilEnd } else { Stay::UntilCaughtUp };
        let printed = async {
            writer.send(StreamFrame::Text(TerminalFrame::Offset { offset }.encode())).await?;
            self.pump(id, &mut writer, stay, Told::Everything(None)).await
        };
        let result = tokio::select! {
            result = printed => result,
            result = self.take_input(id, &mut reader, StreamMode::View) => result,
        };
        self.output.detach(id);
        result
    }

    /// Output to one reader, until there is no more.
    async fn pump(&self, id: u64, writer: &mut Writer, stay: Stay, mut told: Told) -> std::io::Result<()> {
        let mut changes = self.output.changes();
        loop {
            changes.mark_unchanged();
            if let Told::Everything(size) = &mut told {
                let now = self.output.size();
                if size.replace(now) != Some(now) {
                    let frame = TerminalFrame::Resize { cols: now.0, rows: now.1 };
                    writer.send(StreamFrame::Text(frame.encode())).await?;
                }
            }
            match self.output.next(id) {
                Next::Bytes(bytes) => {
                    if let Some(offset) = self.output.skipped_to(id) {
                        let frame = TerminalFrame::Offset { offset };
                        writer.send(StreamFrame::Text(frame.encode())).await?;
                    }
                    writer.send(StreamFrame::Bytes(bytes)).await?;
                }
                Next::End(Exit { code, signal, .. }) => {
                    let frame = TerminalFrame::Exit { code, signal };
                    return writer.send(StreamFrame::Text(frame.encode())).await;
                }
                Next::Wait if stay == Stay::UntilCaughtUp => return Ok(()),
                Next::Wait => {
                    if changes.changed().await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// What a viewer sends, until it goes. Only those who control may type or resize.
    async fn take_input(&self, id: u64, reader: &mut Reader, mode: StreamMode) -> std::io::Result<()> {
        while let Some(frame) = reader.next().await.transpose()? {
            match frame {
                _ if mode != StreamMode::Control => {}
                StreamFrame::Bytes(bytes) => self.terminal.type_for(id, bytes, &self.output).await,
                StreamFrame::Text(text) => {
                    if let Some(TerminalFrame::Resize { cols, rows }) = TerminalFrame::decode(&text) {
                        self.terminal.resize(id, cols, rows, &self.output);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a reader hears beside the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nothing: it set the size itself, and gets a repaint for what it missed.
    Nothing,
    /// The terminal's size, whenever it is another one than it heard last, and where bytes are missing.
    Everything(Option<(u16, u16)>),
}

/// How long a reader stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    UntilEnd,
    UntilCaughtUp,
}
