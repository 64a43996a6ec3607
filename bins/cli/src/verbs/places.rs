//! `read` by one's place: it moves behind what was written to standard output, and no further.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use tidegate_client::{Error, PlacePage, PlaceReader};

use super::messages::{AGAIN, FAILURES, LOOK, code, write};
use crate::{args::ReadArgs, context::Context, exit};

/// How often in a row the last page is confirmed before that is given up.
const CONFIRMED: u32 = 10;

/// Writes messages out, and confirms each page after that: with the next one, or by itself after the last.
pub(super) async fn read(context: &Context, words: ReadArgs) -> anyhow::Result<ExitCode> {
    let until = Instant::now() + Duration::from_secs(words.wait.unwrap_or(0));
    let mut wait = if words.follow { Some(LOOK) } else { words.wait };
    let reader = PlaceReader::new(words.from.handle.clone(), &words.from.pipe);
    let mut reading = Reading { context, reader, failures: 0 };
    loop {
        let page = match reading.next(words.limit, wait, words.follow).await {
            Ok(Some(page)) => page,
            Ok(None) => continue,
            Err(error) => return Ok(reading.refused(error)),
        };
        if page.anew {
            context.output.note("the pipe is another one than before, or came back from a backup");
        }
        for message in &page.messages {
            write(context, message)?;
        }
        if words.follow {
            continue;
        }
        if page.left > 0 {
            context.output.note(&format!("{} more to read", page.left));
        }
        if !page.messages.is_empty() {
            return reading.end().await;
        }
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 && page.skipped == 0 {
            context.output.note("no message is there");
            return Ok(ExitCode::from(exit::NOTHING));
        }
        wait = Some(left);
    }
}

/// A pipe that is read by one's place.
struct Reading<'a> {
    context: &'a Context,
    reader: PlaceReader,
    failures: u32,
}

impl Reading<'_> {
    /// The next messages; `None` where a follower is to ask again.
    async fn next(
        &mut self,
        limit: usize,
        wait: Option<u64>,
        follow: bool,
    ) -> Result<Option<PlacePage>, Error> {
        match self.reader.next(&self.context.client, Some(limit), wait).await {
            Ok(page) => {
                self.failures = 0;
                Ok(Some(page))
            }
            Err(error) if follow && error.is_passing() && self.failures < FAILURES => {
                self.failures += 1;
                tokio::time::sleep(AGAIN * self.failures.min(10)).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Confirms what was written.
    async fn end(&self) -> anyhow::Result<ExitCode> {
        let mut tries = 0;
        loop {
            let Err(error) = self.reader.confirm(&self.context.client).await else {
                return Ok(ExitCode::SUCCESS);
            };
            tries += 1;
            if error.is_passing() && tries < CONFIRMED {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            let code = code(&error);
            let error = anyhow::Error::new(error).context(
                "these messages are written, and do not count as read: the next read may give them again",
            );
            return Ok(exit::report(&error, self.context.output.json, code));
        }
    }

    fn refused(&self, error: Error) -> ExitCode {
        let code = code(&error);
        exit::report(&error.into(), self.context.output.json, code)
    }
}
