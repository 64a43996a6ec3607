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
/// Ended sessions beyond these whose end the control plane has not read of.
const UNTOLD: usize = 2_000;
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

    /// Forgets ended sessions and their output, the oldest first; an end that the control plane has not read of is kept
    /// until it has, as far as there is room. Of the others, what earlier starts left goes.
    pub(crate) fn forget(&self, now: DateTime<Utc>) {
        let mut records = self.lock();
        let mut ended: Vec<(bool, DateTime<Utc>, String)> = records
            .values()
            .filter(|record| record.state.is_final())
            .map(|record| (!record.end_known, record.since, record.key.session_id.clone()))
            .collect();
        // Those that are known come first: they go before one that is not.
        ended.sort();
        let known = ended.iter().filter(|(unknown, ..)| !unknown).count();
        let surplus = known.saturating_sub(KEPT).max(ended.len().saturating_sub(KEPT + UNTOLD));
        for (index, (unknown, since, id)) in ended.into_iter().enumerate() {
            let old = !unknown && since < now - KEPT_FOR;
            if index < surplus || old {
                records.remove(&id);
                if let Err(error) = fs::remove_dir_all(self.folder.join(&id)) {
                    tracing::warn!(session_id = id, %error, "an old session's folder stays");
                }
            }
        }
        for record in records.values() {
            forget_earlier(&self.folder.join(&record.key.session_id), record.key.generation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the exit, the output, the shim's log and a bridge's doubts of starts before this one.
fn forget_earlier(folder: &Path, generation: i64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let of = name.to_str().and_then(|name| match name.split('.').collect::<Vec<_>>()[..] {
            ["exit", of, "json"] | ["output" | "shim", of, "log"] | ["lost", of, "txt"] => {
                of.parse::<i64>().ok()
            }
            _ => None,
        });
        if of.is_some_and(|of| of < generation)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "what an earlier start left stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::{Clock, SystemClock};

    use super::*;

    async fn keep(
        records: &Records,
        id: &str,
        generation: i64,
        state: SessionState,
        ended: (TimeDelta, bool),
    ) {
        let record = Record {
            key: SessionKey::new(id, generation).unwrap(),
            state,
            reason: None,
            metadata: Map::new(),
            since: SystemClock::new().now() - ended.0,
            end_known: ended.1,
            ready: true,
            port: None,
        };
        records.put(record).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_old_and_known_is_forgotten_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let (old, new) = (TimeDelta::hours(25), TimeDelta::hours(1));
        keep(&records, "old", 1, SessionState::Terminated, (old, true)).await;
        keep(&records, "untold", 1, SessionState::Failed, (old, false)).await;
        keep(&records, "new", 1, SessionState::Terminated, (new, true)).await;
        keep(&records, "asleep", 1, SessionState::Hibernated, (old, true)).await;
        records.forget(SystemClock::new().now());
        let mut left: Vec<String> = records.all().into_iter().map(|record| record.key.session_id).collect();
        left.sort();
        assert_eq!(left, ["asleep", "new", "untold"]);
        assert!(!folder.path().join("old").exists() && folder.path().join("untold/record.json").exists());
    }

    #[tokio::test]
    async fn the_surplus_of_what_is_known_goes_before_anything_untold() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        keep(&records, "untold", 1, SessionState::Failed, (TimeDelta::hours(2), false)).await;
        for index in 0..=KEPT {
            let since = TimeDelta::minutes(60) - TimeDelta::seconds(i64::try_from(index).unwrap());
            keep(&records, &format!("s-{index}"), 1, SessionState::Terminated, (since, true)).await;
        }
        records.forget(SystemClock::new().now());
        assert_eq!(records.all().len(), KEPT + 1);
        assert!(records.get("untold").is_some() && records.get("s-0").is_none());
    }

    #[tokio::test]
    async fn earlier_starts_leave_nothing_once_there_is_a_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        keep(&records, "s-1", 2, SessionState::Running, (TimeDelta::zero(), false)).await;
        let own = folder.path().join("s-1");
        for generation in [1, 2] {
            for name in ["exit.G.json", "output.G.log", "shim.G.log"] {
                fs::write(own.join(name.replace('G', &generation.to_string())), "x").unwrap();
            }
        }
        fs::write(own.join("endpoint.json"), "x").unwrap();
        records.forget(SystemClock::new().now());
        let mut left: Vec<String> = fs::read_dir(&own)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["endpoint.json", "exit.2.json", "output.2.log", "record.json", "shim.2.log"]);
    }
}
