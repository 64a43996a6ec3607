//! Reads files out of a mirror: one `git cat-file --batch` for all of them.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout, Command},
    time::{Instant, timeout_at},
};

use crate::{Error, program::Running};

/// A program that is asked for one object after the other.
#[derive(Debug)]
pub(crate) struct Blobs {
    _running: Running,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
    until: Instant,
    time: Duration,
}

impl Blobs {
    pub(super) fn start(command: &mut Command, until: Instant, time: Duration) -> Result<Self, Error> {
        // Nobody reads what it complains of: an answer that does not come says enough.
        command.stderr(std::process::Stdio::null());
        let mut running = Running::start(command)?;
        let ask = running.child.stdin.take().ok_or(Error::Ended)?;
        let answer = BufReader::with_capacity(64 * 1024, running.child.stdout.take().ok_or(Error::Ended)?);
        Ok(Self { _running: running, ask, answer, until, time })
    }

    /// The content of one object; of `size` bytes, as it was listed.
    pub(crate) async fn read(&mut self, oid: &str, size: u64) -> Result<Vec<u8>, Error> {
        let time = self.time.as_secs();
        timeout_at(self.until, self.ask_for(oid, size)).await.map_err(|_| Error::TooSlow(time))?
    }

    async fn ask_for(&mut self, oid: &str, size: u64) -> Result<Vec<u8>, Error> {
        self.ask.write_all(format!("{oid}\n").as_bytes()).await?;
        let mut head = String::new();
        (&mut self.answer).take(1_024).read_line(&mut head).await?;
        let words: Vec<&str> = head.split_ascii_whitespace().collect();
        let told = match words.as_slice() {
            [_, "blob", told] => told.parse::<u64>().ok(),
            _ => None,
        };
        if told != Some(size) {
            return Err(Error::refused("a file of it cannot be read"));
        }
        let mut content = vec![0; usize::try_from(size).map_err(|_| Error::Ended)? + 1];
        self.answer.read_exact(&mut content).await?;
        // The line's end after it.
        content.pop();
        Ok(content)
    }
}
