//! Changes of sessions, commands and agents as they happen, surviving a lost connection and a restart of the server.

use std::{collections::VecDeque, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::{Stream, stream};
use reqwest::{
    Response,
    header::{ACCEPT, HeaderValue},
};
use serde::Deserialize;
use tidegate_model::{Change, Event, EventId, EventKind, Secret, SessionId};
use tokio::time::timeout;

use crate::{Client, Error, call::Call};

/// Failures in a row after which a listener gives up: about five minutes with the default backoff.
const FAILURES: u32 = 36;
/// The server says something every 15 seconds: after so long without a word it is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Longest event that is read: a reason has a few hundred bytes.
const LONGEST: usize = 1 << 20;

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Of this session alone.
    pub session: Option<SessionId>,
    /// Of these kinds alone; of every kind when empty.
    pub kinds: Vec<EventKind>,
    /// Those after this one, [`EventId::START`] for all that are kept; those from now on where absent.
    pub after: Option<EventId>,
}

/// A way into the stream for a browser.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventTicket {
    /// Good for one WebSocket, as subprotocols `tidegate.v1, ticket.<ticket>`.
    pub ticket: Secret<String>,
    /// Until then.
    pub expires_at: DateTime<Utc>,
    /// Where the stream is.
    pub url: String,
}

/// Events, each once and in order. Made by [`Client::events`].
#[derive(Debug)]
pub struct Events {
    client: Client,
    query: EventQuery,
    body: Option<Response>,
    reader: Reader,
    place: Option<EventId>,
    failures: u32,
}

impl Client {
    /// `GET events`: what changes from the moment this returns on, or since the event that is named. A connection that is
    /// cut is opened again where it broke.
    pub async fn events(&self, query: EventQuery) -> Result<Events, Error> {
        let place = query.after;
        let body = Some(self.open_events(&query, place).await?);
        let mut events =
            Events { client: self.clone(), query, body, reader: Reader::default(), place, failures: 0 };
        // The server says from where on it begins before anything else: without it a connection that is lost before the
        // first event would be opened again somewhere else.
        while events.place.is_none() && events.reader.events.is_empty() {
            events.read().await?;
        }
        Ok(events)
    }

    /// `POST events/ticket`.
    pub async fn event_ticket(&self) -> Result<EventTicket, Error> {
        self.fetch(Call::post(&["events", "ticket"])).await
    }

    async fn open_events(&self, query: &EventQuery, after: Option<EventId>) -> Result<Response, Error> {
        let kinds: Vec<&str> = query.kinds.iter().map(|kind| kind.as_str()).collect();
        let call = Call::get(&["events"])
            .query_if("session", query.session)
            .query_if("kind", (!kinds.is_empty()).then(|| kinds.join(",")))
            .query_if("after", after)
            .header(ACCEPT, HeaderValue::from_static("text/event-stream"))
            .streaming();
        self.send(&call).await
    }
}

impl Events {
    /// Up to where everything was given: `after` for a listener that goes on later.
    pub const fn place(&self) -> Option<EventId> {
        self.place
    }

    /// The next event. It comes when it comes: drop this to stop waiting, and call it again without losing anything.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            while let Some(said) = self.reader.events.pop_front() {
                if let Some(event) = self.note(said) {
                    return Ok(event);
                }
            }
            self.read().await?;
        }
    }

    /// The same as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Error>> {
        stream::unfold(Some(self), |events| async move {
            let mut events = events?;
            let next = events.next().await;
            let rest = next.is_ok().then_some(events);
            Some((next, rest))
        })
    }

    /// Takes note of what was said; `None` where it is no event that is new.
    fn note(&mut self, said: Said) -> Option<Event> {
        let (id, event) = match said {
            Said::Place(id) => (id, None),
            Said::Event(event) => (event.id, Some(event)),
        };
        // A reset may lead back: the server's database is another one, or an older one.
        let reset = event.as_ref().is_some_and(|event| matches!(event.change, Change::Reset(_)));
        if !reset && self.place.is_some_and(|place| id <= place) {
            return None;
        }
        self.place = Some(id);
        event.map(|event| *event)
    }

    /// Reads a piece, or opens the connection again.
    async fn read(&mut self) -> Result<(), Error> {
        let Some(body) = &mut self.body else { return self.resume().await };
        match timeout(SILENCE, body.chunk()).await {
            Ok(Ok(Some(bytes))) => {
                self.failures = 0;
                self.reader.take(&bytes)?;
                // What only moves the place is taken note of at once.
                while let Some(Said::Place(_)) = self.reader.events.front() {
                    if let Some(said) = self.reader.events.pop_front() {
                        self.note(said);
                    }
                }
                Ok(())
            }
            // A server that stops ends the stream; one that is gone says nothing.
            Ok(Ok(None)) | Err(_) => {
                self.lose();
                Ok(())
            }
            Ok(Err(error)) => {
                self.lose();
                let error = self.client.transport(error);
                self.failed(error)
            }
        }
    }

    fn lose(&mut self) {
        self.body = None;
        // Half an event is asked for again; whole ones that wait are given first.
        self.reader.forget();
    }

    async fn resume(&mut self) -> Result<(), Error> {
        tokio::time::sleep(self.client.wait_before(self.failures)).await;
        // What was read and not given yet is not asked for again.
        let last = self.reader.events.back().map(Said::id);
        match self.client.open_events(&self.query, last.or(self.place)).await {
            Ok(body) => {
                self.body = Some(body);
                Ok(())
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        if error.is_passing() && self.failures < FAILURES { Ok(()) } else { Err(error) }
    }
}

/// Something that the server said.
#[derive(Debug)]
enum Said {
    /// The stream is whole up to here.
    Place(EventId),
    Event(Box<Event>),
}

impl Said {
    fn id(&self) -> EventId {
        match self {
            Self::Place(id) => *id,
            Self::Event(event) => event.id,
        }
    }
}

/// Server-sent events, as the HTML standard reads them.
#[derive(Debug, Default)]
struct Reader {
    line: Vec<u8>,
    id: Option<EventId>,
    data: String,
    events: VecDeque<Said>,
}

impl Reader {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.hear(String::from_utf8_lossy(&line).trim_end_matches('\r'));
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() + self.data.len() > LONGEST {
            return Err(Error::Protocol(format!("an event has more than {LONGEST} bytes")));
        }
        Ok(())
    }

    fn hear(&mut self, line: &str) {
        if line.is_empty() {
            let (data, id) = (std::mem::take(&mut self.data), self.id.take());
            // Events of a later version are none of ours; their place is.
            match serde_json::from_str::<Event>(&data) {
                Ok(event) => self.events.push_back(Said::Event(Box::new(event))),
                Err(_) => self.events.extend(id.map(Said::Place)),
            }
            return;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.id = value.parse().ok(),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments, `event`, which the data says too, and `retry`, which is for browsers.
            _ => {}
        }
    }

    fn forget(&mut self) {
        self.line.clear();
        self.data.clear();
        self.id = None;
    }
}
