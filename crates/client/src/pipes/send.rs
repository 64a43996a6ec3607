//! Sending: several messages on their way, in the order in which they were given, each stored once.
//!
//! A connection that is lost has carried the first so many of them. The rest, and those whose acknowledgement was lost, are
//! written to the next one from the first on, under the same ids: what was stored is not stored again, and nothing is stored
//! before what was given before it. A message whose acknowledgement is late lets no later one out, for the same reason.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{HeaderMap, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use tidegate_model::{Clock, Envelope, Handle, MessageId, NewMessage, PipeSubject};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{NatsPipes, PipeError, link::Link};
use crate::{Error, IdempotencyKey, Message, MessageToSend, PipeRoute};

/// How long an acknowledgement may be late before it is asked for again, and how long before nothing new is written.
const ANSWER: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_millis(250);
/// The wait after NATS said that it cannot store for the moment.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a message is written again: NATS knows for ten minutes what it has stored.
const KNOWN: Duration = Duration::from_mins(9);
/// How long the way to a pipe whose stream is not there is not asked for again.
const OPENING: Duration = Duration::from_secs(1);

/// Sends to one pipe. Messages are stored in the order in which they were given to it. Dropping it ends what is on its way.
#[derive(Debug)]
pub struct PipeSender {
    orders: mpsc::Sender<Order>,
    subject: PipeSubject,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    task: AbortHandle,
}

impl Drop for PipeSender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message on its way.
#[derive(Debug)]
pub struct Pending {
    message: Message,
    key: String,
    stored: oneshot::Receiver<Result<Place, PipeError>>,
}

/// Where a message is.
#[derive(Debug, Clone, Copy)]
struct Place {
    sequence: u64,
    repeated: bool,
}

/// What a sender is given.
#[derive(Debug)]
struct Order {
    key: String,
    payload: Bytes,
    until: Instant,
    stored: oneshot::Sender<Result<Place, PipeError>>,
}

impl PipeSender {
    pub(super) fn new(
        pipes: NatsPipes,
        handle: Handle,
        pipe: String,
        route: PipeRoute,
    ) -> Result<Self, PipeError> {
        let subject = route.subject.parse::<PipeSubject>();
        let subject = subject.map_err(|error| PipeError::Protocol(format!("the pipe's subject {error}")))?;
        let options = &pipes.0.options;
        let (orders, given) = mpsc::channel(1);
        let (clock, timeout) = (Arc::clone(&pipes.0.client.inner.clock), options.timeout);
        let sending = Sending {
            tail: tail(&route.subject),
            prefix: format!("{}:", subject.sender.as_uuid().simple()),
            most: options.in_flight.max(1),
            pipes,
            handle,
            pipe,
            subject: route.subject,
            given,
            waiting: VecDeque::new(),
            written: 0,
            next: 0,
            wire: None,
            seen: 0,
            not_before: None,
            opened: None,
            refused: false,
        };
        let task = tokio::spawn(sending.run()).abort_handle();
        Ok(Self { orders, subject, clock, timeout, task })
    }

    /// Takes a message to be sent after those that were taken before, and returns when there is room for it among those on
    /// their way. A repeat under the same key within ten minutes is stored once.
    pub async fn send(&self, message: &MessageToSend, key: &IdempotencyKey) -> Result<Pending, PipeError> {
        let (id, now) = (MessageId::new(), self.clock.now());
        let MessageToSend { payload, in_reply_to, ack_requested } = message.clone();
        let envelope =
            Envelope::new(id, &self.subject, NewMessage { payload, in_reply_to, ack_requested }, now);
        let payload = Bytes::from(envelope.encode()?);
        let (sender, stored) = oneshot::channel();
        let key = key.as_str().to_owned();
        let order = Order { key: key.clone(), payload, until: Instant::now() + self.timeout, stored: sender };
        let Envelope { id, sender, subject, payload, created_at, in_reply_to, ack_requested } = envelope;
        let message = Message {
            id,
            sender,
            subject,
            payload,
            created_at,
            in_reply_to,
            ack_requested,
            sequence: 0,
            stored_at: None,
            sender_name: None,
        };
        // Its task ends with it and no sooner.
        self.orders.send(order).await.map_err(|_| PipeError::NoAnswer)?;
        Ok(Pending { message, key, stored })
    }
}

