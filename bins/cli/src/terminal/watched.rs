//! Watching a shared terminal, and typing into it: bytes come from one pipe and keystrokes go to another, in order and each
//! once, over however many connections.

use std::{collections::VecDeque, convert::Infallible, io, time::Duration};

use bytes::Bytes;
use rustix::termios::{QueueSelector, tcflush};
use tidegate_client::{Client, Error, Followed, PipeFollower, PipeFrom, PipeWriter, PipeWriting, StatusCode};
use tidegate_model::{Handle, Payload, STDCTRL, STDIN, STDOUT, TerminalControl};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{is_interactive, keyboard::Keyboard, raw::RawTerminal, window_size};
use crate::{
    args::DetachKeys,
    signals::{Signals, Window, WindowEvent},
};

/// Bytes of what a program wrote before that are shown to whoever attaches.
const RECENT: usize = 1 << 20;
/// What interrupts, typed by those who only watch.
const INTERRUPT: u8 = 0x03;
/// How long nothing comes after a program's end was said elsewhere than in its output, before that is believed to be whole.
const QUIET: Duration = Duration::from_secs(1);
/// Words beside the output that wait to be said.
const ASIDES: usize = 16;
/// Keystrokes go at once, and few may wait: what is typed while nobody answers is done later, or given up after
/// [`PipeWriting::key_lasts`] together with whatever else waits.
const TYPING: fn() -> PipeWriting =
    || PipeWriting { batch: Duration::ZERO, waiting: 256 * 1_024, ..PipeWriting::default() };

/// What is watched, and how.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) keys: &'a DetachKeys,
    /// Where watching begins; none is with what the program that runs now has written of late.
    pub(crate) from: Option<PipeFrom>,
    /// Whether what is typed here is sent.
    pub(crate) types: bool,
    /// Whether the next program is waited for after one has ended.
    pub(crate) stays: bool,
}

/// How watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchEnd {
    /// The program ended, with this code where somebody knows it.
    Exited(Option<i32>),
    /// Nothing ran when watching began; the last program ended with this code.
    Nothing(Option<i32>),
    /// The person left.
    Left,
    /// This program was told to end.
    Signal(i32),
}

/// Something beside the output.
enum Aside {
    /// The terminal is to be made raw again.
    Renew,
    Note(String),
}

/// What becomes of something that was heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Bytes(Bytes),
    Note(String),
    /// Another program begins.
    Anew,
    /// The program ended, and nothing follows.
    Ended(Option<i32>),
    Nothing,
}

/// That a program has ended, with its exit code where somebody knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ending(Option<i32>);

/// What is known of the terminal that is watched.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    live: bool,
    stays: bool,
    ended: Option<Ending>,
}

impl Watched {
    pub(crate) fn new(stays: bool) -> Self {
        Self { stays, ..Self::default() }
    }

    /// Takes note of what was heard.
    pub(crate) fn hear(&mut self, heard: Followed) -> Shown {
        match heard {
            Followed::Message(message) => match message.payload {
                Payload::Bytes(bytes) => {
                    self.ended = None;
                    Shown::Bytes(bytes.into())
                }
                Payload::Text(text) => {
                    if let Some(control) = TerminalControl::decode(&text) {
                        return self.hear_control(&control);
                    }
                    self.ended = None;
                    Shown::Bytes(text.into())
                }
            },
            Followed::CaughtUp => {
                self.live = true;
                self.end()
            }
            Followed::Anew => {
                Shown::Note("the source was made anew and begins with its first output".to_owned())
            }
            Followed::Missed(count) => {
                Shown::Note(format!("{count} messages are no longer kept: some of the output is missing"))
            }
            Followed::Away(why) => Shown::Note(format!("nothing comes for now: {why}")),
            Followed::Back => Shown::Note("watching again".to_owned()),
        }
    }

