//! Those who read: each with a place of its own in the pipe, which the reader keeps or the platform.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tidegate_client::{Client, Message, MessageList, MessageQuery};
use tidegate_model::UserId;
use tokio::time::{Instant, sleep};

use crate::{
    judge::{Mark, Placed},
    senders::{Person, Target},
};

/// Messages of one page.
const PAGE: usize = 100;
/// Seconds that a page is waited for.
const WAIT: u64 = 1;
/// The wait after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// What was delivered and not acknowledged comes again after half a minute.
const REDELIVERY: Duration = Duration::from_mins(1);
/// How long one page is asked for before the reader gives up.
const PATIENCE: Duration = Duration::from_mins(4);

/// Who keeps the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The reader, who says each time which sequence it had last: an answer that was lost is asked for again.
    Reader,
    /// The platform, which moves it with each answer. What a lost answer held is seen by the gap in the sequences, and read
    /// again by them.
    Platform,
}

/// What one cursor came to.
#[derive(Debug)]
pub(crate) struct Cursor {
    person: Person,
    target: Target,
    keeper: Keeper,
    senders: Vec<UserId>,
    pub(crate) read: Vec<Placed>,
    last: u64,
    /// Messages that came in no answer, and were read again by their sequence.
    pub(crate) recovered: usize,
    /// Messages that came once more, which is seen by their sequence.
    pub(crate) again: usize,
    /// Answers that did not come.
    pub(crate) failures: usize,
    /// What was not as it must be.
    pub(crate) problems: Vec<String>,
}

impl Cursor {
    pub(crate) fn new(person: Person, target: Target, keeper: Keeper, senders: Vec<UserId>) -> Self {
        let (read, problems) = (Vec::new(), Vec::new());
        Self { person, target, keeper, senders, read, last: 0, recovered: 0, again: 0, failures: 0, problems }
    }

    /// Reads until `over` and nothing is left.
    pub(crate) async fn run(&mut self, over: &AtomicBool) {
        loop {
            // Asked before the page is: what is sent until then is in it.
            let last_round = over.load(Ordering::Acquire);
            let after = (self.keeper == Keeper::Reader).then_some(self.last);
            let Some(page) = self.page(after, PAGE).await else { return };
            let nothing = page.last.is_none();
            self.take(page).await;
            if last_round && nothing {
                break;
            }
        }
        // The very last answer may be the lost one.
        self.fill(None).await;
    }

    /// Reads until this sequence, or until nothing is left: those who send meanwhile are not caught up with.
    pub(crate) async fn run_to(&mut self, end: u64) {
        while self.last < end {
            let Some(page) = self.page(Some(self.last), PAGE).await else { return };
            if page.last.is_none() {
                return;
            }
            self.take(page).await;
        }
    }

    /// One page; none when it could not be had for so long that the reader gives up.
    async fn page(&mut self, after: Option<u64>, limit: usize) -> Option<MessageList> {
        let Target { handle, pipe } = &self.target;
        let query = MessageQuery { after, since: None, limit: Some(limit.min(PAGE)), wait: Some(WAIT) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read = async |client: &Client| client.messages(handle, pipe, &query).await;
            match self.person.asker.once(read).await {
                Ok(page) => return Some(page),
                Err(error) if error.is_passing() && Instant::now() < deadline => {
                    self.failures += 1;
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    self.problems.push(format!("read: {error}"));
                    return None;
                }
            }
        }
    }

    async fn take(&mut self, page: MessageList) {
        if page.skipped > 0 {
            self.problems.push(format!("{} things in the pipe are no messages", page.skipped));
        }
        for message in page.messages {
            if message.sequence <= self.last {
                self.again += 1;
                continue;
            }
            if self.keeper == Keeper::Platform && message.sequence > self.last + 1 {
                self.fill(Some(message.sequence)).await;
            }
            self.note(&message);
        }
    }

    /// Reads by sequence what is between the last message and `end`, or all there is.
    async fn fill(&mut self, end: Option<u64>) {
        loop {
            let limit = end.map_or(PAGE as u64, |end| end - self.last - 1);
            if limit == 0 {
                return;
            }
            let limit = usize::try_from(limit).unwrap_or(PAGE);
            let Some(page) = self.page(Some(self.last), limit).await else { return };
            let fresh: Vec<Message> = page
                .messages
                .into_iter()
                .filter(|found| end.is_none_or(|end| found.sequence < end))
                .collect();
            if fresh.is_empty() {
                return;
            }
            for message in fresh {
                self.recovered += 1;
                self.note(&message);
            }
        }
    }

    fn note(&mut self, message: &Message) {
        self.last = message.sequence;
        match mark(message) {
            Some(mark) if self.senders.get(mark.sender) == Some(&message.sender) => {
                self.read.push(Placed { mark, sequence: message.sequence });
            }
            _ => self.problems.push(format!("a stranger's message at {}", message.sequence)),
        }
    }

    /// Messages that the platform still counts as unread when it has had the time to deliver once more what died with a
    /// process on its way: none, where it keeps the place and all were read.
    pub(crate) async fn left(&mut self) -> u64 {
        let deadline = Instant::now() + REDELIVERY;
        while self.keeper == Keeper::Platform {
            let Some(page) = self.page(None, PAGE).await else { return 1 };
            let unread = page.unread.unwrap_or_default();
            self.take(page).await;
            if unread == 0 || Instant::now() > deadline {
                return unread;
            }
        }
        0
    }
}

/// What the load wrote into a message.
fn mark(message: &Message) -> Option<Mark> {
    let text = std::str::from_utf8(message.payload.as_bytes()).ok()?;
    let mut words = text.split(' ');
    Some(Mark { sender: words.next()?.parse().ok()?, number: words.next()?.parse().ok()? })
}
