//! Those who read: each with a place of its own in the pipe, which the reader keeps or the platform.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tidegate_client::{Client, Message, MessageList, MessageQuery, PlacePage, PlaceReader, ReadPlace};
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
    /// The platform, which moves it when the reader confirms a page with its next request. The reader keeps what it had last
    /// with its work alone, and looks at that only when it was started anew.
    Platform,
    /// The platform, which moves it with each answer. What a lost answer held is seen by the gap in the sequences, and read
    /// again by them.
    Shared,
}

/// Every so many pages one is thrown away as if its answer had been lost, and every so many the reader is started anew and has
/// forgotten what it confirmed.
const LOST: usize = 5;
const STARTED: usize = 11;

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
    /// Pages that were thrown away, and how often the reader was started anew.
    pub(crate) thrown: usize,
    pub(crate) starts: usize,
    /// What was not as it must be.
    pub(crate) problems: Vec<String>,
}

impl Cursor {
    pub(crate) fn new(person: Person, target: Target, keeper: Keeper, senders: Vec<UserId>) -> Self {
        Self {
            person,
            target,
            keeper,
            senders,
            read: Vec::new(),
            last: 0,
            recovered: 0,
            again: 0,
            failures: 0,
            thrown: 0,
            starts: 0,
            problems: Vec::new(),
        }
    }

    /// Reads until `over` and nothing is left.
    pub(crate) async fn run(&mut self, over: &AtomicBool) {
        if self.keeper == Keeper::Platform {
            return self.run_confirming(over).await;
        }
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

    /// The same by a place that moves when it is told to.
    async fn run_confirming(&mut self, over: &AtomicBool) {
        let mut place = self.start();
        for number in 1.. {
            let last_round = over.load(Ordering::Acquire);
            let Some((page, next)) = self.place_page(&place).await else { return };
            let nothing = page.messages.is_empty();
            if number % LOST == 0 && !nothing {
                // Its answer was lost, as far as this reader knows: it confirms nothing and asks again.
                self.thrown += 1;
                continue;
            }
            place = next;
            self.take_page(page);
            if number % STARTED == 0 {
                place = self.start();
            } else if last_round && nothing {
                break;
            }
        }
        let end = self.patiently(async |client| place.confirm(client).await).await;
        let unread = end.flatten().map_or(0, |ReadPlace { unread, .. }| unread);
        if unread > 0 {
            self.problems.push(format!("{unread} messages are unread behind what was confirmed"));
        }
    }

    /// A reader that knows nothing, as after a start.
    fn start(&mut self) -> PlaceReader {
        self.starts += 1;
        PlaceReader::new(self.target.handle.clone(), self.target.pipe)
    }

    /// The page behind the place, and the reader that has had it.
    async fn place_page(&mut self, place: &PlaceReader) -> Option<(PlacePage, PlaceReader)> {
        let read = async |client: &Client| {
            let mut place = place.clone();
            let page = place.next(client, Some(PAGE), Some(WAIT)).await?;
            Ok((page, place))
        };
        self.patiently(read).await
    }

    fn take_page(&mut self, page: PlacePage) {
        if page.skipped > 0 || page.anew {
            let PlacePage { skipped, anew, .. } = page;
            self.problems.push(format!("{skipped} things in the pipe are no messages, made anew: {anew}"));
        }
        for message in page.messages {
            if message.sequence <= self.last {
                self.again += 1;
            } else {
                self.note(&message);
            }
        }
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
        let limit = Some(limit.min(PAGE));
        let query = MessageQuery { after, limit, wait: Some(WAIT), ..MessageQuery::default() };
        let (handle, pipe) = (handle.clone(), *pipe);
        self.patiently(async |client| client.messages(&handle, pipe, &query).await).await
    }

    /// Asks until there is an answer, and counts those that did not come; none when the reader gives up.
    async fn patiently<T>(
        &mut self,
        call: impl AsyncFn(&Client) -> Result<T, tidegate_client::Error>,
    ) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.person.asker.once(&call).await {
                Ok(answer) => return Some(answer),
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
            if self.keeper == Keeper::Shared && message.sequence > self.last + 1 {
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
        while self.keeper != Keeper::Reader {
            let Some(page) = self.page(None, PAGE).await else { return 1 };
            let unread = page.unread.unwrap_or_default();
            if self.keeper == Keeper::Platform && !page.messages.is_empty() {
                self.problems.push("what was confirmed was read by somebody else again".to_owned());
            }
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
