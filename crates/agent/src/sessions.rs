//! Sessions and their commands: each session has one worker that carries out its commands in order and hears of its
//! end; different sessions never wait for each other.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use futures_util::future::join_all;
use serde_json::Value;
use tidegate_model::{Clock, SessionState};
use tidegate_protocol::{AckMessage, CommandMessage, HelloSession};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    Discovered, Ended, Error, Found, Platform, SessionKey,
    journal::{Journal, Known},
    outbox::Outbox,
    records::{Record, Records},
    worker::{self, Worker},
};

/// Commands waiting for one session; more stay unacknowledged and are sent again.
const COMMANDS: usize = 64;
/// How long the platform may take to say what it has; it may be away altogether.
const DISCOVERY: Duration = Duration::from_secs(15);
/// Outcomes told again after a start: the control plane may not have read them.
const TOLD_AGAIN: TimeDelta = TimeDelta::minutes(10);

/// What a worker is asked for.
pub(crate) enum Job {
    /// Carry out a command that was begun in the journal.
    Command(CommandMessage),
    /// End the session because the agent goes away.
    End(oneshot::Sender<()>),
}

/// A session that an earlier life of the agent left, with the commands about it that were begun.
pub(crate) struct Left {
    record: Record,
    begun: Vec<CommandMessage>,
}

/// Everything about sessions that workers, link and tunnels share.
pub(crate) struct Sessions {
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) records: Records,
    pub(crate) journal: Journal,
    pub(crate) outbox: Outbox,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limit: u32,
    draining: AtomicBool,
    workers: Mutex<HashMap<String, mpsc::Sender<Job>>>,
    tasks: TaskTracker,
}

