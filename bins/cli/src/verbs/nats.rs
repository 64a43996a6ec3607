//! `send` and `read` over NATS, past the control plane.

use std::{process::ExitCode, time::Duration};

use tidegate_client::{
    IdempotencyKey, Message, MessageToSend, NatsPipes, PipeError, PipeReader, PipesOptions,
};
use tokio::time::{Instant, sleep};

use super::messages::{AGAIN, FAILURES, Failure, LOOK, code, write};
use crate::{
    args::{Address, ReadArgs},
    context::Context,
    exit,
};

/// How long the first message is waited for where none is to be: NATS takes a moment to say that there is none.
const MOMENT: Duration = Duration::from_secs(1);
/// How long another one is waited for behind the last that is new: what was delivered before and not acknowledged comes once
/// more, with those that were asked for, and is not counted among what is left.
const BESIDE: Duration = Duration::from_millis(500);
/// Messages that a follower asks for at a time.
const AHEAD: usize = 100;

impl From<PipeError> for Failure {
    fn from(error: PipeError) -> Self {
        Self { code: code_of(&error), error: error.into() }
    }
}

/// What a failure tells scripts.
fn code_of(error: &PipeError) -> u8 {
    match error {
        PipeError::Api(error) => code(error),
        PipeError::Refused(_) => exit::REFUSED,
        PipeError::Full(_) | PipeError::Message(_) => exit::NO_ROOM,
        error if error.is_passing() => exit::NO_ANSWER,
        _ => exit::FAILURE,
    }
}

/// Sends one message and waits until it is stored.
pub(super) async fn send(
    context: &Context,
    to: &Address,
    message: &MessageToSend,
    key: &IdempotencyKey,
    timeout: Duration,
) -> Result<Message, Failure> {
    let pipes = connect(context, PipesOptions { timeout, ..PipesOptions::default() }).await?;
    let sender = pipes.sender(&to.handle, &to.pipe).await?;
    let (stored, _) = sender.send(message, key).await?.stored().await?;
    Ok(stored)
}

/// Pipes of whoever is logged in here.
pub(super) async fn connect(context: &Context, options: PipesOptions) -> Result<NatsPipes, PipeError> {
    NatsPipes::connect(&context.client, options).await
}

/// Writes messages out and acknowledges each after that.
pub(super) async fn read(context: &Context, words: &ReadArgs) -> anyhow::Result<ExitCode> {
    let json = context.output.json;
    if words.after.is_some() || words.since.is_some() {
        let error = anyhow::anyhow!("--after and --since read from anywhere, which is done --over http");
        return Ok(exit::report(&error, json, exit::USAGE));
    }
    match read_on(context, words).await {
        Ok(0) => {
            context.output.note("no message is there");
            Ok(ExitCode::from(exit::NOTHING))
        }
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(Ending::Pipe(error)) => {
            Ok(exit::report(&anyhow::Error::new(error.clone()), json, code_of(&error)))
        }
        Err(Ending::Output(error)) => Err(error),
    }
}

/// Why reading ended.
enum Ending {
    Pipe(PipeError),
    Output(anyhow::Error),
}

impl From<PipeError> for Ending {
    fn from(error: PipeError) -> Self {
        Self::Pipe(error)
    }
}

/// How many messages were read.
async fn read_on(context: &Context, words: &ReadArgs) -> Result<usize, Ending> {
    // What is asked for and not written comes again only after a while: no more than is wanted is asked for.
    let ahead = if words.follow { AHEAD } else { words.limit.clamp(1, AHEAD) };
    let pipes = connect(context, PipesOptions { ahead, ..PipesOptions::default() }).await?;
    let Address { handle, pipe } = &words.from;
    let mut reader = pipes.reader(handle, pipe).await?;
    let first = words.wait.map_or(MOMENT, |wait| Duration::from_secs(wait).max(MOMENT));
    let mut wait = if words.follow { Duration::from_secs(LOOK) } else { first };
    let (mut count, mut failures) = (0, 0);
    loop {
        let delivery = match next(&mut reader, wait, &mut failures, words.follow).await? {
            Some(delivery) => delivery,
            None if words.follow => continue,
            None => return Ok(count),
        };
        write(context, &delivery.message).map_err(Ending::Output)?;
        acknowledge(&mut reader, &delivery, words.follow).await?;
        count += 1;
        if words.follow {
            continue;
        }
        if count >= words.limit {
            if delivery.pending > 0 {
                context.output.note(&format!("{} more to read", delivery.pending));
            }
            return Ok(count);
        }
        wait = if delivery.pending == 0 { BESIDE } else { MOMENT };
    }
}

/// The next message; a follower bears it for a while that NATS is away.
async fn next(
    reader: &mut PipeReader,
    wait: Duration,
    failures: &mut u32,
    follow: bool,
) -> Result<Option<tidegate_client::Delivery>, PipeError> {
    match reader.next(Instant::now() + wait).await {
        Ok(found) => {
            *failures = 0;
            Ok(found)
        }
        Err(error) if follow && error.is_passing() && *failures < FAILURES => {
            *failures += 1;
            sleep(AGAIN).await;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A follower goes on where nobody notes it: should the message come again, it is acknowledged then.
async fn acknowledge(
    reader: &mut PipeReader,
    delivery: &tidegate_client::Delivery,
    follow: bool,
) -> Result<(), PipeError> {
    match reader.acknowledge(delivery).await {
        Err(error) if !(follow && error.is_passing()) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
