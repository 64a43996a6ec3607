//! Recording sessions' terminals: what one prints goes to its source's `stdout` in order, as bytes, its beginnings, gaps and
//! ends as texts between them, and all that is said beside them to `stdctrl`, in the name of the session's owner, who made
//! the source.
//!
//! Of several processes one records a terminal at a time, by a lease. How far a recording is stands with its messages: each
//! says behind which byte of the session's output it ends. Whoever goes on after a crash reads the last of them first, so
//! that nothing is recorded twice; the row says from where to look. What is never kept here: the tunnel to the agent, which
//! is the caller's.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use serde_json::json;
use tidegate_broker::{OrgBroker, Outgoing, Position, Stored};
use tidegate_model::{
    AgentId, Envelope, MessageId, NewMessage, Payload, STDCTRL, STDOUT, SessionId, TerminalBegin,
    TerminalControl, UserId,
};
use tidegate_persistence::{
    FreeRecording, OrgTx, SystemScope, audit,
    source::{self, LastMessage, PREVIEW},
    terminal_source::{self, Held, Next, Progress, Recording as Row},
};
use uuid::Uuid;

use super::{
    accounts::{Tenant, connection},
    disk,
    messages::{encoded, stream_of, subject_of},
    ready::ready,
};
use crate::{Core, Error, OpenPipe, Result, pipes::opened_in, sessions::line, sources::found_in};

/// Recordings found by one look at most.
const FEW: i32 = 2_000;
/// How long a recording is nobody else's, when it is written down that it still is, and how much before its end nothing is
/// stored any more: storing takes its time.
const LEASE: Duration = Duration::from_secs(20);
const RENEW: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_secs(12);
/// How long after something went wrong it is tried again.
const PAUSE: TimeDelta = TimeDelta::seconds(2);
/// The header that says where a message stands: `<session>/<start>/<bytes of its output up to here>`.
const PLACE: &str = "Tidegate-Recorded";
/// Messages looked at in one go when a recording is gone on with.
const GO: usize = 100;

/// Recordings of terminals: which ones nobody makes, and making one.
#[derive(Debug, Clone)]
pub struct Recorder(pub(crate) Arc<Core>);

impl Recorder {
    /// Terminals that are to be recorded and that nobody records: of sessions on these agents, and of those that ended so
    /// long ago that nobody waits for theirs. None as long as there is no NATS.
    pub async fn free(&self, agents: Vec<AgentId>, given_up: TimeDelta) -> Result<Vec<FreeRecording>> {
        if self.0.broker.live().is_err() {
            return Ok(Vec::new());
        }
        let now = self.0.clock.now();
        Ok(self.0.db.free_recordings(agents, now - given_up, now, FEW).await?)
    }

    /// Waits until somebody in this process wants a terminal recorded.
    pub async fn woken(&self) {
        self.0.broker.to_record().await;
    }

    /// Takes a recording; none where another one has it, or where there is nothing to record any more. One whose owner was
    /// deactivated is ended instead.
    pub async fn claim(&self, free: &FreeRecording) -> Result<Option<Recording>> {
        let (core, holder, session) = (&self.0, Uuid::new_v4(), free.session);
        let (now, taken) = (core.clock.now(), Instant::now());
        let until = now + LEASE;
        let work = core.db.in_org_as_system(&free.scope, async |tx| {
            let found = terminal_source::claim(tx, session, holder, (now, until)).await?;
            match found {
                Some(row) if !row.active => {
                    terminal_source::delete(tx, session).await?;
                    let detail =
                        json!({"before": {"sourceId": row.source}, "reason": "its owner was deactivated"});
                    audit::insert_org(tx, line("session.unrecord", session, detail, now)).await?;
                    Ok::<_, Error>(None)
                }
                found => Ok(found),
            }
        });
        Ok(work.await?.map(|row| Recording {
            core: Arc::clone(core),
            scope: free.scope,
            holder,
            progress: row.progress,
            row,
            deadline: taken + LEASE,
            renewed: taken,
            said: None,
        }))
    }
}