impl Sessions {
    pub(crate) fn new(
        platform: Arc<dyn Platform>,
        records: Records,
        journal: Journal,
        clock: Arc<dyn Clock>,
        limit: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            platform,
            records,
            journal,
            outbox: Outbox::new(Arc::clone(&clock)),
            clock,
            limit,
            draining: AtomicBool::new(false),
            workers: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Takes up what an earlier life of the agent left, and what it had begun. Each session is looked at by its own
    /// worker, beside everything else: until then it counts as what its record says, and whoever asks something of it
    /// waits for no other one.
    pub(crate) async fn recover(self: &Arc<Self>, unfinished: Vec<CommandMessage>) {
        self.records.forget(self.clock.now());
        for (id, outcome) in self.journal.ended_within(TOLD_AGAIN) {
            self.outbox.push_now(&outcome.report(&id));
        }
        // Before anything is started: what is new must not look like something that belongs to nobody.
        let look = async {
            self.discover().await;
            self.sweep().await;
        };
        if timeout(DISCOVERY, look).await.is_err() {
            tracing::warn!("going on without knowing whether the platform has sessions that no record names");
        }
        for record in self.records.all().into_iter().filter(Record::is_active) {
            let id = record.key.session_id.clone();
            let begun = unfinished.iter().filter(|command| session_of(command) == id).cloned().collect();
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.entry(id.clone()).or_insert_with(|| self.new_worker(&id, Some(Left { record, begun })));
        }
        for command in unfinished {
            tracing::info!(
                command_id = command.command_id,
                "carrying out a command begun before the restart"
            );
            let _ = self.hand_over(&session_of(&command), Job::Command(command));
        }
    }

    /// Takes up what the platform has and no record names: the control plane decides what becomes of it.
    async fn discover(&self) {
        for Discovered { key, running } in self.platform.discover().await {
            if self.records.get(&key.session_id).is_some() {
                continue;
            }
            tracing::warn!(session_id = key.session_id, "a session without a record was found");
            let state = if running { SessionState::Running } else { SessionState::Hibernated };
            let metadata = self.platform.metadata();
            let since = self.clock.now();
            let record = Record {
                key,
                state,
                reason: None,
                metadata,
                since,
                end_known: false,
                ready: false,
                port: None,
            };
            if let Err(error) = self.records.put(record).await {
                tracing::error!(error = error.chain(), "session record was not written");
            }
        }
    }

    /// Frees what belongs to no session.
    async fn sweep(&self) {
        let known: Vec<SessionKey> = self
            .records
            .all()
            .into_iter()
            .filter(|record| record.is_active() || record.state == SessionState::Hibernated)
            .map(|record| record.key)
            .collect();
        self.platform.sweep(&known).await;
    }

    /// Looks what became of a session, in its worker, before anything else is done about it.
    pub(crate) async fn adopt(&self, Left { record, begun }: Left) {
        let id = record.key.session_id.clone();
        let starting = !begun.is_empty() && record.state == SessionState::Pending;
        let stopping = begun.iter().find_map(|command| worker::keep_of(command, &record.key));
        match (self.platform.find(&record.key).await, stopping) {
            // Its start was not finished: the command is carried out again, and waits for one that is under way. What left
            // an exit behind has been started.
            (Ok(Found::Starting | Found::Ended(Ended::Lost(_))), _) if starting => {}
            (Ok(Found::Running | Found::Starting), _) => {
                tracing::info!(session_id = id, "session adopted");
                self.keep(Record { state: SessionState::Running, ..record }).await;
            }
            // It ended because it was being stopped: no end of its own, and the command will find its work done.
            (Ok(Found::Ended(_)), Some(keep)) => {
                if let Err(error) = worker::end(self, record, keep).await {
                    tracing::error!(session_id = id, error = error.chain(), "session was not stopped");
                }
            }
            (Ok(Found::Ended(ended)), None) => worker::keep_end(self, record, ended).await,
            (Err(error), _) => worker::keep_end(self, record, Ended::Lost(error.chain())).await,
        }
    }

    /// Takes commands off the connection: those that come together are written together, acknowledged, handed over.
    pub(crate) async fn accept(self: Arc<Self>, mut commands: mpsc::Receiver<CommandMessage>) {
        while let Some(first) = commands.recv().await {
            let mut batch = vec![first];
            while let Ok(command) = commands.try_recv() {
                batch.push(command);
            }
            let mut new: Vec<CommandMessage> = Vec::new();
            for command in batch {
                let repeated = new.iter().any(|other| other.command_id == command.command_id);
                match self.journal.known(&command.command_id) {
                    None if !repeated => new.push(command),
                    known => self.answer_repeat(&command, known).await,
                }
            }
            let begun = join_all(new.iter().map(|command| self.journal.begin(command))).await;
            for (command, begun) in new.into_iter().zip(begun) {
                self.hand_over_new(command, begun).await;
            }
        }
    }

    async fn answer_repeat(&self, command: &CommandMessage, known: Option<Known>) {
        let command_id = command.command_id.clone();
        self.outbox.push_now(&AckMessage { command_id }.into());
        if let Some(Known::Ended(outcome)) = known {
            self.outbox.push(outcome.report(&command.command_id), None).await;
        }
    }

    async fn hand_over_new(self: &Arc<Self>, command: CommandMessage, begun: Result<(), Error>) {
        if let Err(error) = begun {
            // Not acknowledged, so it comes again.
            tracing::error!(command_id = command.command_id, error = error.chain(), "command was not taken");
            return;
        }
        let command_id = command.command_id.clone();
        self.outbox.push_now(&AckMessage { command_id: command_id.clone() }.into());
        if self.hand_over(&session_of(&command), Job::Command(command)).is_err() {
            let outcome = crate::journal::Outcome::Failed(format!(
                "more than {COMMANDS} commands wait for this session"
            ));
            self.finish(&command_id, &outcome).await;
        }
    }

    /// Writes and reports how a command ended.
    pub(crate) async fn finish(&self, command_id: &str, outcome: &crate::journal::Outcome) {
        if let Err(error) = self.journal.end(command_id, outcome).await {
            // After a crash it would be carried out again, which changes nothing.
            tracing::error!(command_id, error = error.chain(), "outcome was not written");
        }
        self.outbox.push(outcome.report(command_id), None).await;
    }

    /// Keeps a record and reports it.
    pub(crate) async fn keep(&self, record: Record) {
        let reports = record.reports();
        let session_id = record.key.session_id.clone();
        if let Err(error) = self.records.put(record).await {
            tracing::error!(session_id, error = error.chain(), "session record was not written");
        }
        for (message, ended) in reports {
            self.outbox.push(message, ended).await;
        }
    }

    /// What `hello` says.
    pub(crate) fn inventory(&self) -> Vec<HelloSession> {
        self.records.inventory()
    }

    /// Reports every session whose state the control plane may not know; sent after connecting.
    pub(crate) async fn report_all(&self) {
        for record in self.records.all() {
            if !record.end_known {
                for (message, ended) in record.reports() {
                    self.outbox.push(message, ended).await;
                }
            }
        }
    }

    /// Whether new sessions are refused.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on no session is started.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Ends every session that runs and waits until all are gone.
    pub(crate) async fn end_all(self: &Arc<Self>) {
        self.drain();
        let active = self.records.all().into_iter().filter(Record::is_active);
        let ends = active.filter_map(|record| {
            let (done, ended) = oneshot::channel();
            self.hand_over(&record.key.session_id, Job::End(done)).ok().map(|()| ended)
        });
        join_all(ends).await;
    }

    /// Waits until no worker is in the middle of anything; sessions go on.
    pub(crate) async fn close(&self) {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The newest start of a session, for tunnels.
    pub(crate) fn current(&self, session_id: &str) -> Option<SessionKey> {
        self.records.get(session_id).map(|record| record.key)
    }

    fn hand_over(self: &Arc<Self>, session_id: &str, job: Job) -> Result<(), ()> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let sender =
            workers.entry(session_id.to_owned()).or_insert_with(|| self.new_worker(session_id, None));
        sender.try_send(job).map_err(|_| ())
    }

    fn new_worker(self: &Arc<Self>, session_id: &str, left: Option<Left>) -> mpsc::Sender<Job> {
        let (sender, jobs) = mpsc::channel(COMMANDS);
        self.tasks.spawn(Worker::new(Arc::clone(self), session_id.to_owned()).run(jobs, left));
        sender
    }

    /// Lets a worker go unless something came in meanwhile.
    pub(crate) fn retire(&self, session_id: &str, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let job = jobs.try_recv().ok();
        if job.is_none() {
            workers.remove(session_id);
        }
        job
    }
}

/// The session a command is about; commands without one share a worker.
pub(crate) fn session_of(command: &CommandMessage) -> String {
    command.payload.get("sessionId").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
