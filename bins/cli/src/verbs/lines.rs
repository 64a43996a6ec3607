//! `send --lines`: each line of the input as a message of its own, in order.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt, stream::FuturesOrdered};
use indicatif::ProgressBar;
use tidegate_client::{IdempotencyKey, Message, MessageToSend, PipeError, PipeSender, PipesOptions};
use tokio::sync::mpsc;

use super::{
    messages::{Failure, LARGEST, over_http, payload_of},
    nats,
};
use crate::{
    args::{Over, SendArgs},
    context::Context,
    exit,
    output::{self, plain},
    progress,
};

/// Lines between the input and what sends them, and messages on their way.
const LINES: usize = 64;
const IN_FLIGHT: usize = 256;

/// A line of the input.
struct Line {
    bytes: Vec<u8>,
    /// With its end.
    length: u64,
}

/// Sends every line, and says how many are stored.
pub(super) async fn send(context: &Context, words: &SendArgs) -> anyhow::Result<ExitCode> {
    let (input, total) = opened(words.file.as_deref())?;
    let base = words.key.clone().unwrap_or_else(|| IdempotencyKey::random().as_str().to_owned());
    // The longest that a number can be.
    IdempotencyKey::new(&format!("{base}.{}", u64::MAX))
        .context("--key is too long for the numbers of lines")?;
    let bar = progress::of_bytes(context.output, total);
    let mut sending = Sending {
        context,
        words,
        base: &base,
        lines: read_lines(input),
        bar: &bar,
        taken: 0,
        stored: 0,
        last: 0,
    };
    let outcome = match words.over {
        Over::Http => sending.over_http().await,
        Over::Nats => sending.over_nats().await,
    };
    let Sending { stored, last, .. } = sending;
    bar.finish_and_clear();
    let address = format!("{}/{}", words.to.handle, plain(&words.to.pipe));
    match outcome {
        Ok(()) => {
            let said = match stored {
                0 => "there were no lines".to_owned(),
                1 => format!("1 line is stored in {address} at {last}"),
                many => format!("{many} lines are stored in {address}, the last at {last}"),
            };
            context.output.note(&said);
            Ok(ExitCode::SUCCESS)
        }
        Err(Failure { error, code }) => {
            let error = error.context(format!(
                "the first {stored} lines are stored in {address}, line {} may not be; the same input can be sent again with --key {base}",
                stored + 1
            ));
            Ok(exit::report(&error, context.output.json, code))
        }
    }
}

/// The input, and how long it is where that can be known.
fn opened(file: Option<&Path>) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if let Some(path) = file {
        let opened = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let total = length(&opened);
        return Ok((Box::new(opened), total));
    }
    // A copy of the descriptor reads the same input.
    let copy = io::stdin().as_fd().try_clone_to_owned().context("cannot read standard input")?;
    let file = File::from(copy);
    let total = length(&file);
    Ok((Box::new(file), total))
}

fn length(file: &File) -> Option<u64> {
    file.metadata().ok().filter(std::fs::Metadata::is_file).map(|found| found.len())
}

/// Reads lines on a thread of their own, which ends with the program: an input may have nothing to say for hours.
fn read_lines(input: Box<dyn Read + Send>) -> mpsc::Receiver<io::Result<Line>> {
    let (sender, receiver) = mpsc::channel(LINES);
    thread::spawn(move || {
        let mut input = BufReader::new(input);
        loop {
            let mut bytes = Vec::new();
            // One more than may be sent is enough to refuse it.
            let read = input.by_ref().take(LARGEST + 2).read_until(b'\n', &mut bytes);
            let line = match read {
                Ok(0) => return,
                Ok(length) => {
                    if bytes.last() == Some(&b'\n') {
                        bytes.pop();
                    }
                    Ok(Line { bytes, length: length as u64 })
                }
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// Lines on their way.
struct Sending<'a> {
    context: &'a Context,
    words: &'a SendArgs,
    base: &'a str,
    lines: mpsc::Receiver<io::Result<Line>>,
    bar: &'a ProgressBar,
    taken: u64,
    stored: u64,
    last: u64,
}

impl Sending<'_> {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.words.timeout)
    }

    /// A line as a message, with what a repeat is known by and its length in the input.
    fn message(&mut self, line: io::Result<Line>) -> Result<(MessageToSend, IdempotencyKey, u64), Failure> {
        self.taken += 1;
        let line = line.map_err(|error| Failure {
            error: anyhow::Error::new(error).context("cannot read what to send"),
            code: exit::FAILURE,
        })?;
        if line.bytes.len() as u64 > LARGEST {
            let error = anyhow::anyhow!(
                "line {} is too long: a message may have 64 KiB with its envelope",
                self.taken
            );
            return Err(Failure { error, code: exit::NO_ROOM });
        }
        let key = IdempotencyKey::new(&format!("{}.{}", self.base, self.taken))?;
        let message = MessageToSend {
            payload: payload_of(line.bytes),
            in_reply_to: self.words.reply_to,
            ack_requested: self.words.ack,
        };
        Ok((message, key, line.length))
    }

    fn is_stored(&mut self, message: &Message, length: u64) -> Result<(), Failure> {
        self.stored += 1;
        self.last = message.sequence;
        self.bar.inc(length);
        self.bar.set_message(format!("{} lines", self.stored));
        if self.context.output.json {
            output::json_line(message).map_err(|error| Failure { error, code: exit::FAILURE })?;
        }
        Ok(())
    }

    /// One after the other.
    async fn over_http(&mut self) -> Result<(), Failure> {
        while let Some(line) = self.lines.recv().await {
            let (message, key, length) = self.message(line)?;
            let sent = over_http(self.context, &self.words.to, &message, &key, self.timeout()).await?;
            self.is_stored(&sent, length)?;
        }
        Ok(())
    }

    /// Several on their way, in their order.
    async fn over_nats(&mut self) -> Result<(), Failure> {
        let options =
            PipesOptions { timeout: self.timeout(), in_flight: IN_FLIGHT, ..PipesOptions::default() };
        let pipes = nats::connect(self.context, options).await?;
        let sender = pipes.sender(&self.words.to.handle, &self.words.to.pipe).await?;
        let mut on_their_way = FuturesOrdered::new();
        let mut is_over = false;
        let mut failure = None;
        while !is_over || !on_their_way.is_empty() {
            tokio::select! {
                biased;
                Some(outcome) = on_their_way.next() => {
                    let (stored, length): (Result<Message, PipeError>, u64) = outcome;
                    self.is_stored(&stored?, length)?;
                }
                line = self.lines.recv(), if !is_over && on_their_way.len() < IN_FLIGHT => {
                    match self.taken(&sender, line).await {
                        Ok(Some(waiting)) => on_their_way.push_back(waiting),
                        Ok(None) => is_over = true,
                        // Those before it come to their end first.
                        Err(error) => (is_over, failure) = (true, Some(error)),
                    }
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Gives a line to the sender; nothing at the end of the input.
    async fn taken(
        &mut self,
        sender: &PipeSender,
        line: Option<io::Result<Line>>,
    ) -> Result<Option<impl Future<Output = (Result<Message, PipeError>, u64)> + use<>>, Failure> {
        let Some(line) = line else { return Ok(None) };
        let (message, key, length) = self.message(line)?;
        let waiting = sender.send(&message, &key).await?;
        Ok(Some(async move { (waiting.stored().await.map(|(message, _)| message), length) }))
    }
}