impl Pending {
    /// What a repeat is known by.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Waits until JetStream has said that the message is stored: the message with its place, and whether it was stored
    /// before under the same key.
    pub async fn stored(self) -> Result<(Message, bool), PipeError> {
        let Self { message, key, stored } = self;
        let Place { sequence, repeated } =
            stored.await.unwrap_or_else(|_| Err(PipeError::Unknown { key }))?;
        Ok((Message { sequence, ..message }, repeated))
    }
}

/// The part of a subject that NATS names when it refuses: behind the organization.
fn tail(subject: &str) -> String {
    subject.split_once('.').map_or(subject, |(_, rest)| rest).to_lowercase()
}

/// A connection that is written to, and where its answers come.
struct Wire {
    link: Arc<Link>,
    inbox: String,
    answers: Subscriber,
}

/// A message that nobody has acknowledged yet.
struct Flight {
    number: u64,
    order: Order,
    /// What NATS knows it by, once it was written.
    id: Option<String>,
    /// When it was last written.
    at: Option<Instant>,
}

/// The one that writes.
struct Sending {
    pipes: NatsPipes,
    handle: Handle,
    pipe: String,
    subject: String,
    /// How NATS names the subject, and how ids of this sender begin.
    tail: String,
    prefix: String,
    most: usize,
    given: mpsc::Receiver<Order>,
    /// In their order; the first `written` of them were written to `wire`.
    waiting: VecDeque<Flight>,
    written: usize,
    next: u64,
    wire: Option<Wire>,
    /// The newest connection that was used.
    seen: u64,
    not_before: Option<Instant>,
    /// When the way was last asked for.
    opened: Option<Instant>,
    /// Whether NATS refused before, over another connection.
    refused: bool,
}

/// What is known of messages that are given up after they were written.
#[derive(Clone, Copy)]
enum Outcome {
    /// They may be stored.
    Open,
    /// They are not: NATS refuses what is sent there.
    Refused,
}

/// What happened.
enum Happened {
    Answer(async_nats::Message),
    Given(Option<Order>),
    Lost,
    Superseded,
    Refused,
    Time,
}

impl Sending {
    async fn run(mut self) {
        loop {
            if self.wire.is_none() && !self.waiting.is_empty() && !self.connect().await {
                continue;
            }
            self.write().await;
            match self.happens().await {
                Happened::Answer(answer) => self.answered(&answer).await,
                Happened::Given(Some(order)) => {
                    self.waiting.push_back(Flight { number: self.next, order, id: None, at: None });
                    self.next += 1;
                }
                // Nobody sends any more, and nobody waits.
                Happened::Given(None) => return,
                Happened::Lost => self.leave(),
                // Nothing new is written to the old one; what is on its way there comes to its end.
                Happened::Superseded if self.written == 0 => self.leave(),
                Happened::Superseded | Happened::Time => self.in_time(),
                Happened::Refused => self.refused().await,
            }
        }
    }

    /// Gets a connection, or gives up what waited for one too long; whether there is one.
    async fn connect(&mut self) -> bool {
        let Some(until) = self.waiting.front().map(|first| first.order.until) else { return false };
        let after = if self.refused { self.seen } else { 0 };
        let link = match self.pipes.0.links.newer(after, until).await {
            Ok(link) => link,
            Err(error) if error.is_passing() && Instant::now() < until => {
                sleep(PAUSE).await;
                return false;
            }
            Err(error) => {
                self.give_up(&error, Outcome::Open);
                return false;
            }
        };
        let Some((inbox, answers)) = link.inbox(".*").await else {
            // Lost again: the next one is on its way.
            sleep(PAUSE).await;
            return false;
        };
        self.seen = link.number();
        self.wire = Some(Wire { link, inbox, answers });
        true
    }

    fn leave(&mut self) {
        (self.wire, self.written) = (None, 0);
    }

