//! When keys and tokens were last used, kept for a moment and written together: no request waits for it, and a key costs
//! at most one write a minute however often it is used.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_persistence::{Operator, api_key};

use super::Keys;
use crate::Result;

/// Uses that wait to be written at most. Past it they are forgotten, which makes a time shown older than it is, no more.
const WAITING: usize = 100_000;
/// Uses written by one statement at most.
const BATCH: usize = 1_000;

/// Uses that wait to be written.
#[derive(Debug)]
pub(crate) struct Uses<I>(Mutex<HashMap<I, DateTime<Utc>>>);

impl<I> Default for Uses<I> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<I: Copy + Eq + Hash + Ord> Uses<I> {
    /// Notes a use, unless one of the same minute was written.
    pub(crate) fn note(&self, id: I, written: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        if written.is_some_and(|written| now - written < TimeDelta::minutes(1)) {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.len() < WAITING || waiting.contains_key(&id) {
            waiting.entry(id).or_insert(now);
        }
    }

    /// Some of what waits, to be written by one statement; nothing where nothing waits.
    pub(crate) fn take(&self) -> Vec<(I, DateTime<Utc>)> {
        let mut waiting = self.waiting();
        let ids: Vec<I> = waiting.keys().copied().take(BATCH).collect();
        let mut uses: Vec<_> = ids.iter().filter_map(|id| waiting.remove_entry(id)).collect();
        // In one order, so that two that write at once wait for each other and not in a circle.
        uses.sort_unstable();
        uses
    }

    /// What could not be written waits for the next time.
    pub(crate) fn put_back(&self, uses: Vec<(I, DateTime<Utc>)>) {
        for (id, at) in uses {
            self.note(id, None, at);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<I, DateTime<Utc>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    /// Writes down which keys were used since the last call; called every few seconds, and once more at the end.
    /// Returns how many were written. What could not be written waits for the next call.
    pub async fn flush_uses(&self) -> Result<usize> {
        let (core, system, mut written) = (&self.0, Operator::system(), 0);
        loop {
            let uses = core.uses.take();
            if uses.is_empty() {
                return Ok(written);
            }
            let stamps = uses.clone();
            match core.db.in_platform(&system, async |tx| api_key::stamp(tx, stamps).await).await {
                Ok(count) => written += count,
                Err(error) => {
                    core.uses.put_back(uses);
                    return Err(error.into());
                }
            }
        }
    }
}