    fn hear_control(&mut self, control: &TerminalControl) -> Shown {
        match control {
            TerminalControl::Begin(_) => {
                self.ended = None;
                Shown::Anew
            }
            TerminalControl::Resize(_) => Shown::Nothing,
            TerminalControl::Gap { bytes } => {
                Shown::Note(format!("{bytes} bytes of the output were lost here"))
            }
            TerminalControl::End { exit_code } => {
                self.ended = Some(Ending(*exit_code));
                self.end()
            }
        }
    }

    fn end(&self) -> Shown {
        match self.ended {
            Some(Ending(code)) if self.live && !self.stays => Shown::Ended(code),
            _ => Shown::Nothing,
        }
    }
}

/// Watches until the program ends or the person leaves.
pub(crate) async fn watch(client: &Client, watch: &Watch<'_>) -> anyhow::Result<WatchEnd> {
    let mut signals = Signals::new()?;
    let from = watch.from.unwrap_or(PipeFrom::After(0));
    let mut follower = client.follow_pipe(watch.handle, STDOUT, from);
    let mut watched = Watched::new(watch.stays);
    let recent = if watch.from.is_none() {
        let gathered = tokio::select! {
            gathered = recent(&mut follower, &mut watched) => gathered?,
            signal = signals.next() => return Ok(WatchEnd::Signal(signal)),
        };
        match gathered {
            Recent::Bytes(bytes) => bytes,
            Recent::Ended(code) => return Ok(WatchEnd::Nothing(code)),
        }
    } else {
        Bytes::new()
    };
    let interactive = is_interactive();
    let mut terminal = if interactive || watch.types { RawTerminal::enter()? } else { RawTerminal::plain() };
    if !recent.is_empty() {
        terminal.show(recent).await?;
    }
    if interactive {
        // What the terminal answered to questions that the program asked long ago is nobody's.
        let _ = tcflush(io::stdin(), QueueSelector::IFlush);
    }
    let mut keyboard = None;
    if interactive || watch.types {
        keyboard = Some(Keyboard::start(interactive.then_some(watch.keys))?);
    }
    let detached = keyboard.as_ref().map(Keyboard::detached);
    let (say, asides) = mpsc::channel(ASIDES);
    let typing = async {
        match &mut keyboard {
            Some(keyboard) if watch.types => {
                let window = Window::new()?;
                match type_into(client, watch.handle, keyboard, window, say).await {}
            }
            Some(keyboard) => watch_keys(keyboard).await,
            None => std::future::pending().await,
        }
    };
    let leaving = async {
        match detached {
            Some(detached) => detached.await,
            None => std::future::pending().await,
        }
    };
    let (tell, beside) = watch::channel(None);
    let controls = hear_beside(client.follow_pipe(watch.handle, STDCTRL, PipeFrom::After(0)), tell);
    tokio::select! {
        end = show(&mut follower, &mut watched, beside, &mut terminal, asides) => end,
        never = controls => match never {},
        left = typing => left,
        () = leaving => Ok(WatchEnd::Left),
        signal = signals.next() => Ok(WatchEnd::Signal(signal)),
    }
}

/// What a program wrote before it is watched.
enum Recent {
    Bytes(Bytes),
    /// Nothing runs any more.
    Ended(Option<i32>),
}

/// Reads what is kept, and gives the end of what the newest program wrote.
async fn recent(follower: &mut PipeFollower, watched: &mut Watched) -> Result<Recent, Error> {
    let mut pieces = VecDeque::new();
    let mut size = 0;
    loop {
        let heard = follower.next().await?;
        let caught_up = heard == Followed::CaughtUp;
        match watched.hear(heard) {
            Shown::Bytes(bytes) => {
                size += bytes.len();
                pieces.push_back(bytes);
                while size > RECENT
                    && let Some(oldest) = pieces.pop_front()
                {
                    size -= oldest.len();
                }
            }
            Shown::Anew => {
                pieces.clear();
                size = 0;
            }
            Shown::Ended(code) => return Ok(Recent::Ended(code)),
            Shown::Note(_) | Shown::Nothing => {}
        }
        if caught_up {
            return Ok(Recent::Bytes(pieces.into_iter().flatten().collect()));
        }
    }
}

