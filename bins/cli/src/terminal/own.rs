//! A terminal of this machine: a program on a PTY, whose bytes come in pieces and whose exit code is kept.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    process,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use portable_pty::{Child, ChildKiller, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tidegate_model::TerminalSize;
use tokio::{sync::mpsc, task::JoinHandle};

/// Longest piece of output.
const PIECE: usize = 16 * 1_024;
/// Pieces of output that wait. When they are full reading stops, and the program waits.
const PIECES: usize = 4;
/// Pieces of input that wait for a program that does not read.
const TYPED: usize = 64;

/// A program on a terminal of its own.
pub(super) struct OwnTerminal {
    /// What it writes; ends with the last process that has the terminal open.
    pub(super) output: mpsc::Receiver<Bytes>,
    /// What is typed into it.
    pub(super) input: mpsc::Sender<Bytes>,
    /// Its size.
    pub(super) window: OwnWindow,
    /// Its exit code, 128 and the signal's number where a signal ended it.
    pub(super) exit: JoinHandle<io::Result<i32>>,
    /// Tells it that its terminal is gone.
    pub(super) killer: Box<dyn ChildKiller + Send + Sync>,
}

/// The size of a program's terminal.
pub(super) struct OwnWindow(Box<dyn MasterPty + Send>);

impl OwnWindow {
    pub(super) fn resize(&self, size: TerminalSize) {
        // A terminal that cannot be resized has lost its program: its end is told elsewhere.
        let _ = self.0.resize(pty_size(size));
    }
}

impl OwnTerminal {
    /// Starts a program, in this folder and with this environment.
    pub(super) fn start(argv: Vec<OsString>, size: TerminalSize) -> anyhow::Result<Self> {
        let fault = |error: anyhow::Error| anyhow!("{error:#}");
        let pair =
            native_pty_system().openpty(pty_size(size)).map_err(fault).context("no terminal is free")?;
        let named = argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        let mut command = CommandBuilder::from_argv(argv);
        command.cwd(std::env::current_dir().context("the current folder is gone")?);
        let child = pair.slave.spawn_command(command);
        let child = child.map_err(fault).with_context(|| format!("cannot start {named}"))?;
        let killer = child.clone_killer();
        // The slave end stays open in the program alone: its end is the terminal's.
        drop(pair.slave);
        let reader = pair.master.try_clone_reader().map_err(fault)?;
        let mut writer = pair.master.take_writer().map_err(fault)?;
        let (send, output) = mpsc::channel(PIECES);
        thread("terminal-output", move || read(reader, &send))?;
        let (input, mut typed) = mpsc::channel::<Bytes>(TYPED);
        thread("terminal-input", move || {
            while let Some(bytes) = typed.blocking_recv() {
                if writer.write_all(&bytes).and_then(|()| writer.flush()).is_err() {
                    break;
                }
            }
            // Dropping this writer would type an end of file: the program decides when it ends.
            std::mem::forget(writer);
        })?;
        let exit = tokio::task::spawn_blocking(move || exit_code(child));
        Ok(Self { output, input, window: OwnWindow(pair.master), exit, killer })
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn pty_size(TerminalSize { cols, rows }: TerminalSize) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

fn read(mut from: impl Read, to: &mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Linux says EIO where nobody has the other end open.
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if to.blocking_send(Bytes::copy_from_slice(&buffer[..length])).is_err() {
                    return;
                }
            }
        }
    }
}

fn exit_code(child: Box<dyn Child + Send + Sync>) -> io::Result<i32> {
    let child: Box<dyn Child> = child;
    match child.downcast::<process::Child>() {
        Ok(mut child) => {
            let status = child.wait()?;
            let of_signal = || status.signal().map_or(i32::from(u8::MAX), |signal| 128 + signal);
            Ok(status.code().unwrap_or_else(of_signal))
        }
        Err(mut child) => Ok(i32::try_from(child.wait()?.exit_code()).unwrap_or(i32::MAX)),
    }
}
