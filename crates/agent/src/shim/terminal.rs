//! The PTY: input in order, and whose window counts.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use portable_pty::{MasterPty, PtySize};
use tokio::sync::mpsc;

use super::output::Output;

/// Input frames waiting for a program that does not read; a viewer that sends more waits itself.
const INPUT_FRAMES: usize = 64;

struct Windows {
    master: Box<dyn MasterPty + Send>,
    wanted: HashMap<u64, (u16, u16)>,
    /// Who typed last.
    owner: Option<u64>,
    applied: Option<(u16, u16)>,
}

/// The program's terminal.
pub(super) struct Terminal {
    input: mpsc::Sender<Bytes>,
    windows: Mutex<Windows>,
}

impl Terminal {
    /// Takes the master side; a thread of its own writes what is typed.
    pub(super) fn new(master: Box<dyn MasterPty + Send>, mut writer: Box<dyn Write + Send>) -> Self {
        let (input, mut typed) = mpsc::channel::<Bytes>(INPUT_FRAMES);
        std::thread::spawn(move || {
            while let Some(bytes) = typed.blocking_recv() {
                // The program is gone: what was typed for it goes nowhere.
                if writer.write_all(&bytes).is_err() {
                    break;
                }
            }
            // Dropping portable-pty's writer would type an end of file: the program decides when it ends.
            std::mem::forget(writer);
        });
        let windows = Windows { master, wanted: HashMap::new(), owner: None, applied: None };
        Self { input, windows: Mutex::new(windows) }
    }

    /// Types for a viewer, whose window counts from now on.
    pub(super) async fn type_for(&self, viewer: u64, bytes: Bytes, output: &Output) {
        {
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            if windows.owner != Some(viewer) {
                windows.owner = Some(viewer);
                windows.apply(viewer, output);
            }
        }
        let _ = self.input.send(bytes).await;
    }

    /// A viewer's window changed. It counts at once if the viewer is alone, the first, or typed last.
    pub(super) fn resize(&self, viewer: u64, cols: u16, rows: u16, output: &Output) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.wanted.insert(viewer, (cols, rows));
        if windows.wanted.len() == 1 || windows.owner.is_none_or(|owner| owner == viewer) {
            windows.owner = Some(viewer);
            windows.apply(viewer, output);
        }
    }

    /// A viewer is gone; if one is left alone, its window counts.
    pub(super) fn leave(&self, viewer: u64, output: &Output) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.wanted.remove(&viewer);
        windows.owner = windows.owner.filter(|owner| *owner != viewer);
        let mut left = windows.wanted.keys().copied();
        if let (Some(only), None) = (left.next(), left.next()) {
            windows.apply(only, output);
        }
    }
}

impl Windows {
    fn apply(&mut self, viewer: u64, output: &Output) {
        let Some((cols, rows)) = self.wanted.get(&viewer).copied() else { return };
        if self.applied == Some((cols, rows)) {
            return;
        }
        self.applied = Some((cols, rows));
        let (cols, rows) = output.resize(cols, rows);
        // A PTY that cannot be resized has lost its program: its end is reported elsewhere.
        let _ = self.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 });
    }
}