/// Follows what is said beside the output, where the one who watches may read that: the end of a recorded program is said
/// nowhere else.
async fn hear_beside(mut controls: PipeFollower, tell: watch::Sender<Option<Ending>>) -> Infallible {
    let (mut live, mut over) = (false, None);
    loop {
        match controls.next().await {
            Ok(Followed::Message(message)) => over = over_after(over, &message.payload),
            Ok(Followed::CaughtUp) => live = true,
            Ok(Followed::Anew | Followed::Missed(_) | Followed::Away(_) | Followed::Back) => {}
            // It is for whoever made the source alone.
            Err(_) => return std::future::pending().await,
        }
        if live {
            tell.send_if_modified(|told| std::mem::replace(told, over) != over);
        }
    }
}

/// How the newest program ended after something was said; none while it runs, or where nobody says.
fn over_after(before: Option<Ending>, payload: &Payload) -> Option<Ending> {
    let Payload::Text(text) = payload else { return before };
    match TerminalControl::decode(text) {
        Some(TerminalControl::Begin(_)) => None,
        Some(TerminalControl::End { exit_code }) => Some(Ending(exit_code)),
        Some(TerminalControl::Resize(_) | TerminalControl::Gap { .. }) | None => before,
    }
}

/// Carries bytes to the screen until the program ends.
async fn show(
    follower: &mut PipeFollower,
    watched: &mut Watched,
    mut beside: watch::Receiver<Option<Ending>>,
    terminal: &mut RawTerminal,
    mut asides: mpsc::Receiver<Aside>,
) -> anyhow::Result<WatchEnd> {
    let mut open = true;
    let mut over: Option<(Ending, Instant)> = None;
    loop {
        let until = over.map(|(_, until)| until);
        let heard = tokio::select! {
            heard = follower.next() => heard?,
            Ok(()) = beside.changed(), if !watched.stays => {
                over = beside.borrow_and_update().map(|ending| (ending, Instant::now() + QUIET));
                continue;
            }
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() && watched.live => {
                return Ok(WatchEnd::Exited(over.and_then(|(Ending(code), _)| code)));
            }
            aside = asides.recv(), if open => {
                match aside {
                    Some(Aside::Renew) => terminal.renew(),
                    Some(Aside::Note(text)) => terminal.note(&text),
                    None => open = false,
                }
                continue;
            }
        };
        match watched.hear(heard) {
            Shown::Bytes(bytes) => {
                over = over.map(|(ending, _)| (ending, Instant::now() + QUIET));
                terminal.show(bytes).await?;
            }
            Shown::Note(text) => terminal.note(&text),
            Shown::Anew => {
                over = None;
                terminal.calm();
            }
            Shown::Ended(code) => return Ok(WatchEnd::Exited(code)),
            Shown::Nothing => {}
        }
    }
}

/// Waits until somebody who only watches interrupts; nothing else that they type does anything.
async fn watch_keys(keyboard: &mut Keyboard) -> anyhow::Result<WatchEnd> {
    loop {
        if keyboard.next().await.contains(&INTERRUPT) {
            return Ok(WatchEnd::Left);
        }
    }
}

/// What is typed, on its way.
struct Typing {
    writer: PipeWriter,
    carrying: JoinHandle<Result<(), Error>>,
}

impl Typing {
    fn start(client: &Client, handle: &Handle, pipe: &str) -> Self {
        let (writer, carrier) = client.write_pipe(handle, pipe, TYPING());
        Self { writer, carrying: tokio::spawn(carrier.run()) }
    }
}

