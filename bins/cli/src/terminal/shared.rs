//! Sharing: a program on a terminal here, whose bytes go to this screen and to a pipe, and which hears this keyboard and
//! another pipe. The pipes may be away for as long as they like: the program goes on.

use std::{
    convert::Infallible,
    ffi::OsString,
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use tidegate_client::{
    Client, Error, Followed, IdempotencyKey, LostAnswer, MessageToSend, PipeFlow, PipeFollower, PipeFrom,
    PipeWriter, PipeWriting,
};
use tidegate_model::{
    Handle, Payload, STDCTRL, STDIN, STDOUT, TerminalBegin, TerminalControl, TerminalSize, UserId,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    keyboard::Keyboard,
    own::{OwnTerminal, OwnWindow},
    raw::RawTerminal,
    window_size,
};
use crate::signals::{Signals, Window, WindowEvent};

/// The size of a terminal whose share has no window.
const USUAL: TerminalSize = TerminalSize { cols: 80, rows: 24 };
/// For how long the pipes are asked for before anything is shared.
const PATIENCE: Duration = Duration::from_secs(30);
/// The wait between two of those tries.
const AGAIN: Duration = Duration::from_millis(500);
/// How long nothing comes from a terminal whose program has ended before it is left: others may have it open for ever.
const QUIET: Duration = Duration::from_millis(300);
/// How long a program that was told to end may take.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the rest of the output is sent at the end, and when people are told of it.
const REST: (Duration, Duration) = (Duration::from_mins(5), Duration::from_secs(2));
/// How long output waits before people are told.
const TOLD_AFTER: Duration = Duration::from_secs(3);
/// Words beside the output that wait to be said.
const ASIDES: usize = 16;

/// What is shared.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    pub(crate) handle: &'a Handle,
    /// Whose source it is: another share of theirs takes its place.
    pub(crate) owner: UserId,
    pub(crate) argv: Vec<OsString>,
}

/// How a share ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShareEnd {
    /// The program's exit code.
    pub(crate) code: i32,
    /// The signal that this program was told to end by.
    pub(crate) signal: Option<i32>,
    /// Whether everything that the program wrote is stored.
    pub(crate) whole: bool,
}

/// Something beside the output.
enum Aside {
    /// The terminal is to be made raw again.
    Renew,
    Note(String),
    /// The program's terminal has another size.
    Size(TerminalSize),
    /// Another share of the same source began.
    Replaced,
}

/// Shares a program's terminal until the program ends.
pub(crate) async fn share(client: &Client, share: Share<'_>) -> anyhow::Result<ShareEnd> {
    let Share { handle, owner, argv } = share;
    let size = window_size().unwrap_or(USUAL);
    let mut signals = Signals::new()?;
    let places = tokio::select! {
        places = begin(client, handle, size) => places?,
        signal = signals.next() => return Ok(ShareEnd { code: 128 + signal, signal: Some(signal), whole: true }),
    };
    let OwnTerminal { mut output, input, window: own, exit, mut killer } =
        match OwnTerminal::start(argv, size) {
            Ok(program) => program,
            Err(error) => {
                announce(client, handle, &[STDOUT, STDCTRL], &TerminalControl::End { exit_code: None })
                    .await
                    .ok();
                return Err(error);
            }
        };
    let mut outlet = Outlet::open(client, handle, places.output);
    let mut terminal = RawTerminal::enter()?;
    let mut keyboard = Keyboard::start(None)?;
    let window = Window::new()?;
    let (say, mut asides) = mpsc::channel(ASIDES);
    let typed = client.follow_pipe(handle, STDIN, PipeFrom::After(places.input));
    let sizes = client.follow_pipe(handle, STDCTRL, PipeFrom::After(places.control));
    let hearing = async {
        tokio::join!(
            keys(&mut keyboard, input.clone()),
            hear(typed, owner, input.clone(), say.clone()),
            steer(sizes, owner, window, own, size, say.clone()),
        )
    };
    let told_to_end = async {
        let signal = signals.next().await;
        // One that has ended needs no telling.
        let _ = killer.kill();
        signal
    };
    let mut signal = None;
    let code = {
        let showing = show(&mut output, exit, &mut terminal, &mut outlet, &mut asides);
        tokio::pin!(showing, hearing, told_to_end);
        loop {
            tokio::select! {
                code = &mut showing => break code?,
                (never, _, _) = &mut hearing => match never {},
                told = &mut told_to_end, if signal.is_none() => signal = Some(told),
                () = sleep(LAST_WORDS), if signal.is_some() => break 128 + signal.unwrap_or_default(),
            }
        }
    };
    drop(terminal);
    let whole = outlet.close(client, handle, code).await?;
    Ok(ShareEnd { code, signal, whole })
}

/// Where a share begins in its three pipes.
struct Places {
    input: u64,
    control: u64,
    output: u64,
}

