//! `send` and `read`, whose exit codes tell scripts what to do next.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tidegate_client::{Error, IdempotencyKey, Message, MessageList, MessageQuery, MessageToSend, StatusCode};
use tidegate_model::Payload;

use super::{lines, nats, people::MOST, places};
use crate::{
    args::{Address, Over, ReadArgs, ReceiptArgs, SendArgs, WhoArgs},
    context::Context,
    exit,
    output::{self, plain},
};

/// The most that is read to be sent: base64 makes more of it than an envelope may have.
pub(super) const LARGEST: u64 = 64 * 1_024;
/// The wait before a message is sent, or asked for, once more.
pub(super) const AGAIN: Duration = Duration::from_millis(500);
/// Seconds that one look waits while messages are followed.
pub(super) const LOOK: u64 = 20;
/// Failures in a row after which a follower gives up.
pub(super) const FAILURES: u32 = 60;

pub(super) async fn send(context: &Context, words: SendArgs) -> anyhow::Result<ExitCode> {
    if words.lines {
        return lines::send(context, &words).await;
    }
    let key = match &words.key {
        Some(key) => IdempotencyKey::new(key)?,
        None => IdempotencyKey::random(),
    };
    let Some(payload) = payload(&words)? else {
        let error =
            anyhow::anyhow!("a message may have 64 KiB with its envelope: send less, or send parts of it");
        return Ok(exit::report(&error, context.output.json, exit::NO_ROOM));
    };
    let message = MessageToSend { payload, in_reply_to: words.reply_to, ack_requested: words.ack };
    let Address { handle, pipe } = &words.to;
    let timeout = Duration::from_secs(words.timeout);
    let outcome = match words.over {
        Over::Http => over_http(context, &words.to, &message, &key, timeout).await,
        Over::Nats => nats::send(context, &words.to, &message, &key, timeout).await,
    };
    match outcome {
        Ok(sent) => {
            let text = || format!("{} is stored in {handle}/{} at {}", sent.id, plain(pipe), sent.sequence);
            context.output.answer(&sent, text)?;
            match words.wait_read {
                Some(seconds) => until_read(context, &words.to, sent.sequence, seconds).await,
                None => Ok(ExitCode::SUCCESS),
            }
        }
        Err(failure) => Ok(exit::report(&failure.error, context.output.json, failure.code)),
    }
}

/// Why a message is not sent, and what scripts are told.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: anyhow::Error,
    pub(super) code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: code(&error), error: error.into() }
    }
}

