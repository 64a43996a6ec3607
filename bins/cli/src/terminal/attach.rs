//! Attaching: the terminal here and the session's are one until the program ends, the person leaves, or the session is
//! no longer there. A lost connection is opened again.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tidegate_client::{Client, CloseReason, Error, StatusCode, TerminalEvent, TerminalInput, TerminalStream};
use tidegate_model::{Session, SessionId, SessionState, StreamMode, TerminalSize};
use tidegate_protocol::TerminalFrame;
use tokio::sync::mpsc;

use super::{keyboard::Keyboard, raw::RawTerminal, window_size};
use crate::{
    args::DetachKeys,
    signals::{Signals, Window, WindowEvent},
};

/// How long a lost session is looked for.
const PATIENCE: Duration = Duration::from_mins(10);
/// The shortest and the longest wait between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How to attach.
#[derive(Debug)]
pub(crate) struct Viewer<'a> {
    pub(crate) id: SessionId,
    pub(crate) name: &'a str,
    pub(crate) mode: StreamMode,
    pub(crate) keys: &'a DetachKeys,
}

/// How the session was left.
#[derive(Debug)]
pub(crate) enum Left {
    /// Its program ended with this code.
    Exited(i32),
    /// The person left; it goes on.
    Detached,
    /// This program was told to end; the session goes on.
    Signal(i32),
    /// It is in a state that shows no terminal.
    Ended(Box<Session>),
}

/// How one connection ended.
enum End {
    Left(Left),
    Closed(CloseReason),
}

/// Attaches until the session is left.
pub(crate) async fn attach(client: &Client, viewer: &Viewer<'_>) -> anyhow::Result<Left> {
    let mut signals = Signals::new()?;
    // The first connection is made before the terminal is touched: what refuses it is said plainly.
    let first = tokio::select! {
        first = open(client, viewer) => first?,
        signal = signals.next() => return Ok(Left::Signal(signal)),
    };
    let mut stream = match first {
        Opened::Stream(stream) => stream,
        Opened::Left(left) => return Ok(left),
    };
    let mut here = Here {
        terminal: RawTerminal::enter()?,
        keyboard: Keyboard::start(super::is_interactive().then_some(viewer.keys))?,
        window: Window::new()?,
        signals,
    };
    loop {
        let reason = match here.pump(stream).await? {
            End::Left(left) => return Ok(left),
            End::Closed(reason) => reason,
        };
        here.terminal.calm();
        if !reason.may_reattach() {
            return after_close(client, viewer, &reason).await;
        }
        here.terminal.note(&format!(
            "the connection to {} was lost, attaching again; {} leaves",
            viewer.name, viewer.keys
        ));
        stream = match here.reopen(client, viewer).await? {
            Opened::Stream(stream) => stream,
            Opened::Left(left) => return Ok(left),
        };
        here.terminal.note("attached again");
    }
}

/// What a stream that is over for good means: the program's end where the session says so.
async fn after_close(client: &Client, viewer: &Viewer<'_>, reason: &CloseReason) -> anyhow::Result<Left> {
    let session = client.session(viewer.id).await?;
    if reason.code == CloseReason::NORMAL || session.state != SessionState::Running {
        return Ok(Left::Ended(Box::new(session)));
    }
    anyhow::bail!(
        "the control plane closed the terminal of {} ({}: {})",
        viewer.name,
        reason.code,
        reason.reason
    )
}

/// What came of opening the terminal.
enum Opened {
    Stream(Box<TerminalStream>),
    Left(Left),
}

/// Opens the terminal, waiting for a session that is on its way to run.
async fn open(client: &Client, viewer: &Viewer<'_>) -> Result<Opened, Error> {
    use SessionState::{Pending, Running, Waking};
    let mut once_more = true;
    loop {
        let refusal = match client.terminal(viewer.id, viewer.mode).await {
            Ok(stream) => return Ok(Opened::Stream(Box::new(stream))),
            Err(error) if error.status() == Some(StatusCode::CONFLICT) => error,
            Err(error) => return Err(error),
        };
        let session = client.session(viewer.id).await?;
        match session.state {
            Pending | Waking => {
                let coming = |now: &Session| !matches!(now.state, Pending | Waking);
                client.wait_for(viewer.id, coming, |_| {}).await?;
            }
            // It began to run between the refusal and the question.
            Running if once_more => once_more = false,
            Running => return Err(refusal),
            _ => return Ok(Opened::Left(Left::Ended(Box::new(session)))),
        }
    }
}