/// A recording that this process makes. Let go by [`Recording::finish`] or [`Recording::release`]; one that is dropped is
/// somebody else's when its lease is over.
pub struct Recording {
    core: Arc<Core>,
    scope: SystemScope,
    holder: Uuid,
    row: Row,
    progress: Progress,
    deadline: Instant,
    renewed: Instant,
    /// The end of what was last recorded, for lists.
    said: Option<String>,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("row", &self.row)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// Where a recording goes to.
#[derive(Debug)]
pub struct Recorded {
    broker: OrgBroker,
    output: OpenPipe,
    control: OpenPipe,
}

impl Recording {
    /// The session.
    pub fn session(&self) -> SessionId {
        self.row.session
    }

    /// Its start that is recorded.
    pub fn generation(&self) -> i64 {
        self.row.generation
    }

    /// The agent that the session is placed on.
    pub fn agent(&self) -> Option<AgentId> {
        self.row.agent
    }

    /// In whose name it is recorded.
    pub fn user(&self) -> UserId {
        self.row.user
    }

    /// How many bytes of the session's output are recorded.
    pub fn recorded(&self) -> u64 {
        u64::try_from(self.progress.recorded).unwrap_or(0)
    }

    /// Whether anything of this start is recorded, its beginning included.
    pub fn has_begun(&self) -> bool {
        self.progress.generation == self.row.generation
    }

    /// Opens the source's pipes, finds out how far the recording is, and marks the beginning of a start that was not begun.
    pub async fn open(&mut self) -> Result<Recorded> {
        let (core, scope) = (Arc::clone(&self.core), self.scope);
        let (session, row, now) = (self.row.session, &self.row, core.clock.now());
        let live = core.broker.live()?;
        live.disk.as_ref().map_or(Ok(()), disk::Guard::check)?;
        let work = core.db.in_org_as_system(&scope, async |tx| pipes_in(tx, session, row, now).await);
        let (output, control) = work.await?;
        for pipe in [&output, &control] {
            ready(&core, &scope, pipe).await?;
        }
        let broker = connection(&core, Tenant::System(&scope)).await?;
        let to = Recorded { broker, output, control };
        // Making streams may have taken its time.
        self.renew().await?;
        self.look(&to).await?;
        if !self.has_begun() {
            // A program that was frozen while its session slept goes on where it was.
            let goes_on = self.row.pauses && self.progress.generation > 0;
            if !goes_on {
                self.progress.recorded = 0;
                let begin = TerminalBegin {
                    session_id: Some(session),
                    generation: Some(self.row.generation),
                    ..TerminalBegin::default()
                };
                self.say(&to, &TerminalControl::Begin(begin), "begin").await?;
            }
            self.progress.generation = self.row.generation;
            self.renew().await?;
        }
        Ok(to)
    }

    /// Another program prints into the terminal than the one that was recorded: what it prints is counted from nothing on.
    pub async fn begin_anew(&mut self, to: &Recorded) -> Result<()> {
        self.progress.recorded = 0;
        let begin = TerminalBegin {
            session_id: Some(self.row.session),
            generation: Some(self.row.generation),
            ..TerminalBegin::default()
        };
        self.say(to, &TerminalControl::Begin(begin), "anew").await
    }

