//! Somebody at a terminal of their own.

use std::{
    io::{Read, Write},
    path::Path,
    time::Duration,
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::{sync::mpsc, task, time::timeout};

use crate::stand::Stand;

/// Nothing takes longer, however busy the machine is: a program that starts, a shell that answers, a fault that is over.
const PATIENCE: Duration = Duration::from_mins(2);

/// The program on a terminal.
pub(crate) struct Person {
    child: Box<dyn Child + Send + Sync>,
    _master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    screen: mpsc::UnboundedReceiver<Vec<u8>>,
    seen: String,
}

impl Person {
    pub(crate) fn start(stand: &Stand, words: &[&str]) -> Self {
        Self::start_as(stand, &stand.home(), words)
    }

    /// The same for whoever is logged in there.
    pub(crate) fn start_as(stand: &Stand, home: &Path, words: &[&str]) -> Self {
        let size = PtySize { rows: 33, cols: 101, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(words);
        command.env("TIDEGATE_URL", &stand.url);
        command.env("XDG_CONFIG_HOME", home);
        let child = pair.slave.spawn_command(command).unwrap();
        let mut output = pair.master.try_clone_reader().unwrap();
        let (send, screen) = mpsc::unbounded_channel();
        task::spawn_blocking(move || {
            let mut buffer = [0; 4_096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                if send.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let keys = pair.master.take_writer().unwrap();
        // The slave end stays open in the child alone: its end is this terminal's end.
        drop(pair.slave);
        Self { child, _master: pair.master, keys, screen, seen: String::new() }
    }

    /// Waits until the screen has shown `text`.
    pub(crate) async fn sees(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let bytes = timeout(PATIENCE, self.screen.recv()).await.ok().flatten();
            let bytes = bytes.unwrap_or_else(|| panic!("{text:?} is not in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Everything that was on the screen so far.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits for the program's end and its exit code.
    pub(crate) async fn leaves(mut self) -> u32 {
        timeout(PATIENCE, async { while self.screen.recv().await.is_some() {} }).await.unwrap();
        self.child.wait().unwrap().exit_code()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}
