//! Those who send: each one message after the other, each repeated under the same key until it is acknowledged.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use futures_util::future::join_all;
use indicatif::ProgressBar;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tidegate_client::{
    Client, GrantTo, IdempotencyKey, MessageToSend, NatsPipes, NewPipe, NewUser, PipeError, PipeSender,
    PipesOptions,
};
use tidegate_model::{Handle, OrgRole, Payload, PipeName, Provider, Secret, SourceKind, SourceRight, UserId};
use tokio::time::Instant;

use crate::{
    client::Asker,
    judge::{Mark, Placed},
    stand::Stand,
};

/// The source and its pipe.
const SOURCE: &str = "chaos";
const PIPE: &str = "load";
/// The most bytes that a message is filled up with.
const FILLING: usize = 2_000;

/// The pipe that everybody sends to and reads.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) handle: Handle,
    pub(crate) pipe: &'static str,
}

/// Somebody with a login of their own.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) asker: Asker,
}

/// Makes the source, its pipe, which holds all messages, and people who may send to it and read it.
pub(crate) async fn prepare(
    stand: &Stand,
    admin: &Client,
    messages: usize,
    people: usize,
) -> anyhow::Result<(Target, Vec<Person>)> {
    let handle: Handle = SOURCE.parse().map_err(anyhow::Error::msg)?;
    let name: PipeName = PIPE.parse().map_err(anyhow::Error::msg)?;
    admin.create_source(&handle, SourceKind::Message).await.context("the source")?;
    let room = i64::try_from(messages).unwrap_or(i64::MAX).saturating_mul(2).max(1_000);
    let new = NewPipe {
        name,
        ttl_seconds: None,
        max_msgs: Some(room),
        // With room for doubles, too: what would push others out would not be seen.
        max_bytes: Some(room.saturating_mul(4_096)),
    };
    admin.create_pipe(&handle, &new).await.context("the pipe")?;
    for right in [SourceRight::Read, SourceRight::Write] {
        admin.grant_source(&handle, &GrantTo::Everyone, right).await.context("the rights")?;
    }
    let mut made = Vec::new();
    for number in 0..people {
        made.push(person(stand, admin, number).await.context("a user")?);
    }
    Ok((Target { handle, pipe: PIPE }, made))
}

async fn person(stand: &Stand, admin: &Client, number: usize) -> anyhow::Result<Person> {
    let (username, password) =
        (format!("chaos-{number}"), Secret::new(format!("tidewater gate {number:04}")));
    let new = NewUser {
        email: format!("{username}@example.org"),
        full_name: username.clone(),
        username: username.clone(),
        password: Some(password.clone()),
        provider: Provider::Local,
        org_role: OrgRole::User,
    };
    let id = admin.create_user(&new).await?.id;
    let builder = || -> anyhow::Result<_> {
        let builder = Client::builder(stand.places.server().parse()?);
        Ok(builder.timeout(Duration::from_secs(10)).user_agent("tidegate-chaos"))
    };
    // The token outlives the run, so that no login is lost with an answer.
    let login = builder()?.build()?.login(&username, &password).await?;
    let client = builder()?.token(login.tokens.token).build()?;
    Ok(Person { id, asker: Asker::new(client) })
}

/// All senders, and what they were told.
#[derive(Debug)]
pub(crate) struct Senders {
    target: Target,
    people: Vec<Person>,
    /// Every so many of them goes past the control plane; 0 where none does.
    nats: usize,
    seed: u64,
    messages: usize,
    acknowledged: Mutex<Vec<Placed>>,
    /// Milliseconds from the first try of a message to its acknowledgement, the longest.
    longest: AtomicU64,
    bar: ProgressBar,
}

impl Senders {
    pub(crate) fn new(
        target: Target,
        people: Vec<Person>,
        (seed, messages): (u64, usize),
        bar: ProgressBar,
    ) -> Self {
        bar.set_length(messages as u64);
        let (acknowledged, longest) = (Mutex::default(), AtomicU64::new(0));
        Self { target, people, nats: 0, seed, messages, acknowledged, longest, bar }
    }