    /// Stores what the terminal printed next. It is stored when this returns, and once; after an error it may be or not,
    /// which whoever goes on with the recording finds out.
    pub async fn store(&mut self, to: &Recorded, bytes: &[u8]) -> Result<()> {
        let start = self.progress.recorded;
        let end = start.saturating_add(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        let Row { session, generation, .. } = self.row;
        let place = format!("{session}/{generation}/{end}");
        let payload = Payload::Bytes(bytes.to_vec());
        self.said = Some(payload.preview(PREVIEW));
        let id = format!("recorded:{session}/{generation}/{start}");
        let mut receipt =
            self.publish(to, &to.output, payload.clone(), id.clone(), Some(place.clone())).await?;
        if receipt.1 {
            self.look(to).await?;
            if self.progress.recorded != start {
                return Err(lost());
            }
            // Another message has the name that this one would have.
            let id = format!("{id}:{}", Uuid::new_v4());
            receipt = self.publish(to, &to.output, payload, id, Some(place)).await?;
        }
        self.progress.recorded = end;
        self.progress.sequence = i64::try_from(receipt.0).unwrap_or(i64::MAX);
        Ok(())
    }

    /// Marks that some bytes are missing here: nobody kept them until they could be recorded. The recording goes on behind
    /// them, whoever goes on with it.
    pub async fn miss(&mut self, to: &Recorded, bytes: u64) -> Result<()> {
        let start = self.progress.recorded;
        let end = start.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
        let Row { session, generation, .. } = self.row;
        let place = format!("{session}/{generation}/{end}");
        // With both ends in its name: another one that begins here is no repeat of it.
        let what = format!("gap/{start}/{end}");
        self.say_at(to, &TerminalControl::Gap { bytes }, &what, Some(place)).await?;
        self.progress.recorded = end;
        Ok(())
    }

    /// Marks the terminal's size.
    pub async fn resize(&mut self, to: &Recorded, size: tidegate_model::TerminalSize) -> Result<()> {
        let id = format!("size/{}", Uuid::new_v4());
        self.say(to, &TerminalControl::Resize(size), &id).await
    }

    /// When it is to be written down next that the recording goes on.
    pub fn renewal(&self) -> Instant {
        self.renewed + RENEW
    }

    /// Writes down that the recording goes on, and how far it is. An error where it was ended, or is another one's.
    pub async fn renew(&mut self) -> Result<()> {
        let (session, holder, progress) = (self.row.session, self.holder, self.progress);
        let (now, at) = (self.core.clock.now(), Instant::now());
        let (source, said) = (self.row.source, self.said.take());
        let work = self.core.db.in_org_as_system(&self.scope, async |tx| {
            let held = terminal_source::renew(tx, session, holder, progress, now + LEASE).await?;
            if let (Held::Held, Some(text)) = (held, said) {
                let last = LastMessage { at: now, pipe: STDOUT.to_owned(), text };
                source::note(tx, vec![(source, last)]).await?;
            }
            Ok::<_, Error>(held)
        });
        match work.await? {
            Held::Held => {
                (self.deadline, self.renewed) = (at + LEASE, at);
                Ok(())
            }
            Held::Lost => Err(lost()),
        }
    }

    /// Marks the end of the start that was recorded, and lets the recording go.
    pub async fn finish(mut self, to: &Recorded, exit_code: Option<i32>) -> Result<()> {
        self.say(to, &TerminalControl::End { exit_code }, "end").await?;
        self.renew().await?;
        let generation = self.row.generation;
        self.let_go(Next::Finished(generation)).await
    }

    /// Lets a recording go of which nothing ever came.
    pub async fn forget(self) -> Result<()> {
        let generation = self.row.generation;
        self.let_go(Next::Finished(generation)).await
    }

    /// Lets the recording go for a moment, to be gone on with by whoever comes.
    pub async fn release(self) -> Result<()> {
        let from = self.core.clock.now() + PAUSE;
        self.let_go(Next::From(from)).await
    }

    async fn let_go(self, next: Next) -> Result<()> {
        let (session, holder, progress) = (self.row.session, self.holder, self.progress);
        let work = self.core.db.in_org_as_system(&self.scope, async |tx| {
            terminal_source::release(tx, session, holder, progress, next).await
        });
        Ok(work.await?)
    }

    async fn say(&self, to: &Recorded, control: &TerminalControl, what: &str) -> Result<()> {
        self.say_at(to, control, what, None).await
    }

    /// Says it to the source's maker in `stdctrl`. What whoever watches has to know stands in `stdout`, too, before that,
    /// with its place where it has one.
    async fn say_at(
        &self,
        to: &Recorded,
        control: &TerminalControl,
        what: &str,
        place: Option<String>,
    ) -> Result<()> {
        let Row { session, generation, .. } = self.row;
        let id = format!("recorded:{session}/{generation}/{what}");
        if !matches!(control, TerminalControl::Resize(_)) {
            self.publish(to, &to.output, Payload::Text(control.encode()), id.clone(), place).await?;
        }
        self.publish(to, &to.control, Payload::Text(control.encode()), id, None).await.map(drop)
    }

    /// Gives the message's sequence, and whether it was stored before.
    async fn publish(
        &self,
        to: &Recorded,
        pipe: &OpenPipe,
        payload: Payload,
        id: String,
        place: Option<String>,
    ) -> Result<(u64, bool)> {
        if Instant::now() + MARGIN > self.deadline {
            return Err(lost());
        }
        let live = self.core.broker.live()?;
        live.disk.as_ref().map_or(Ok(()), disk::Guard::check)?;
        let (user, now) = (self.row.user, self.core.clock.now());
        let message = NewMessage { payload, in_reply_to: None, ack_requested: false };
        let envelope = Envelope::new(MessageId::new(), &pipe.subject(user), message, now);
        let outgoing = Outgoing {
            pipe: subject_of(pipe)?,
            sender: user.as_uuid(),
            id,
            headers: place.map(|place| (PLACE.to_owned(), place)).into_iter().collect(),
            payload: encoded(&envelope)?,
        };
        let stream = stream_of(self.row.source, &pipe.name)?;
        let receipt = to.broker.publish_into(&stream, outgoing).await?;
        Ok((receipt.sequence, receipt.repeated))
    }

    /// Finds out how far the recording is by what it stored since that was last written down.
    async fn look(&mut self, to: &Recorded) -> Result<()> {
        let stream = stream_of(self.row.source, STDOUT)?;
        loop {
            let from = u64::try_from(self.progress.sequence).unwrap_or(0) + 1;
            let found = to.broker.read(&stream, Position::Sequence(from), GO).await?;
            for stored in &found {
                self.progress.sequence = i64::try_from(stored.sequence).unwrap_or(i64::MAX);
                // Others may write there and name any place: their words are not taken for it.
                if stored.sender == Some(self.row.user.as_uuid())
                    && let Some((generation, recorded)) = place_of(stored, self.row.session)
                {
                    (self.progress.generation, self.progress.recorded) = (generation, recorded);
                }
            }
            if found.len() < GO {
                return Ok(());
            }
        }
    }
}

/// Both pipes of the source, which is still the one and of whom it was.
async fn pipes_in(
    tx: &mut OrgTx,
    session: SessionId,
    row: &Row,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<(OpenPipe, OpenPipe)> {
    let known = terminal_source::find(tx, session).await.map_err(|error| match error {
        tidegate_persistence::Error::NotFound => lost(),
        other => other.into(),
    })?;
    let source = found_in(tx, known.handle.as_str()).await?.source;
    if source.id != row.source || source.created_by != row.user {
        return Err(lost());
    }
    let output = opened_in(tx, source.clone(), STDOUT, now).await?;
    let control = opened_in(tx, source, STDCTRL, now).await?;
    Ok((output, control))
}

/// Where a message of this session's recording stands: of which start, and behind which byte it ends.
fn place_of(stored: &Stored, session: SessionId) -> Option<(i64, i64)> {
    let mut parts = stored.header(PLACE)?.split('/');
    let (of, generation, end) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let of: SessionId = of.parse().ok()?;
    (of == session && parts.next().is_none()).then_some((generation, end))
}

fn lost() -> Error {
    Error::not_found("the recording, which was ended or is another one's by now,")
}
