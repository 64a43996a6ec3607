//! One session's worker: its commands in order, and its end when it comes by itself.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tidegate_model::{CommandAction, CreateSessionCommand, SessionState, StreamKind};
use tidegate_protocol::{CommandMessage, StatusMessage};
use tokio::sync::mpsc;

use crate::{
    Ended, Error, Exit, Keep, Progress, SessionKey, SessionSpec,
    journal::Outcome,
    platform::home_to_delete,
    records::Record,
    sessions::{Job, Left, Sessions},
};

/// The worker of one session.
pub(crate) struct Worker {
    sessions: Arc<Sessions>,
    session_id: String,
    watch: Option<BoxFuture<'static, Ended>>,
    /// Its stream, while it is waited for.
    ready: Option<BoxFuture<'static, Option<u16>>>,
}

enum Event {
    Job(Option<Job>),
    Ended(Ended),
    Ready(Option<u16>),
}

/// How often somebody who waits is told how far a start is.
const TOLD: Duration = Duration::from_secs(1);

impl Worker {
    pub(crate) fn new(sessions: Arc<Sessions>, session_id: String) -> Self {
        Self { sessions, session_id, watch: None, ready: None }
    }

    /// Works until the session is over and nothing waits, or the agent ends.
    pub(crate) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, left: Option<Left>) {
        if let Some(left) = left {
            self.sessions.adopt(left).await;
        }
        self.rewatch();
        loop {
            let event = match &mut self.watch {
                Some(watch) => tokio::select! {
                    // An end that already happened comes before the command that would meet it.
                    biased;
                    ended = watch => Event::Ended(ended),
                    port = some(&mut self.ready) => Event::Ready(port),
                    job = jobs.recv() => Event::Job(job),
                },
                None => match jobs.try_recv() {
                    Ok(job) => Event::Job(Some(job)),
                    Err(_) => match self.sessions.retire(&self.session_id, &mut jobs) {
                        Some(job) => Event::Job(Some(job)),
                        None => return,
                    },
                },
            };
            match event {
                Event::Job(Some(Job::Command(command))) => self.carry_out(command).await,
                Event::Job(Some(Job::End(done))) => {
                    self.end_for_good().await;
                    let _ = done.send(());
                }
                Event::Job(None) => return,
                Event::Ready(port) => {
                    self.ready = None;
                    let record = self.sessions.records.get(&self.session_id);
                    if let Some(record) = record.filter(|record| record.state == SessionState::Running) {
                        self.sessions.keep(Record { ready: true, port, ..record }).await;
                    }
                }
                Event::Ended(ended) => {
                    (self.watch, self.ready) = (None, None);
                    if let Some(record) = self.sessions.records.get(&self.session_id) {
                        keep_end(&self.sessions, record, ended).await;
                    }
                }
            }
        }
    }

    /// Watches the session if it runs.
    fn rewatch(&mut self) {
        let record = self.sessions.records.get(&self.session_id);
        let record = record.filter(|record| record.state == SessionState::Running);
        let platform = &self.sessions.platform;
        self.watch = record.as_ref().map(|record| platform.watch(&record.key));
        self.ready = record.filter(|record| !record.ready).map(|record| platform.ready(&record.key));
    }

    async fn carry_out(&mut self, command: CommandMessage) {
        let CommandMessage { command_id, action, payload } = command;
        let done = match action {
            CommandAction::StartSession | CommandAction::WakeSession => {
                self.start(payload).await.map(|()| false)
            }
            CommandAction::HibernateSession => self.stop(&payload, Keep::Home).await.map(|()| false),
            CommandAction::StopSession => self.stop_with_home(&payload).await,
        };
        let outcome = match done {
            Ok(home_deleted) => {
                let mut result = Map::new();
                result.insert("sessionId".into(), json!(self.session_id));
                if home_deleted {
                    result.insert("homeDeleted".into(), json!(true));
                }
                Outcome::Completed(result)
            }
            Err(error) => {
                tracing::warn!(
                    command_id,
                    session_id = self.session_id,
                    error = error.chain(),
                    "command failed"
                );
                Outcome::Failed(error.chain())
            }
        };
        self.sessions.finish(&command_id, &outcome).await;
        self.rewatch();
    }

    async fn start(&mut self, payload: Map<String, Value>) -> Result<(), Error> {
        let command: CreateSessionCommand = serde_json::from_value(Value::Object(payload))
            .map_err(|error| Error::Refused(format!("the command's payload does not fit: {error}")))?;
        let spec = SessionSpec::from_command(command)?;
        if let Some(known) = self.sessions.records.get(&self.session_id) {
            if known.key.generation > spec.key.generation {
                let newer = known.key.generation;
                return Err(Error::Refused(format!(
                    "session has been started anew since, as generation {newer}"
                )));
            }
            let same = known.key.generation == spec.key.generation;
            let started = matches!(
                known.state,
                SessionState::Running | SessionState::Hibernated | SessionState::Terminated
            );
            if same && started {
                // Started before: the report may have been lost, the session was not.
                self.sessions.keep(known).await;
                return Ok(());
            }
            if known.state == SessionState::Running {
                self.sessions.platform.stop(&known.key, Keep::Home).await?;
            }
        }
        self.admit()?;
        self.launch(&spec).await
    }

    fn admit(&self) -> Result<(), Error> {
        if self.sessions.is_draining() {
            return Err(Error::Refused("the agent is draining and starts no session".into()));
        }
        let limit = self.sessions.limit;
        if self.sessions.records.active_beside(&self.session_id) >= limit as usize {
            return Err(Error::Refused(format!("the agent runs {limit} sessions, which is its limit")));
        }
        Ok(())
    }

    async fn launch(&mut self, spec: &SessionSpec) -> Result<(), Error> {
        let before = self.sessions.records.get(&self.session_id);
        let slept = before.is_some_and(|before| before.state == SessionState::Hibernated);
        let record = Record {
            key: spec.key.clone(),
            state: SessionState::Pending,
            reason: None,
            metadata: self.sessions.platform.metadata(),
            since: self.sessions.clock.now(),
            end_known: false,
            ready: spec.program.protocol() == StreamKind::Terminal,
            port: None,
        };
        // The record first: after a crash the shim is found by it.
        self.sessions.records.put(record.clone()).await?;
        match self.sessions.platform.start(spec, self.progress(&spec.key)).await {
            Ok(()) => {
                tracing::info!(
                    session_id = self.session_id,
                    generation = spec.key.generation,
                    "session runs"
                );
                self.sessions.keep(Record { state: SessionState::Running, ..record }).await;
                Ok(())
            }
            Err(error) if slept => {
                // It goes on sleeping: its home is all there is of it, and the next wake may succeed.
                if let Err(error) = self.sessions.platform.stop(&spec.key, Keep::Home).await {
                    tracing::warn!(
                        session_id = self.session_id,
                        error = error.chain(),
                        "something was left over"
                    );
                }
                self.sessions.keep(Record { state: SessionState::Hibernated, ..record }).await;
                Err(error)
            }
            Err(error) => {
                if let Err(error) = self.sessions.platform.release(&spec.key).await {
                    tracing::warn!(
                        session_id = self.session_id,
                        error = error.chain(),
                        "something was left over"
                    );
                }
                let reason = Some(error.chain());
                self.sessions.keep(Record { state: SessionState::Failed, reason, ..record }).await;
                Err(error)
            }
        }
    }

    /// Tells the control plane how far the start is, not too often.
    fn progress(&self, key: &SessionKey) -> Progress {
        let (sessions, key) = (Arc::clone(&self.sessions), key.clone());
        let last = Mutex::new(None::<Instant>);
        Progress::new(move |sentence| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < TOLD) {
                return;
            }
            *last = Some(Instant::now());
            let mut metadata = Map::new();
            metadata.insert("progress".into(), json!(sentence));
            sessions.outbox.push_now(
                &StatusMessage {
                    session_id: key.session_id.clone(),
                    state: SessionState::Pending,
                    generation: Some(key.generation),
                    streaming_ready: None,
                    streaming_port: None,
                    platform_metadata: Some(metadata),
                    reason: None,
                }
                .into(),
            );
        })
    }

    /// Stops the session, and deletes its home where that is asked for; whether that is gone.
    async fn stop_with_home(&mut self, payload: &Map<String, Value>) -> Result<bool, Error> {
        let home = home_to_delete(payload)?;
        self.stop(payload, Keep::Nothing).await?;
        match home {
            Some(owner) => self.sessions.platform.delete_home(&owner).await,
            None => Ok(false),
        }
    }

    async fn stop(&mut self, payload: &Map<String, Value>, keep: Keep) -> Result<(), Error> {
        let Some(record) = self.sessions.records.get(&self.session_id) else {
            return match keep {
                // Gone is what was asked for.
                Keep::Nothing => Ok(()),
                Keep::Home => Err(Error::Refused("session is not on this agent".into())),
            };
        };
        let wanted = payload.get("generation").and_then(Value::as_i64);
        if let Some(wanted) = wanted.filter(|wanted| *wanted < record.key.generation) {
            let newer = record.key.generation;
            return Err(Error::Refused(format!(
                "session has been started anew since {wanted}, as generation {newer}"
            )));
        }
        match (record.state, keep) {
            (SessionState::Terminated | SessionState::Failed, Keep::Home) => {
                self.sessions.keep(record).await;
                Err(Error::Refused("session has ended".into()))
            }
            (SessionState::Terminated | SessionState::Failed, Keep::Nothing)
            | (SessionState::Hibernated, Keep::Home) => {
                self.sessions.keep(record).await;
                Ok(())
            }
            _ => self.end(record, keep).await,
        }
    }

    async fn end(&mut self, record: Record, keep: Keep) -> Result<(), Error> {
        end(&self.sessions, record, keep).await?;
        (self.watch, self.ready) = (None, None);
        Ok(())
    }

    async fn end_for_good(&mut self) {
        let Some(record) = self.sessions.records.get(&self.session_id).filter(Record::is_active) else {
            return;
        };
        if let Err(error) = self.end(record, Keep::Nothing).await {
            tracing::error!(session_id = self.session_id, error = error.chain(), "session was not stopped");
        }
    }
}