/// Carries what is typed, and the window's size, until that is not allowed any more; never ends by itself.
async fn type_into(
    client: &Client,
    handle: &Handle,
    keyboard: &mut Keyboard,
    mut window: Window,
    say: mpsc::Sender<Aside>,
) -> Infallible {
    let mut typing = Typing::start(client, handle, STDIN);
    let sizes = Typing::start(client, handle, STDCTRL);
    loop {
        let event = tokio::select! {
            ended = &mut typing.carrying => {
                let Ok(Err(error)) = ended else { return std::future::pending().await };
                if error.is_passing() {
                    let note = format!("what was typed last may be lost: {error}");
                    let _ = say.send(Aside::Note(note)).await;
                    typing = Typing::start(client, handle, STDIN);
                    continue;
                }
                let _ = say.send(Aside::Note(format!("what you type does nothing any more: {error}"))).await;
                // Its keys still leave.
                loop {
                    keyboard.next().await;
                }
            }
            typed = keyboard.next() => {
                // Where it is not taken, the carrier tells why.
                let _ = typing.writer.bytes(&typed).await;
                continue;
            }
            event = window.next() => event,
        };
        if event == WindowEvent::Resumed {
            let _ = say.send(Aside::Renew).await;
        }
        if let Some(size) = window_size() {
            // Nobody is lost without it.
            let _ = sizes.writer.text(TerminalControl::Resize(size).encode()).await;
        }
    }
}

/// Whether an error says that somebody may not do it.
pub(crate) fn is_forbidden(error: &Error) -> bool {
    error.status() == Some(StatusCode::FORBIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &Payload) -> Followed {
        let message = serde_json::json!({
            "id": "01970000-0000-7000-8000-000000000001", "sender": "01970000-0000-7000-8000-000000000002",
            "subject": "s", "payload": payload, "created_at": "2026-01-01T00:00:00Z", "sequence": 1,
        });
        Followed::Message(Box::new(serde_json::from_value(message).unwrap()))
    }

    fn control(text: &str) -> Followed {
        message(&Payload::Text(text.to_owned()))
    }

    #[test]
    fn a_program_that_ended_ends_those_who_watch_once_nothing_follows() {
        let mut watched = Watched::new(false);
        let end = || control(r#"{"end":{"exitCode":3}}"#);
        assert_eq!(watched.hear(end()), Shown::Nothing, "another one may be kept behind it");
        assert_eq!(watched.hear(control(r#"{"begin":{}}"#)), Shown::Anew);
        assert_eq!(watched.hear(Followed::CaughtUp), Shown::Nothing);
        assert_eq!(watched.hear(end()), Shown::Ended(Some(3)));
        let mut late = Watched::new(false);
        late.hear(end());
        assert_eq!(late.hear(Followed::CaughtUp), Shown::Ended(Some(3)));
        let mut stays = Watched::new(true);
        stays.hear(Followed::CaughtUp);
        assert_eq!(stays.hear(end()), Shown::Nothing);
    }

    #[test]
    fn what_is_said_last_beside_the_output_counts() {
        let text = |text: &str| Payload::Text(text.to_owned());
        let ended = over_after(None, &text(r#"{"end":{"exitCode":3}}"#));
        assert_eq!(ended, Some(Ending(Some(3))));
        assert_eq!(over_after(ended, &text(r#"{"resize":{"cols":1,"rows":1}}"#)), ended);
        assert_eq!(over_after(ended, &Payload::Bytes(br#"{"begin":{}}"#.to_vec())), ended);
        assert_eq!(over_after(ended, &text(r#"{"begin":{}}"#)), None);
        assert_eq!(over_after(None, &text(r#"{"end":{}}"#)), Some(Ending(None)));
    }

    #[test]
    fn bytes_are_shown_as_they_are_even_where_they_look_like_words_about_them() {
        let mut watched = Watched::new(false);
        watched.hear(Followed::CaughtUp);
        let bytes = br#"{"end":{"exitCode":3}}"#;
        assert_eq!(
            watched.hear(message(&Payload::Bytes(bytes.to_vec()))),
            Shown::Bytes(bytes.as_slice().into())
        );
        assert_eq!(watched.hear(control("hello")), Shown::Bytes("hello".into()));
        assert_eq!(watched.hear(control(r#"{"resize":{"cols":1,"rows":1}}"#)), Shown::Nothing);
    }
}
