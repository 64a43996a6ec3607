//! The signals that end the program, and those that tell of the window.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears SIGHUP, SIGINT, SIGQUIT and SIGTERM, which would otherwise end the program with its terminal in disorder.
#[derive(Debug)]
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The number of the next one.
    pub(crate) async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.quit.recv() => SignalKind::quit(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        kind.as_raw_value()
    }
}

/// Hears that the window changed, or that the program goes on after it was stopped.
#[derive(Debug)]
pub(crate) struct Window {
    change: Signal,
    resume: Signal,
}

/// What happened to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowEvent {
    /// It has another size.
    Resized,
    /// The shell may have set the terminal as it likes it.
    Resumed,
}

impl Window {
    pub(crate) fn new() -> std::io::Result<Self> {
        // SIGCONT has no name of its own in tokio; the number is Linux's and that of the BSDs differs.
        let resume =
            if cfg!(target_os = "linux") { SignalKind::from_raw(18) } else { SignalKind::from_raw(19) };
        Ok(Self { change: signal(SignalKind::window_change())?, resume: signal(resume)? })
    }

    pub(crate) async fn next(&mut self) -> WindowEvent {
        tokio::select! {
            _ = self.change.recv() => WindowEvent::Resized,
            _ = self.resume.recv() => WindowEvent::Resumed,
        }
    }
}
