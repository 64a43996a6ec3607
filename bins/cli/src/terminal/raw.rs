//! Raw mode, left on every way out: a guard for returns and unwinding, a hook that keeps a panic's words readable.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use super::modes::Modes;

/// Raw mode while it lives, where standard input is a terminal; and what the session did to the screen's modes, which
/// is undone at the end.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    raw: bool,
    screen: bool,
    modes: Modes,
    /// Whether a write is still at work: a terminal that was stopped takes nothing, for ever.
    busy: Arc<AtomicBool>,
}

/// How often, and how long each time, a write at work is waited for before the terminal is left as it is.
const LAST_WRITE: (u32, Duration) = (50, Duration::from_millis(10));

impl RawTerminal {
    pub(crate) fn enter() -> io::Result<Self> {
        let raw = io::stdin().is_terminal();
        if raw {
            enable_raw_mode()?;
        }
        Ok(Self { raw, screen: io::stdout().is_terminal(), modes: Modes::default(), busy: Arc::default() })
    }

    /// The terminal as it is, for those who type nothing.
    pub(crate) fn plain() -> Self {
        Self { raw: false, screen: io::stdout().is_terminal(), modes: Modes::default(), busy: Arc::default() }
    }

    /// Writes to the screen, on a thread that may be kept waiting. One write at a time.
    pub(crate) async fn show(&mut self, bytes: Bytes) -> io::Result<()> {
        if self.screen {
            self.modes.feed(&bytes);
        }
        let busy = Arc::clone(&self.busy);
        busy.store(true, Ordering::Release);
        let write = move || {
            let mut out = io::stdout().lock();
            let written = out.write_all(&bytes).and_then(|()| out.flush());
            busy.store(false, Ordering::Release);
            written
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }

    /// Enters raw mode again after the shell had the terminal.
    pub(crate) fn renew(&self) {
        if self.raw {
            // The terminal may be gone; then the next read tells.
            let _ = disable_raw_mode().and_then(|()| enable_raw_mode());
        }
    }

    /// Undoes what the session did to the screen, before something else is written there.
    pub(crate) fn calm(&mut self) {
        let undo = self.modes.undo();
        if !undo.is_empty() && self.is_writable() {
            let mut out = io::stdout().lock();
            // A terminal that is gone needs no calming.
            let _ = out.write_all(&undo).and_then(|()| out.flush());
        }
    }

    fn is_writable(&self) -> bool {
        let (times, wait) = LAST_WRITE;
        let free = || !self.busy.load(Ordering::Acquire);
        (0..times).any(|_| {
            if !free() {
                std::thread::sleep(wait);
            }
            free()
        })
    }

    /// Writes a line of our own to standard error, whatever mode the terminal is in.
    pub(crate) fn note(&self, text: &str) {
        let (begin, end) = if self.raw { ("\r\n", "\r\n") } else { ("", "\n") };
        let line = format!("{begin}[tidegate: {}]{end}", crate::output::plain(text));
        // Where nobody listens any more, what this is about goes on all the same.
        drop(io::stderr().lock().write_all(line.as_bytes()));
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.calm();
        if self.raw {
            let _ = disable_raw_mode();
        }
    }
}

/// Makes a panic leave raw mode before it speaks: its lines would run down the screen as stairs.
pub(crate) fn restore_on_panic() {
    let speak = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let _ = disable_raw_mode();
        speak(panic);
    }));
}