/// Says in every pipe that a program begins. What is behind that in `stdin` was typed for it, whatever any clock says; what
/// is before was not.
async fn begin(client: &Client, handle: &Handle, size: TerminalSize) -> Result<Places, Error> {
    let begin = TerminalControl::Begin(TerminalBegin { size: Some(size), ..TerminalBegin::default() });
    let places = announce(client, handle, &[STDIN, STDCTRL, STDOUT], &begin).await?;
    let place = |index: usize| places.get(index).copied().unwrap_or_default();
    Ok(Places { input: place(0), control: place(1), output: place(2) })
}

/// Sends a text to pipes, and gives where it stands.
async fn announce(
    client: &Client,
    handle: &Handle,
    pipes: &[&str],
    control: &TerminalControl,
) -> Result<Vec<u64>, Error> {
    let message =
        MessageToSend { payload: Payload::Text(control.encode()), in_reply_to: None, ack_requested: false };
    let until = Instant::now() + PATIENCE;
    let mut places = Vec::with_capacity(pipes.len());
    for pipe in pipes {
        let key = IdempotencyKey::random();
        let sent = loop {
            match client.send_message(handle, pipe, &message, key.clone()).await {
                // A pipe that is used for the first time is being made.
                Err(error) if error.is_passing() && Instant::now() + AGAIN < until => sleep(AGAIN).await,
                outcome => break outcome?,
            }
        };
        places.push(sent.sequence);
    }
    Ok(places)
}

/// The way to those who watch.
struct Outlet {
    writer: Option<PipeWriter>,
    carrying: JoinHandle<Result<(), Error>>,
    flow: watch::Receiver<PipeFlow>,
    flows: bool,
    waiting: Option<Instant>,
    told: bool,
}

impl Outlet {
    fn open(client: &Client, handle: &Handle, after: u64) -> Self {
        let options = PipeWriting { lost_answer: LostAnswer::Look { after }, ..PipeWriting::default() };
        let (writer, carrier) = client.write_pipe(handle, STDOUT, options);
        let flow = writer.flow();
        let carrying = tokio::spawn(carrier.run());
        Self { writer: Some(writer), carrying, flow, flows: true, waiting: None, told: false }
    }

    /// Takes bytes on their way, and tells people why that takes its time where it does.
    async fn bytes(&mut self, bytes: &[u8], terminal: &RawTerminal) {
        let Some(writer) = self.writer.clone() else { return };
        let taken = writer.bytes(bytes);
        tokio::pin!(taken);
        loop {
            tokio::select! {
                biased;
                // Where nothing is sent any more, that is news, too.
                _ = &mut taken => return,
                news = self.news() => terminal.note(&news),
            }
        }
    }

    async fn control(&self, control: &TerminalControl) {
        if let Some(writer) = &self.writer {
            let _ = writer.text(control.encode()).await;
        }
    }

