//! Following: every message of a pipe from a place on, once and in order, without moving anybody's place. A connection that
//! breaks is made again where it broke.

use std::{collections::VecDeque, time::Duration};

use chrono::{DateTime, Utc};
use tidegate_model::Handle;
use tokio::time::sleep;

use crate::{Client, Error, Message, MessageList, MessageQuery};

/// Messages of one look at most.
const TOGETHER: usize = 100;
/// Seconds that one look waits for a message.
const LOOK: u64 = 20;

/// Where following begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeFrom {
    /// Behind this sequence, 0 for all that is kept.
    After(u64),
    /// With what was stored at this moment or later.
    Since(DateTime<Utc>),
    /// With what is sent once the first message is asked for.
    Now,
}

/// What a follower hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// A message.
    Message(Box<Message>),
    /// Everything that is kept was given; what follows is new. Said once.
    CaughtUp,
    /// The pipe was made anew: what follows begins with its first message.
    Anew,
    /// So many messages were no longer kept when their turn came.
    Missed(u64),
    /// The control plane or the broker is away, for the reason that is said; it is asked again and again.
    Away(String),
    /// It is back.
    Back,
}

/// A pipe that is followed. Made by [`Client::follow_pipe`].
#[derive(Debug)]
pub struct PipeFollower {
    client: Client,
    handle: Handle,
    pipe: String,
    from: PipeFrom,
    incarnation: Option<DateTime<Utc>>,
    heard: VecDeque<Followed>,
    caught_up: bool,
    failures: u32,
}

impl Client {
    /// Follows a pipe that the caller may read. Asks nothing before the first message is asked for.
    pub fn follow_pipe(&self, handle: &Handle, pipe: &str, from: PipeFrom) -> PipeFollower {
        PipeFollower {
            client: self.clone(),
            handle: handle.clone(),
            pipe: pipe.to_owned(),
            from,
            incarnation: None,
            heard: VecDeque::new(),
            caught_up: false,
            failures: 0,
        }
    }
}

impl PipeFollower {
    /// What comes next. Dropped while it waits it loses nothing, but asks again.
    ///
    /// Fails where the pipe is not there any more or not for the caller.
    pub async fn next(&mut self) -> Result<Followed, Error> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(heard);
            }
            match self.look().await {
                Ok(page) => {
                    if std::mem::take(&mut self.failures) > 0 {
                        self.heard.push_back(Followed::Back);
                    }
                    self.hear(page);
                }
                Err(error) if error.is_passing() => {
                    self.failures = self.failures.saturating_add(1);
                    let wait = self.client.wait_before(self.failures);
                    if self.failures == 1 {
                        self.heard.push_back(Followed::Away(error.to_string()));
                    } else {
                        sleep(wait.min(Duration::from_secs(5))).await;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn look(&mut self) -> Result<MessageList, Error> {
        if self.from == PipeFrom::Now {
            let end = self.client.pipe_end(&self.handle, &self.pipe).await?;
            (self.from, self.incarnation) = (PipeFrom::After(end.last), end.incarnation);
        }
        let (after, since) = match self.from {
            PipeFrom::After(sequence) => (Some(sequence), None),
            PipeFrom::Since(time) => (None, Some(time)),
            PipeFrom::Now => (None, None),
        };
        // What is kept is not waited for, so that its end is seen.
        let wait = self.caught_up.then_some(LOOK);
        let query = MessageQuery { confirmed: None, after, since, limit: Some(TOGETHER), wait };
        self.client.messages(&self.handle, &self.pipe, &query).await
    }

    fn hear(&mut self, page: MessageList) {
        let before = self.incarnation;
        self.incarnation = page.incarnation.or(before);
        if before.is_some() && before != self.incarnation {
            self.from = PipeFrom::After(0);
            self.heard.push_back(Followed::Anew);
            return;
        }
        let Some(last) = page.last else {
            if !std::mem::replace(&mut self.caught_up, true) {
                self.heard.push_back(Followed::CaughtUp);
            }
            return;
        };
        // At the beginning nobody can miss what was not kept.
        if let PipeFrom::After(after @ 1..) = self.from {
            let looked_at = (page.messages.len() as u64).saturating_add(page.skipped);
            let missed = last.saturating_sub(after).saturating_sub(looked_at);
            if missed > 0 {
                self.heard.push_back(Followed::Missed(missed));
            }
        }
        self.from = PipeFrom::After(last);
        self.heard.extend(page.messages.into_iter().map(|message| Followed::Message(Box::new(message))));
    }
}