    /// Those whose time is over, or all of them where nothing passes.
    fn give_up(&mut self, error: &PipeError, outcome: Outcome) {
        let now = Instant::now();
        while let Some(first) = self.waiting.front() {
            if error.is_passing() && first.order.until > now {
                return;
            }
            let Some(Flight { order, at, .. }) = self.waiting.pop_front() else { return };
            self.written = self.written.saturating_sub(1);
            let said = match (at, outcome) {
                (Some(_), Outcome::Open) => PipeError::Unknown { key: order.key },
                (Some(_), Outcome::Refused) | (None, _) => error.clone(),
            };
            drop(order.stored.send(Err(said)));
        }
    }

    /// Writes what was not written yet, unless the first acknowledgement is late or a newer connection waits.
    async fn write(&mut self) {
        let Some(wire) = &self.wire else { return };
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        self.not_before = None;
        while self.written < self.waiting.len() {
            let late = |flight: &Flight| flight.at.is_some_and(|at| at.elapsed() > LATE);
            if self.written > 0 && (self.waiting.front().is_some_and(late) || self.is_superseded()) {
                return;
            }
            let Some(flight) = self.waiting.get_mut(self.written) else { return };
            let mut headers = HeaderMap::new();
            // The same one whatever connection it goes over.
            let named = || format!("{}{}", self.prefix, wire.link.name(&flight.order.key));
            let id = flight.id.get_or_insert_with(named);
            headers.insert(async_nats::header::NATS_MESSAGE_ID, id.as_str());
            let reply = format!("{}.{}", wire.inbox, flight.number);
            let payload = flight.order.payload.clone();
            if !wire.link.write(&self.subject, reply, headers, payload).await {
                return;
            }
            let now = Instant::now();
            if flight.at.is_none() {
                flight.order.until = flight.order.until.min(now + KNOWN);
            }
            flight.at = Some(now);
            self.written += 1;
        }
    }

    fn is_superseded(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| self.pipes.0.links.has_newer(wire.link.number()))
    }

    /// What happens next.
    async fn happens(&mut self) -> Happened {
        let time = self.next_time();
        let room = self.waiting.len() < self.most;
        let Some(wire) = &mut self.wire else {
            return Happened::Given(self.given.recv().await);
        };
        let (links, number) = (&self.pipes.0.links, wire.link.number());
        let idle = self.written == 0;
        tokio::select! {
            biased;
            answer = wire.answers.next() => answer.map_or(Happened::Lost, Happened::Answer),
            () = wire.link.broken() => Happened::Lost,
            () = wire.link.refuses(&self.tail) => Happened::Refused,
            order = self.given.recv(), if room => Happened::Given(order),
            () = links.superseded(number), if idle => Happened::Superseded,
            () = sleep_until(time) => Happened::Time,
        }
    }

    /// When something is to be looked at without anything happening.
    fn next_time(&self) -> Instant {
        let far = Instant::now() + ANSWER;
        let Some(first) = self.waiting.front() else { return far };
        let written = first.at.filter(|_| self.written > 0);
        let answer = written.map_or(far, |at| at + ANSWER);
        let again = self.not_before.unwrap_or(far);
        answer.min(again).min(first.order.until).min(far)
    }

    /// Gives up what is too late, and writes again what nobody answered.
    fn in_time(&mut self) {
        self.give_up(&PipeError::NoAnswer, Outcome::Open);
        let unanswered = |flight: &Flight| flight.at.is_some_and(|at| at.elapsed() >= ANSWER);
        if self.written > 0 && self.waiting.front().is_some_and(unanswered) {
            self.written = 0;
        }
    }

    /// Takes an answer.
    async fn answered(&mut self, answer: &async_nats::Message) {
        let number = answer.subject.rsplit('.').next().and_then(|token| token.parse::<u64>().ok());
        let Some(index) = self.waiting.iter().position(|flight| Some(flight.number) == number) else {
            // It was answered before.
            return;
        };
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return self.reopen(index).await;
        }
        match Answer::read(&answer.payload) {
            Ok(place) => {
                self.refused = false;
                self.end(index, Ok(place));
            }
            Err(error) if error.is_passing() => self.again_from(index),
            Err(error) => self.end(index, Err(error)),
        }
    }

    fn end(&mut self, index: usize, outcome: Result<Place, PipeError>) {
        if let Some(flight) = self.waiting.remove(index) {
            if index < self.written {
                self.written -= 1;
            }
            drop(flight.order.stored.send(outcome));
        }
    }

    /// Writes this one and those after it again, in a moment.
    fn again_from(&mut self, index: usize) {
        self.written = self.written.min(index);
        self.not_before = Some(Instant::now() + PAUSE);
    }

    /// The stream is not there: the control plane makes it, or says that the pipe is gone.
    async fn reopen(&mut self, index: usize) {
        self.again_from(index);
        if self.opened.is_some_and(|at| at.elapsed() < OPENING) {
            return;
        }
        self.opened = Some(Instant::now());
        let client = &self.pipes.0.client;
        match client.open_pipe(&self.handle, &self.pipe, crate::PipeOpening::Write).await {
            // A source that was made anew may have another creator.
            Ok(route) => (self.tail, self.subject) = (tail(&route.subject), route.subject),
            Err(error) if is_passing(&error) => {}
            Err(error) => self.give_up(&error.into(), Outcome::Refused),
        }
    }

    /// NATS does not let this token write there: the control plane says why, or the right is newer than the token.
    async fn refused(&mut self) {
        let client = &self.pipes.0.client;
        match client.open_pipe(&self.handle, &self.pipe, crate::PipeOpening::Write).await {
            Ok(_) if self.refused => {
                let what = format!("this credential may not write to {}/{}", self.handle, self.pipe);
                self.give_up(&PipeError::Refused(what), Outcome::Refused);
            }
            Err(error) if !is_passing(&error) => self.give_up(&error.into(), Outcome::Refused),
            Ok(_) | Err(_) => {
                self.refused = true;
                self.pipes.0.links.renew();
            }
        }
        self.leave();
    }
}

