//! Reading through one's durable reader: what was not acknowledged comes again, to whichever program of the same user asks.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_nats::{HeaderMap, StatusCode, Subscriber};
use bytes::Bytes;
use chrono::DateTime;
use futures_util::{FutureExt, StreamExt};
use tidegate_model::{Envelope, Handle, PipeSubject};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{NatsPipes, PipeError, link::Link};
use crate::{Message, PipeOpening, PipeRoute};

/// How long one request for messages stands; a connection that is renewed is used from the next one on.
const EXPIRES: Duration = Duration::from_secs(5);
/// How much later than the server its end is noticed here.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes of one request at most.
const BYTES: usize = 2 * 1_024 * 1_024;
/// The wait before something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long an answer is waited for at first that may never come: a server that was killed may have forgotten what it gave
/// out. Twice as long each time, because the server may be slow instead.
const DOUBTED: Duration = Duration::from_millis(500);
/// Messages that are remembered as given.
const REMEMBERED: usize = 4_096;
/// How often in a row the way to a pipe is asked for before its absence is believed.
const OPENED: u32 = 10;

/// Reads one pipe from where the user's reader is.
///
/// A message that was given and not acknowledged within 30 seconds comes again, to this or to another program of the user, but
/// never twice to this one. After a connection was lost, what was on its way comes again so, behind what came meanwhile: its
/// sequence tells where it belongs.
#[derive(Debug)]
pub struct PipeReader {
    pipes: NatsPipes,
    handle: Handle,
    pipe: String,
    pull: String,
    wire: Option<Wire>,
    /// What was given, the oldest first.
    given: VecDeque<Given>,
    /// What came while something else was acknowledged: the next to be given.
    early: VecDeque<Delivery>,
    opened: u32,
    skipped: u64,
}

/// A message that was read and is to be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// How many messages the reader has not got yet.
    pub pending: u64,
    ack: String,
    /// The connection that it came over.
    over: u64,
}

/// A message that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    place: Place,
    /// Whether the caller has acknowledged it.
    acknowledged: bool,
}

/// A connection, and what was asked for over it.
#[derive(Debug)]
struct Wire {
    link: Arc<Link>,
    inbox: String,
    answers: Subscriber,
    /// How many messages are still to come of what was asked for, and when that ends.
    expected: usize,
    ends: Instant,
}

/// What came.
enum Came {
    Message(Box<Delivery>),
    /// What was acknowledged before, which the server did not know.
    Again(Place),
    Nothing,
    Gone,
    Ended,
    Lost,
}

impl PipeReader {
    pub(super) fn new(
        pipes: NatsPipes,
        handle: Handle,
        pipe: String,
        route: &PipeRoute,
    ) -> Result<Self, PipeError> {
        let pull = pull_of(route)?;
        let (given, early) = (VecDeque::new(), VecDeque::new());
        Ok(Self { pipes, handle, pipe, pull, wire: None, given, early, opened: 0, skipped: 0 })
    }

    /// Things on the way that were no messages, which were passed over.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next message, waited for until `until`; nothing where none came. It may be dropped while it waits: nothing is lost.
    pub async fn next(&mut self, until: Instant) -> Result<Option<Delivery>, PipeError> {
        if let Some(delivery) = self.early.pop_front() {
            return Ok(Some(delivery));
        }
        loop {
            match self.step(until).await? {
                Came::Message(delivery) => return Ok(Some(*delivery)),
                Came::Ended if Instant::now() >= until => return Ok(None),
                Came::Ended | Came::Nothing | Came::Again(_) | Came::Lost | Came::Gone => {}
            }
        }
    }