    /// Waits for something that people want to know.
    async fn news(&mut self) -> String {
        loop {
            let late = self.waiting.filter(|_| !self.told).map(|since| since + TOLD_AFTER);
            let open = self.writer.is_some();
            tokio::select! {
                ended = &mut self.carrying, if open => {
                    self.writer = None;
                    let why = match ended {
                        Ok(Err(error)) => error.to_string(),
                        Ok(Ok(())) | Err(_) => "its carrier ended".to_owned(),
                    };
                    return format!("this terminal is not shared any more, the program goes on: {why}");
                }
                changed = self.flow.changed(), if open && self.flows => {
                    // Its end is heard above.
                    self.flows = changed.is_ok();
                    let flowing = *self.flow.borrow_and_update() == PipeFlow::Flowing;
                    if !flowing {
                        self.waiting.get_or_insert_with(Instant::now);
                    } else if self.waiting.take().is_some() && std::mem::take(&mut self.told) {
                        return "what waited is stored, and the terminal is shared as before".to_owned();
                    }
                }
                () = sleep_until(late.unwrap_or_else(Instant::now)), if open && late.is_some() => {
                    self.told = true;
                    let why = match &*self.flow.borrow() {
                        PipeFlow::Waiting(why) => why.clone(),
                        PipeFlow::Flowing => continue,
                    };
                    return format!("nobody sees this for now, up to 8 MiB wait for it to pass and then the program does: {why}");
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Says that the program ended, and waits until all is stored.
    async fn close(mut self, client: &Client, handle: &Handle, code: i32) -> anyhow::Result<bool> {
        let Some(writer) = self.writer.take() else { return Ok(false) };
        let end = TerminalControl::End { exit_code: Some(code) };
        // The terminal is as it was, so that this can be interrupted.
        let mut signals = Signals::new()?;
        let rest = async {
            let _ = writer.text(end.encode()).await;
            drop(writer);
            let stored = matches!((&mut self.carrying).await, Ok(Ok(())));
            // Those who read sizes hear of it, too; nothing hangs on it.
            announce(client, handle, &[STDCTRL], &end).await.ok();
            stored
        };
        tokio::pin!(rest);
        if let Ok(stored) = timeout(REST.1, &mut rest).await {
            return Ok(stored);
        }
        let told =
            writeln!(io::stderr(), "tidegate: the rest of the output is being stored; ctrl-c leaves it");
        // Nobody may be there to be told.
        drop(told);
        Ok(tokio::select! {
            stored = &mut rest => stored,
            _ = signals.next() => false,
            () = sleep(REST.0) => false,
        })
    }
}

/// Carries the program's bytes to the screen and to the pipe until the program has ended; gives its exit code.
async fn show(
    output: &mut mpsc::Receiver<Bytes>,
    mut exit: JoinHandle<io::Result<i32>>,
    terminal: &mut RawTerminal,
    outlet: &mut Outlet,
    asides: &mut mpsc::Receiver<Aside>,
) -> anyhow::Result<i32> {
    let (mut code, mut shown) = (None, true);
    loop {
        tokio::select! {
            biased;
            Some(aside) = asides.recv() => match aside {
                Aside::Renew => terminal.renew(),
                Aside::Note(text) => terminal.note(&text),
                Aside::Size(size) => outlet.control(&TerminalControl::Resize(size)).await,
                Aside::Replaced => {
                    outlet.writer = None;
                    terminal.note("another share of the same source began: this terminal is not shared any more, the program goes on");
                }
            },
            news = outlet.news() => terminal.note(&news),
            piece = output.recv() => {
                let Some(piece) = piece else { break };
                outlet.bytes(&piece, terminal).await;
                // A screen that is gone ends nothing: others watch.
                if shown && let Err(error) = terminal.show(piece).await {
                    shown = false;
                    terminal.note(&format!("nothing more is shown here, the program goes on and is shared: {error}"));
                }
            }
            ended = &mut exit, if code.is_none() => code = Some(ended??),
            () = sleep(QUIET), if code.is_some() => break,
        }
    }
    match code {
        Some(code) => Ok(code),
        None => Ok(exit.await??),
    }
}

/// Carries what is typed here.
async fn keys(keyboard: &mut Keyboard, input: mpsc::Sender<Bytes>) -> Infallible {
    loop {
        let typed = keyboard.next().await;
        if input.send(typed).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Carries what others type, until another share takes this one's place.
async fn hear(
    mut typed: PipeFollower,
    owner: UserId,
    input: mpsc::Sender<Bytes>,
    say: mpsc::Sender<Aside>,
) -> Infallible {
    loop {
        let message = match typed.next().await {
            Ok(Followed::Message(message)) => message,
            Ok(Followed::Missed(count)) => {
                let note = format!("{count} messages of what others typed were no longer kept");
                let _ = say.send(Aside::Note(note)).await;
                continue;
            }
            Ok(Followed::CaughtUp | Followed::Anew | Followed::Away(_) | Followed::Back) => continue,
            Err(error) => {
                let _ = say.send(Aside::Note(format!("nobody else can type here any more: {error}"))).await;
                return std::future::pending().await;
            }
        };
        if message.sender == owner && begins(&message.payload) {
            let _ = say.send(Aside::Replaced).await;
            return std::future::pending().await;
        }
        let bytes = match message.payload {
            Payload::Text(text) => text.into_bytes(),
            Payload::Bytes(bytes) => bytes,
        };
        if input.send(bytes.into()).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Whether a program begins here.
fn begins(payload: &Payload) -> bool {
    match payload {
        Payload::Text(text) => matches!(TerminalControl::decode(text), Some(TerminalControl::Begin(_))),
        Payload::Bytes(_) => false,
    }
}

/// Gives the program's terminal the size of the window here or of whoever said one last.
async fn steer(
    mut sizes: PipeFollower,
    owner: UserId,
    mut window: Window,
    own: OwnWindow,
    mut size: TerminalSize,
    say: mpsc::Sender<Aside>,
) -> Infallible {
    let mut listening = true;
    loop {
        let wanted = tokio::select! {
            event = window.next() => {
                if event == WindowEvent::Resumed {
                    let _ = say.send(Aside::Renew).await;
                }
                window_size()
            }
            heard = sizes.next(), if listening => match heard {
                Ok(Followed::Message(message)) => {
                    listening = !(message.sender == owner && begins(&message.payload));
                    said_size(&message.payload)
                }
                Ok(_) => None,
                Err(_) => {
                    listening = false;
                    None
                }
            },
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != size) {
            size = wanted;
            own.resize(size);
            let _ = say.send(Aside::Size(size)).await;
        }
    }
}

fn said_size(payload: &Payload) -> Option<TerminalSize> {
    match payload {
        Payload::Text(text) => match TerminalControl::decode(text)? {
            TerminalControl::Resize(size) => Some(size),
            TerminalControl::Begin(_) | TerminalControl::Gap { .. } | TerminalControl::End { .. } => None,
        },
        Payload::Bytes(_) => None,
    }
}