fn is_passing(error: &Error) -> bool {
    error.is_passing() || error.status().is_some_and(|status| status.is_server_error())
}

/// JetStream's answer to a message.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// JetStream's codes for storage that is used up, and for a stream that cannot answer for the moment.
const FULL: [u64; 4] = [10_002, 10_023, 10_047, 10_122];
const AWAY: [u64; 4] = [10_008, 10_118, 10_119, 10_077];

impl Answer {
    fn read(payload: &[u8]) -> Result<Place, PipeError> {
        let answer: Self = serde_json::from_slice(payload)
            .map_err(|error| PipeError::Protocol(format!("JetStream's answer cannot be read ({error})")))?;
        match answer.error {
            None => Ok(Place { sequence: answer.seq, repeated: answer.duplicate }),
            Some(Refusal { code, err_code, description }) => {
                let no_space = description.contains("no space");
                if FULL.contains(&err_code) || no_space {
                    Err(PipeError::Full(description))
                } else if AWAY.contains(&err_code) || (err_code == 0 && code == 503) {
                    Err(PipeError::NoAnswer)
                } else {
                    Err(PipeError::Refused(description))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_place_or_says_what_to_do() {
        let place = Answer::read(br#"{"stream":"s","seq":7,"duplicate":true}"#).unwrap();
        assert_eq!((place.sequence, place.repeated), (7, true));
        let refusal = |code: u64, text: &str| {
            let said = format!(r#"{{"error":{{"code":503,"err_code":{code},"description":"{text}"}}}}"#);
            Answer::read(said.as_bytes()).unwrap_err()
        };
        assert!(matches!(refusal(10_047, "insufficient storage"), PipeError::Full(_)));
        assert!(matches!(refusal(10_077, "no space left on device"), PipeError::Full(_)));
        assert!(matches!(refusal(10_077, "store failed"), PipeError::NoAnswer));
        assert!(matches!(refusal(0, "away"), PipeError::NoAnswer));
        assert!(matches!(refusal(10_054, "too large"), PipeError::Refused(_)));
        assert!(matches!(Answer::read(b"+OK"), Err(PipeError::Protocol(_))));
    }

    #[test]
    fn a_refusal_names_what_stands_behind_the_organization() {
        assert_eq!(tail("a.b.c.d.e"), "b.c.d.e");
    }
}