    /// Says that a message was had, and returns once JetStream has noted it: it comes no more. Tried again over the next
    /// connection for as long as [`super::PipesOptions::timeout`].
    ///
    /// A server that was killed may not know that it gave the message out, and does not answer then: it gives it out again,
    /// which is waited for here.
    pub async fn acknowledge(&mut self, delivery: &Delivery) -> Result<(), PipeError> {
        let until = Instant::now() + self.pipes.0.options.timeout;
        // Whatever becomes of this: should it come again, it is acknowledged there and then.
        let place = origin(&delivery.ack).map(|(place, _)| place);
        let given = |known: &&mut Given| place == Some(known.place);
        if let Some(known) = self.given.iter_mut().rev().find(given) {
            known.acknowledged = true;
        }
        let mut doubted = DOUBTED;
        loop {
            let link = match &self.wire {
                Some(wire) if !wire.link.is_broken() => Arc::clone(&wire.link),
                _ => self.pipes.0.links.newer(0, until).await?,
            };
            let patience = if link.number() == delivery.over { EXPIRES } else { doubted.min(EXPIRES) };
            doubted *= 2;
            let patience = until.min(Instant::now() + patience);
            let answer = link.ask(delivery.ack.clone(), Bytes::from_static(b"+ACK"), patience).await;
            if answer.is_some() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(PipeError::NoAnswer);
            }
            self.let_come(place, until.min(Instant::now() + PAUSE)).await?;
        }
    }

    /// Takes what comes until `until`, or until what is acknowledged comes again: before anything that never came.
    async fn let_come(&mut self, awaited: Option<Place>, until: Instant) -> Result<(), PipeError> {
        let most = self.ahead();
        while self.early.len() < most {
            match timeout_at(until, self.step(until)).await {
                Ok(Ok(Came::Message(delivery))) => self.early.push_back(*delivery),
                Ok(Ok(Came::Again(place))) if awaited == Some(place) => return Ok(()),
                Ok(Ok(Came::Again(_) | Came::Nothing | Came::Gone | Came::Ended | Came::Lost)) => {}
                Ok(Err(error)) if error.is_passing() => break,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            }
        }
        sleep_until(until).await;
        Ok(())
    }

    /// How many messages are asked for at one time.
    fn ahead(&self) -> usize {
        self.pipes.0.options.ahead.clamp(1, 256)
    }

    /// What comes next; where it has to be asked for, or connected to, that is done first.
    async fn step(&mut self, until: Instant) -> Result<Came, PipeError> {
        if self.wire.is_none() {
            self.connect(until).await?;
        }
        // What has come is given before anything else is done, whatever became of its connection.
        let came = if let Some(message) = self.buffered() {
            self.heard(&message).await
        } else {
            self.ask().await;
            self.comes(until).await
        };
        match came {
            Came::Lost => self.wire = None,
            Came::Gone => self.reopen().await?,
            Came::Message(_) | Came::Again(_) | Came::Nothing | Came::Ended => {}
        }
        Ok(came)
    }

    /// Looks for a connection once.
    async fn connect(&mut self, until: Instant) -> Result<(), PipeError> {
        let patience = until.max(Instant::now() + EXPIRES);
        let link = match self.pipes.0.links.newer(0, patience).await {
            Ok(link) => link,
            Err(error) if error.is_passing() && Instant::now() < until => {
                sleep(PAUSE).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match link.inbox("").await {
            Some((inbox, answers)) => {
                let ends = Instant::now();
                self.wire = Some(Wire { link, inbox, answers, expected: 0, ends });
            }
            None => sleep(PAUSE).await,
        }
        Ok(())
    }

    /// Asks for messages where nothing more is to come of what was asked for before.
    async fn ask(&mut self) {
        let ahead = self.ahead();
        let Some(wire) = &mut self.wire else { return };
        if wire.expected > 0 && Instant::now() < wire.ends {
            return;
        }
        if self.pipes.0.links.has_newer(wire.link.number()) {
            self.wire = None;
            return;
        }
        let request = format!(r#"{{"batch":{ahead},"max_bytes":{BYTES},"expires":{}}}"#, EXPIRES.as_nanos());
        (wire.expected, wire.ends) = (ahead, Instant::now() + EXPIRES + GRACE);
        if !wire.link.write(&self.pull, wire.inbox.clone(), HeaderMap::new(), request.into()).await {
            self.wire = None;
        }
    }

    /// What has come and was not looked at.
    fn buffered(&mut self) -> Option<async_nats::Message> {
        self.wire.as_mut()?.answers.next().now_or_never().flatten()
    }

    /// What comes next over the connection.
    async fn comes(&mut self, until: Instant) -> Came {
        let Some(wire) = &mut self.wire else { return Came::Nothing };
        let message = tokio::select! {
            biased;
            message = wire.answers.next() => message,
            () = wire.link.broken() => return Came::Lost,
            () = sleep_until(until) => return Came::Ended,
            () = sleep_until(wire.ends) => return Came::Nothing,
        };
        match message {
            Some(message) => self.heard(&message).await,
            None => Came::Lost,
        }
    }

    /// What a message of the server's says.
    async fn heard(&mut self, message: &async_nats::Message) -> Came {
        let Some(wire) = &mut self.wire else { return Came::Nothing };
        match message.status {
            // Whatever status its sender wrote into it.
            _ if is_delivery(message) => {
                wire.expected = wire.expected.saturating_sub(1);
                self.opened = 0;
                self.take(message).await
            }
            None | Some(StatusCode::IDLE_HEARTBEAT) => Came::Nothing,
            Some(StatusCode::NO_RESPONDERS) => Came::Gone,
            Some(_) if is_gone(message) => Came::Gone,
            // As much as fits, or as long as it stood.
            Some(_) => {
                wire.expected = 0;
                Came::Nothing
            }
        }
    }

    /// Gives a message once.
    async fn take(&mut self, message: &async_nats::Message) -> Came {
        let Some(ack) = message.reply.as_ref().map(ToString::to_string) else { return Came::Nothing };
        let Some((place, pending)) = origin(&ack) else { return Came::Nothing };
        if let Some(known) = self.given.iter().find(|known| known.place == place) {
            if known.acknowledged {
                self.say(&ack, b"+ACK").await;
                return Came::Again(place);
            }
            return Came::Nothing;
        }
        let envelope = message
            .subject
            .parse::<PipeSubject>()
            .ok()
            .and_then(|subject| Envelope::decode(&message.payload, &subject).ok());
        let Some(envelope) = envelope else {
            self.skipped += 1;
            // It never becomes a message.
            self.say(&ack, b"+TERM").await;
            return Came::Nothing;
        };
        if self.given.len() >= REMEMBERED {
            self.given.pop_front();
        }
        self.given.push_back(Given { place, acknowledged: false });
        let Envelope { id, sender, subject, payload, created_at, in_reply_to, ack_requested } = envelope;
        let stored_at = DateTime::from_timestamp_nanos(place.nanos);
        let message = Message {
            id,
            sender,
            subject,
            payload,
            created_at,
            in_reply_to,
            ack_requested,
            sequence: place.sequence,
            stored_at: Some(stored_at),
            sender_name: None,
        };
        let over = self.wire.as_ref().map_or(0, |wire| wire.link.number());
        Came::Message(Box::new(Delivery { message, pending, ack, over }))
    }

    /// Says something of a delivery, without waiting: where it is lost, the message comes again.
    async fn say(&self, ack: &str, what: &'static [u8]) {
        if let Some(wire) = &self.wire {
            let reply = format!("{}.said", wire.inbox);
            wire.link.write(ack, reply, HeaderMap::new(), Bytes::from_static(what)).await;
        }
    }

    /// The reader is not there: the control plane makes it, or says why not.
    async fn reopen(&mut self) -> Result<(), PipeError> {
        self.opened += 1;
        if let Some(wire) = &mut self.wire {
            wire.expected = 0;
        }
        match self.pipes.0.client.open_pipe(&self.handle, &self.pipe, PipeOpening::Read).await {
            Ok(_) if self.opened >= OPENED => {
                self.opened = 0;
                Err(PipeError::NoAnswer)
            }
            Ok(route) => {
                self.pull = pull_of(&route)?;
                if self.opened > 1 {
                    sleep(PAUSE * self.opened).await;
                }
                Ok(())
            }
            Err(error) if error.is_passing() => {
                sleep(PAUSE * self.opened.min(OPENED)).await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn pull_of(route: &PipeRoute) -> Result<String, PipeError> {
    let reader = route.reader.as_deref();
    let reader = reader.ok_or_else(|| PipeError::Protocol("the pipe has no reader".to_owned()))?;
    Ok(format!("$JS.API.CONSUMER.MSG.NEXT.{}.{reader}", route.stream))
}

/// Whether it is a message of the pipe: what the server says of its own has nothing that acknowledges it.
fn is_delivery(message: &async_nats::Message) -> bool {
    message.reply.as_ref().is_some_and(|reply| reply.starts_with("$JS.ACK."))
}

/// Whether a status says that there is no reader any more.
fn is_gone(message: &async_nats::Message) -> bool {
    message.description.as_deref().is_some_and(|text| text.contains("Consumer Deleted"))
}

/// A message's place. Of a stream that was made anew the same sequence is another message, of another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    sequence: u64,
    nanos: i64,
}

/// Where a delivery comes from, and how much waits behind it, as the subject says that acknowledges it:
/// `$JS.ACK.[<domain>.<account hash>.]<stream>.<reader>.<deliveries>.<sequence>.<…>.<time>.<pending>[.<token>]`.
fn origin(ack: &str) -> Option<(Place, u64)> {
    let tokens: Vec<&str> = ack.split('.').collect();
    let from = if tokens.len() >= 11 { 6 } else { 4 };
    let token = |offset: usize| tokens.get(from + offset).copied();
    let place = Place { sequence: token(1)?.parse().ok()?, nanos: token(3)?.parse().ok()? };
    Some((place, token(4)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_says_where_it_comes_from_with_and_without_a_domain() {
        let place = Some((Place { sequence: 7, nanos: 9 }, 3));
        assert_eq!(origin("$JS.ACK.stream.me.1.7.8.9.3"), place);
        assert_eq!(origin("$JS.ACK.hub.hash.stream.me.1.7.8.9.3.token"), place);
        assert_eq!(origin("$JS.ACK.stream.me.1.x.8.9.3"), None);
        assert_eq!(origin("_INBOX.x"), None);
    }
}