/// Everything on this side of the connection; it outlives connections.
struct Here {
    terminal: RawTerminal,
    keyboard: Keyboard,
    window: Window,
    signals: Signals,
}

impl Here {
    /// Opens the terminal again, with growing waits, as long as the session may still be there.
    async fn reopen(&mut self, client: &Client, viewer: &Viewer<'_>) -> anyhow::Result<Opened> {
        let trying = async {
            let began = Instant::now();
            let mut wait = WAITS.0;
            loop {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(WAITS.1);
                match open(client, viewer).await {
                    Ok(opened) => return Ok(opened),
                    // A session whose agent just came back may be refused for a moment.
                    Err(error)
                        if began.elapsed() < PATIENCE
                            && (error.is_passing() || error.status() == Some(StatusCode::CONFLICT)) => {}
                    Err(error) => return Err(anyhow::Error::new(error)),
                }
            }
        };
        tokio::select! {
            reopened = trying => reopened,
            () = self.keyboard.detached() => Ok(Opened::Left(Left::Detached)),
            signal = self.signals.next() => Ok(Opened::Left(Left::Signal(signal))),
        }
    }

    /// Carries bytes both ways until the connection ends or the session is left. Nothing here waits for anything
    /// else: a screen that takes no more bytes stops neither keys nor signals.
    async fn pump(&mut self, stream: Box<TerminalStream>) -> anyhow::Result<End> {
        let Self { terminal, keyboard, window, signals } = self;
        let (sink, source) = stream.split();
        // One place: a second call to renew the terminal says nothing that the first did not.
        let (renew, renewals) = mpsc::channel(1);
        let detached = keyboard.detached();
        tokio::select! {
            end = show(source, terminal, renewals) => end,
            // The output's end tells why the connection broke; the input's would only say that it did.
            never = say(sink, keyboard, window, renew) => match never {},
            () = detached => Ok(End::Left(Left::Detached)),
            signal = signals.next() => Ok(End::Left(Left::Signal(signal))),
        }
    }
}

/// Carries the session's bytes to the screen until the connection ends.
async fn show(
    mut source: SplitStream<Box<TerminalStream>>,
    terminal: &mut RawTerminal,
    mut renewals: mpsc::Receiver<()>,
) -> anyhow::Result<End> {
    let mut exit = None;
    loop {
        let event = tokio::select! {
            event = source.next() => event,
            Some(()) = renewals.recv() => {
                terminal.renew();
                continue;
            }
        };
        match event {
            Some(Ok(TerminalEvent::Bytes(bytes))) => terminal.show(bytes).await?,
            Some(Ok(TerminalEvent::Frame(TerminalFrame::Exit { code, .. }))) => exit = Some(code),
            Some(Ok(TerminalEvent::Frame(_))) => {}
            Some(Ok(TerminalEvent::Closed(reason))) => return Ok(ended(exit, reason)),
            Some(Err(Error::Stream(error))) => return Ok(ended(exit, lost(error.to_string()))),
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(ended(exit, lost(String::new()))),
        }
    }
}

/// Carries what is typed, and the window's size, to the session; never ends by itself.
async fn say(
    mut sink: SplitSink<Box<TerminalStream>, TerminalInput>,
    keyboard: &mut Keyboard,
    window: &mut Window,
    renew: mpsc::Sender<()>,
) -> Infallible {
    let mut said = said_size();
    loop {
        if let Some(said) = said
            && sink.send(said).await.is_err()
        {
            return std::future::pending().await;
        }
        said = tokio::select! {
            typed = keyboard.next() => Some(TerminalInput::Bytes(typed)),
            event = window.next() => {
                if event == WindowEvent::Resumed {
                    let _ = renew.try_send(());
                }
                said_size()
            }
        };
    }
}

fn ended(exit: Option<i32>, reason: CloseReason) -> End {
    exit.map_or(End::Closed(reason), |code| End::Left(Left::Exited(code)))
}

fn lost(reason: String) -> CloseReason {
    CloseReason { code: CloseReason::LOST, reason }
}

/// The size of the window here, as it is said.
fn said_size() -> Option<TerminalInput> {
    let TerminalSize { cols, rows } = window_size()?;
    Some(TerminalInput::Frame(TerminalFrame::Resize { cols, rows }))
}