/// Sends a message through the control plane, again and again where nobody answers, always under one key.
pub(super) async fn over_http(
    context: &Context,
    to: &Address,
    message: &MessageToSend,
    key: &IdempotencyKey,
    timeout: Duration,
) -> Result<Message, Failure> {
    let until = Instant::now() + timeout;
    loop {
        let error = match context.client.send_message(&to.handle, &to.pipe, message, key.clone()).await {
            Ok(sent) => return Ok(sent),
            Err(error) => error,
        };
        if error.is_passing() && Instant::now() + AGAIN < until {
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        let code = code(&error);
        let error = anyhow::Error::new(error);
        let error = if code == exit::NO_ANSWER {
            let known = key.as_str();
            error.context(format!(
                "it is not known whether the message is stored: send it again with --key {known}, and it is stored once"
            ))
        } else {
            error
        };
        return Err(Failure { error, code });
    }
}

/// Waits until somebody has read a message.
async fn until_read(
    context: &Context,
    to: &Address,
    sequence: u64,
    seconds: u64,
) -> anyhow::Result<ExitCode> {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        match context.client.receipts(&to.handle, &to.pipe, sequence).await {
            Ok(found) if !found.receipts.is_empty() => {
                let names: Vec<String> =
                    found.receipts.iter().map(|receipt| plain(&receipt.username)).collect();
                context.output.note(&format!("read by {}", names.join(", ")));
                return Ok(ExitCode::SUCCESS);
            }
            Ok(_) => {}
            Err(error) if error.is_passing() => {}
            Err(error) => {
                let code = code(&error);
                return Ok(exit::report(&error.into(), context.output.json, code));
            }
        }
        if Instant::now() + AGAIN > until {
            context
                .output
                .note(&format!("nobody has read it within {seconds} s; `tidegate receipts` tells later"));
            return Ok(ExitCode::from(exit::NOTHING));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// `receipts`.
pub(super) async fn receipts(context: &Context, words: ReceiptArgs) -> anyhow::Result<ExitCode> {
    let Address { handle, pipe } = &words.of;
    let found = match context.client.receipts(handle, pipe, words.sequence).await {
        Ok(found) => found,
        Err(error) => {
            let code = code(&error);
            return Ok(exit::report(&error.into(), context.output.json, code));
        }
    };
    context.output.answer(&found, || output::receipts(&found))?;
    Ok(if found.receipts.is_empty() { ExitCode::from(exit::NOTHING) } else { ExitCode::SUCCESS })
}

/// `subs`.
pub(super) async fn subs(context: &Context) -> anyhow::Result<ExitCode> {
    let client = &context.client;
    let mut page = client.subscriptions(None).await?;
    while let Some(cursor) = page.next_cursor.take().filter(|_| page.subscriptions.len() < MOST) {
        let next = client.subscriptions(Some(&cursor)).await?;
        page.subscriptions.extend(next.subscriptions);
        page.next_cursor = next.next_cursor;
    }
    context.output.answer(&page, || output::subscriptions(&page.subscriptions))?;
    Ok(ExitCode::SUCCESS)
}

/// `who`.
pub(super) async fn who(context: &Context, words: WhoArgs) -> anyhow::Result<ExitCode> {
    let client = &context.client;
    if let Some(handle) = &words.handle {
        let (source, list) = (client.source(handle).await?, client.source_grants(handle).await?);
        let shown = serde_json::json!({"source": source, "grants": list.grants});
        context.output.answer(&shown, || output::users_of(&source, &list.grants))?;
        return Ok(ExitCode::SUCCESS);
    }
    let page = client.seen_members(None).await?;
    context.output.answer(&page, || output::seen(&page.members))?;
    if page.next_cursor.is_some() {
        context.output.note(&format!("the last {} of {}", page.members.len(), page.total));
    }
    Ok(ExitCode::SUCCESS)
}

/// What to say; `None` where it is certainly too large.
fn payload(words: &SendArgs) -> anyhow::Result<Option<Payload>> {
    let bytes = match (&words.text, &words.file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(file)) => {
            let opened =
                std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
            whole(opened)?
        }
        (None, None) => whole(io::stdin().lock())?,
    };
    if bytes.len() as u64 > LARGEST {
        return Ok(None);
    }
    Ok(Some(payload_of(bytes)))
}

/// A text where it is one.
pub(super) fn payload_of(bytes: Vec<u8>) -> Payload {
    match String::from_utf8(bytes) {
        Ok(text) => Payload::Text(text),
        Err(error) => Payload::Bytes(error.into_bytes()),
    }
}

/// Reads to the end, or until it is too much.
fn whole(from: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes).context("cannot read what to send")?;
    Ok(bytes)
}

/// `read`: over NATS, by one's place, or from anywhere.
pub(super) async fn read(context: &Context, words: ReadArgs) -> anyhow::Result<ExitCode> {
    if words.over == Over::Nats {
        return nats::read(context, &words).await;
    }
    if words.after.is_none() && words.since.is_none() {
        return places::read(context, words).await;
    }
    let mut query = MessageQuery {
        confirmed: None,
        after: words.after,
        since: words.since,
        limit: Some(words.limit),
        wait: if words.follow { Some(LOOK) } else { words.wait },
    };
    let until = Instant::now() + Duration::from_secs(words.wait.unwrap_or(0));
    let mut reading = Reading { context, from: words.from, incarnation: None, failures: 0 };
    loop {
        let page = match reading.next(&query, words.follow).await {
            Ok(Some(page)) => page,
            Ok(None) => continue,
            Err(error) => {
                let code = code(&error);
                return Ok(exit::report(&error.into(), context.output.json, code));
            }
        };
        if reading.is_anew(&page) {
            context.output.note("the pipe was made anew, it begins with its first message");
            query.after = Some(0);
            continue;
        }
        for message in &page.messages {
            write(context, message)?;
        }
        if let Some(last) = page.last {
            (query.after, query.since) = (Some(last), None);
        }
        if words.follow {
            continue;
        }
        if !page.messages.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        // Behind things that are no messages there may be some.
        if left == 0 && (page.skipped == 0 || page.last.is_none()) {
            context.output.note("no message is there");
            return Ok(ExitCode::from(exit::NOTHING));
        }
        query.wait = Some(left);
    }
}

/// A pipe that is read.
struct Reading<'a> {
    context: &'a Context,
    from: Address,
    incarnation: Option<chrono::DateTime<chrono::Utc>>,
    failures: u32,
}

impl Reading<'_> {
    /// The next messages; `None` where a follower is to ask again.
    async fn next(&mut self, query: &MessageQuery, follow: bool) -> Result<Option<MessageList>, Error> {
        match self.context.client.messages(&self.from.handle, &self.from.pipe, query).await {
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

    /// Whether sequences mean other messages than before.
    fn is_anew(&mut self, page: &MessageList) -> bool {
        let before = self.incarnation;
        self.incarnation = page.incarnation.or(before);
        before.is_some() && before != self.incarnation
    }
}

/// A line, or what was sent as it was sent where nobody looks at it.
pub(super) fn write(context: &Context, message: &Message) -> anyhow::Result<()> {
    if context.output.json {
        return output::json_line(message);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", output::message(message))?;
    Ok(out.flush()?)
}

/// What a failure tells scripts.
pub(super) fn code(error: &Error) -> u8 {
    match error.status() {
        _ if error.is_passing() => exit::NO_ANSWER,
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => exit::REFUSED,
        Some(StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INSUFFICIENT_STORAGE) => exit::NO_ROOM,
        None if matches!(error, Error::NotLoggedIn(_) | Error::LoginEnded) => exit::REFUSED,
        _ => exit::FAILURE,
    }
}