/// Waits for what is waited for; for ever where that is nothing.
async fn some<T>(waited: &mut Option<BoxFuture<'static, T>>) -> T {
    match waited {
        Some(waited) => waited.await,
        None => std::future::pending().await,
    }
}

/// What a command leaves of this start of a session, if it stops it.
pub(crate) fn keep_of(command: &CommandMessage, key: &SessionKey) -> Option<Keep> {
    let wanted = command.payload.get("generation").and_then(Value::as_i64);
    if wanted.is_some_and(|wanted| wanted < key.generation) {
        return None;
    }
    match command.action {
        CommandAction::HibernateSession => Some(Keep::Home),
        CommandAction::StopSession => Some(Keep::Nothing),
        CommandAction::StartSession | CommandAction::WakeSession => None,
    }
}

/// Stops a session, and keeps and reports that it is.
pub(crate) async fn end(sessions: &Sessions, record: Record, keep: Keep) -> Result<(), Error> {
    let exit = sessions.platform.stop(&record.key, keep).await?;
    let since = sessions.clock.now();
    let (state, metadata) = match keep {
        Keep::Home => (SessionState::Hibernated, record.metadata.clone()),
        Keep::Nothing => (SessionState::Terminated, with_exit(record.metadata.clone(), exit.as_ref())),
    };
    tracing::info!(session_id = record.key.session_id, %state, "session stopped");
    sessions.keep(Record { state, metadata, since, reason: None, ..record }).await;
    sessions.records.forget(since);
    Ok(())
}

