//! What the agent knows of each session, on disk, so that a restarted agent finds what it left running.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_model::SessionState;
use tidegate_protocol::{FromAgent, HelloSession, StatusMessage};

use crate::{
    Error, SessionKey,
    files::{make_dir, read_json, write_json},
    platform::is_plain,
};

/// Ended sessions remembered, with their output.
const KEPT: usize = 200;
/// How long they are.
const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

/// One session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Its newest start.
    pub(crate) key: SessionKey,
    /// Where it stands here: pending, running, hibernated, terminated or failed.
    pub(crate) state: SessionState,
    /// Why, where there is more to say.
    pub(crate) reason: Option<String>,
    /// What the control plane is told of it.
    pub(crate) metadata: Map<String, Value>,
    /// Since when.
    pub(crate) since: DateTime<Utc>,
    /// Whether the control plane is known to have read of its end.
    pub(crate) end_known: bool,
    /// Whether its stream can be watched.
    #[serde(default = "at_once")]
    pub(crate) ready: bool,
    /// The port of its stream, where it has one.
    #[serde(default)]
    pub(crate) port: Option<u16>,
}

/// Terminals can be watched from the start; records of agents that knew nothing else do not say so.
const fn at_once() -> bool {
    true
}

impl Record {
    /// Whether it holds processes.
    pub(crate) const fn is_active(&self) -> bool {
        matches!(self.state, SessionState::Pending | SessionState::Running)
    }

    /// What the control plane is told, oldest first. An end follows a start even if it came at once.
    pub(crate) fn reports(&self) -> Vec<(FromAgent, Option<SessionKey>)> {
        let status = |state: SessionState| {
            FromAgent::from(StatusMessage {
                session_id: self.key.session_id.clone(),
                state,
                generation: Some(self.key.generation),
                streaming_ready: Some(state == SessionState::Running && self.ready),
                streaming_port: self.port,
                platform_metadata: Some(self.metadata.clone()).filter(|metadata| !metadata.is_empty()),
                reason: self.reason.clone().filter(|_| state == self.state),
            })
        };
        match self.state {
            SessionState::Pending => Vec::new(),
            SessionState::Terminated => {
                vec![(status(SessionState::Running), None), (status(self.state), Some(self.key.clone()))]
            }
            SessionState::Failed => vec![(status(self.state), Some(self.key.clone()))],
            state => vec![(status(state), None)],
        }
    }
}

/// All sessions of one agent.
pub(crate) struct Records {
    folder: PathBuf,
    records: Mutex<HashMap<String, Record>>,
}

impl Records {
    /// Reads every record.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        make_dir(folder, 0o700)?;
        let mut records = HashMap::new();
        for entry in fs::read_dir(folder).map_err(Error::file("read", folder))?.flatten() {
            let record: Option<Record> = read_json(&entry.path().join("record.json"))?;
            if let Some(record) = record.filter(|record| is_plain(&record.key.session_id)) {
                records.insert(record.key.session_id.clone(), record);
            }
        }
        Ok(Self { folder: folder.to_owned(), records: Mutex::new(records) })
    }

    pub(crate) fn get(&self, session_id: &str) -> Option<Record> {
        self.lock().get(session_id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Record> {
        self.lock().values().cloned().collect()
    }

    /// Sessions that hold processes, this one aside.
    pub(crate) fn active_beside(&self, session_id: &str) -> usize {
        self.lock()
            .values()
            .filter(|record| record.is_active() && record.key.session_id != session_id)
            .count()
    }

    /// Keeps a record; on disk when this returns.
    pub(crate) async fn put(&self, record: Record) -> Result<(), Error> {
        let folder = self.folder.join(&record.key.session_id);
        self.lock().insert(record.key.session_id.clone(), record.clone());
        let write = move || {
            make_dir(&folder, 0o700)?;
            write_json(&folder.join("record.json"), &record)
        };
        tokio::task::spawn_blocking(write)
            .await
            .unwrap_or_else(|_| Err(Error::Refused("the agent is ending".into())))
    }

    /// The control plane has read of the end of these.
    pub(crate) async fn end_known(&self, keys: Vec<SessionKey>) {
        for key in keys {
            let record = self.get(&key.session_id).filter(|record| record.key == key && !record.end_known);
            if let Some(record) = record
                && let Err(error) = self.put(Record { end_known: true, ..record }).await
            {
                // It is told again after the next start: a repeat changes nothing.
                tracing::warn!(session_id = key.session_id, error = error.chain(), "record was not written");
            }
        }
    }

    /// What `hello` says: everything that runs or is kept, and what ended while nobody listened. The latter still
    /// counts as running there: the reports that follow say how it ended, and a final state would take no exit code.
    pub(crate) fn inventory(&self) -> Vec<HelloSession> {
        let told = |record: &Record| {
            let state = match record.state {
                SessionState::Terminated | SessionState::Failed if record.end_known => return None,
                SessionState::Terminated | SessionState::Failed => SessionState::Running,
                state => state,
            };
            let (session_id, generation) = (record.key.session_id.clone(), Some(record.key.generation));
            Some(HelloSession { session_id, generation, state })
        };
        self.lock().values().filter_map(told).collect()
    }

    /// Forgets ended sessions and their output, the oldest first.
    pub(crate) fn forget(&self, now: DateTime<Utc>) {
        let mut records = self.lock();
        let mut ended: Vec<(DateTime<Utc>, String)> = records
            .values()
            .filter(|record| record.state.is_final())
            .map(|record| (record.since, record.key.session_id.clone()))
            .collect();
        ended.sort();
        let surplus = ended.len().saturating_sub(KEPT);
        for (index, (since, id)) in ended.into_iter().enumerate() {
            if index < surplus || since < now - KEPT_FOR {
                records.remove(&id);
                if let Err(error) = fs::remove_dir_all(self.folder.join(&id)) {
                    tracing::warn!(session_id = id, %error, "an old session's folder stays");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
