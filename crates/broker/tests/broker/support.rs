//! What the tests of this room share.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, Event};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tidegate_broker::{
    MAX_MESSAGE_BYTES, Outgoing, PipeSubject, Principal, Retention, StreamName, StreamSpec, WriteGrant,
};
use tidegate_model::{Clock as _, SystemClock};
use tidegate_test_support::nats::TestOrgAccount;
use tokio::sync::mpsc;
use uuid::Uuid;

/// The present.
pub(crate) fn now() -> DateTime<Utc> {
    SystemClock::new().now()
}

/// A pipe of a user, with its stream's name.
#[derive(Debug, Clone)]
pub(crate) struct Pipe {
    pub(crate) subject: PipeSubject,
    pub(crate) stream: StreamName,
}

/// Small, so that many fit.
pub(crate) const RETENTION: Retention =
    Retention { age: Duration::from_hours(1), messages: 1_000, bytes: 1024 * 1024 };

pub(crate) fn pipe_of(org: &TestOrgAccount, creator: Uuid, handle: &str, pipe: &str) -> Pipe {
    let subject = PipeSubject::new(org.account.organization, creator, handle, pipe).unwrap();
    Pipe { subject, stream: StreamName::of_pipe(Uuid::new_v4(), pipe).unwrap() }
}

/// A pipe with its stream.
pub(crate) async fn open_pipe(org: &TestOrgAccount, creator: Uuid, handle: &str, pipe: &str) -> Pipe {
    let pipe = pipe_of(org, creator, handle, pipe);
    org.broker.ensure_stream(&spec(&pipe, RETENTION)).await.unwrap();
    pipe
}

pub(crate) fn spec(pipe: &Pipe, retention: Retention) -> StreamSpec {
    StreamSpec { name: pipe.stream.clone(), subject: pipe.subject.clone(), retention }
}

pub(crate) fn message(pipe: &Pipe, sender: Uuid, id: &str, payload: &str) -> Outgoing {
    assert!(payload.len() <= MAX_MESSAGE_BYTES);
    let payload = Bytes::from(payload.to_owned());
    Outgoing { pipe: pipe.subject.clone(), sender, id: id.to_owned(), headers: Vec::new(), payload }
}

/// A user's program as it is after the exchange, and what the server said to it.
pub(crate) struct Person {
    pub(crate) client: Client,
    refusals: mpsc::UnboundedReceiver<String>,
}

impl Person {
    pub(crate) async fn of(org: &TestOrgAccount, id: Uuid, grants: &[WriteGrant]) -> Self {
        let principal = Principal::new(id);
        let rights = principal.permissions(grants).unwrap();
        let (sender, refusals) = mpsc::unbounded_channel();
        let inbox_prefix = principal.inbox_prefix();
        let tell = move |event| {
            if let Event::ServerError(error) = event {
                sender.send(error.to_string()).ok();
            }
        };
        Self { client: org.client_with(&rights, &inbox_prefix, tell).await, refusals }
    }

    /// What the server says to a request without an answer.
    pub(crate) async fn outcome(&self, subject: &str, body: &str) -> Outcome {
        let request = async_nats::Request::new()
            .payload(Bytes::from(body.to_owned()))
            .timeout(Some(Duration::from_millis(700)));
        match self.client.send_request(subject.to_owned(), request).await {
            Ok(answer) => Outcome::Answer(String::from_utf8_lossy(&answer.payload).into_owned()),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Outcome::Nobody,
            Err(_) => Outcome::Silence,
        }
    }

    /// Every refusal so far; what was sent before has been judged when this returns.
    pub(crate) async fn refusals(&mut self) -> Vec<String> {
        self.client.flush().await.unwrap();
        let mut found = Vec::new();
        while let Ok(text) = self.refusals.try_recv() {
            found.push(text);
        }
        found
    }

    /// Asserts that the server refuses to let this person publish there, in words.
    pub(crate) async fn may_not_publish(&mut self, subject: &str) {
        self.refusals().await;
        self.client.publish(subject.to_owned(), Bytes::from_static(b"{}")).await.unwrap();
        self.is_refused("Publish", subject).await;
    }

    /// Asserts that the server refuses to let this person subscribe there, in words.
    pub(crate) async fn may_not_subscribe(&mut self, subject: &str) {
        self.refusals().await;
        let subscription = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.is_refused("Subscription", subject).await;
        drop(subscription);
    }

    /// Asserts that the server's next words to this person are a refusal of this kind and subject. Subjects of pipes are
    /// named by it as they are mapped, without the organization.
    pub(crate) async fn is_refused(&mut self, what: &str, subject: &str) {
        let next = tokio::time::timeout(tidegate_test_support::DEADLINE, self.refusals.recv());
        let refusal =
            next.await.unwrap_or_else(|_| panic!("{subject} was not refused")).unwrap().to_lowercase();
        let end = subject.split_once('.').map_or(subject, |(_, rest)| rest).to_lowercase();
        assert!(refusal.contains("violation") && refusal.contains(&what.to_lowercase()), "{refusal}");
        assert!(refusal.contains(&end), "{refusal} is not about {subject}");
    }
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer(String),
    Nobody,
    Silence,
}

impl Outcome {
    pub(crate) fn answer(self) -> String {
        match self {
            Self::Answer(text) => text,
            other => panic!("no answer: {other:?}"),
        }
    }
}