/// Keeps and reports the end of a session that nobody asked for.
pub(crate) async fn keep_end(sessions: &Sessions, record: Record, ended: Ended) {
    release(sessions, &record.key).await;
    let since = sessions.clock.now();
    let record = match ended {
        Ended::Exited(exit) => {
            let metadata = with_exit(record.metadata.clone(), Some(&exit));
            Record { state: SessionState::Terminated, reason: None, metadata, since, ..record }
        }
        Ended::Lost(reason) => Record { state: SessionState::Failed, reason: Some(reason), since, ..record },
    };
    tracing::info!(session_id = record.key.session_id, state = %record.state, reason = record.reason, "session ended");
    sessions.keep(record).await;
    sessions.records.forget(since);
}

async fn release(sessions: &Sessions, key: &SessionKey) {
    if let Err(error) = sessions.platform.release(key).await {
        tracing::warn!(session_id = key.session_id, error = error.chain(), "something was left over");
    }
}

fn with_exit(mut metadata: Map<String, Value>, exit: Option<&Exit>) -> Map<String, Value> {
    if let Some(exit) = exit {
        metadata.insert("exitCode".into(), json!(exit.code));
        if let Some(signal) = &exit.signal {
            metadata.insert("signal".into(), json!(signal));
        }
    }
    metadata
}