    /// Every other sender sends over NATS.
    pub(crate) fn some_over_nats(self) -> Self {
        Self { nats: 2, ..self }
    }

    fn is_over_nats(&self, sender: usize) -> bool {
        self.nats > 0 && sender % self.nats == 1
    }

    /// Sends everything. Dropping the future drops the senders.
    pub(crate) async fn run(&self) {
        join_all((0..self.people.len()).map(|sender| self.send_all(sender))).await;
        self.bar.finish_and_clear();
    }

    /// How many messages a sender has.
    fn share(&self, sender: usize) -> usize {
        let (each, left) = (self.messages / self.people.len(), self.messages % self.people.len());
        each + usize::from(sender < left)
    }

    async fn send_all(&self, sender: usize) {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_mul(1_000).wrapping_add(sender as u64));
        let mut wire = None;
        for number in 0..self.share(sender) {
            let filling = "x".repeat(random.random_range(0..FILLING));
            // Without its acknowledgement the next one is not sent: there would be no order to keep.
            if !self.send(Mark { sender, number }, &filling, &mut wire).await {
                return;
            }
        }
    }

    async fn send(&self, mark: Mark, filling: &str, wire: &mut Option<PipeSender>) -> bool {
        let Mark { sender, number } = mark;
        let Target { handle, pipe } = &self.target;
        let payload = Payload::Text(format!("{sender} {number} {filling}"));
        let message = MessageToSend { payload, in_reply_to: None, ack_requested: false };
        let Ok(key) = IdempotencyKey::new(&format!("chaos-{}-{sender}-{number}", self.seed)) else {
            return false;
        };
        let began = Instant::now();
        let asker = &self.people[sender].asker;
        let sequence = if self.is_over_nats(sender) {
            asker
                .ask_over_nats("send over NATS", async |client| self.past(client, wire, &message, &key).await)
                .await
        } else {
            let call = async |client: &Client| client.send_message(handle, pipe, &message, key.clone()).await;
            asker.ask("send", call).await.map(|sent| sent.sequence)
        };
        let Some(sequence) = sequence else { return false };
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.longest.fetch_max(took, Ordering::Relaxed);
        self.lock().push(Placed { mark, sequence });
        self.bar.inc(1);
        true
    }

    /// Sends past the control plane, over a connection that is made where there is none and renews itself.
    async fn past(
        &self,
        client: &Client,
        wire: &mut Option<PipeSender>,
        message: &MessageToSend,
        key: &IdempotencyKey,
    ) -> Result<u64, PipeError> {
        let sender = if let Some(sender) = wire.take() {
            sender
        } else {
            let pipes = NatsPipes::connect(client, PipesOptions::default()).await?;
            pipes.sender(&self.target.handle, self.target.pipe).await?
        };
        let stored = sender.send(message, key).await?.stored().await;
        *wire = Some(sender);
        Ok(stored?.0.sequence)
    }

    /// How many were acknowledged by NATS itself.
    pub(crate) fn over_nats(&self) -> usize {
        self.lock().iter().filter(|placed| self.is_over_nats(placed.mark.sender)).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Placed>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were acknowledged.
    pub(crate) fn done(&self) -> usize {
        self.lock().len()
    }

    /// What was acknowledged.
    pub(crate) fn acknowledged(&self) -> Vec<Placed> {
        self.lock().clone()
    }

    /// Whose message is whose.
    pub(crate) fn ids(&self) -> Vec<UserId> {
        self.people.iter().map(|person| person.id).collect()
    }

    pub(crate) fn longest(&self) -> u64 {
        self.longest.load(Ordering::Relaxed)
    }

    /// How often a request had to be repeated, and what was refused.
    pub(crate) fn troubles(&self) -> (u64, Vec<String>) {
        let askers = || self.people.iter().map(|person| &person.asker);
        (askers().map(|asker| asker.counts().1).sum(), askers().flat_map(Asker::refusals).collect())
    }
}
