//! When keys were last used, kept for a moment and written together: no request waits for it, and a key costs at most
//! one write a minute however often it is used.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::ApiKeyId;
use tidegate_persistence::{Operator, api_key};

use super::Keys;
use crate::Result;

/// Uses that wait to be written at most. Past it they are forgotten, which makes a time shown older than it is, no more.
const WAITING: usize = 100_000;
/// Uses written by one statement at most.
const BATCH: usize = 1_000;

/// Uses that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<HashMap<ApiKeyId, DateTime<Utc>>>);

impl Uses {
    /// Notes a use, unless one of the same minute was written.
    pub(super) fn note(&self, id: ApiKeyId, written: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        if written.is_some_and(|written| now - written < TimeDelta::minutes(1)) {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.len() < WAITING || waiting.contains_key(&id) {
            waiting.entry(id).or_insert(now);
        }
    }

    fn take(&self) -> Vec<(ApiKeyId, DateTime<Utc>)> {
        let mut uses: Vec<_> = std::mem::take(&mut *self.waiting()).into_iter().collect();
        // In one order, so that two that write at once wait for each other and not in a circle.
        uses.sort_unstable();
        uses
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<ApiKeyId, DateTime<Utc>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    /// Writes down which keys were used since the last call; called every few seconds, and once more at the end.
    /// Returns how many were written. What could not be written waits for the next call.
    pub async fn flush_uses(&self) -> Result<usize> {
        let uses = self.0.uses.take();
        let mut written = 0;
        for (index, batch) in uses.chunks(BATCH).enumerate() {
            let stamps = batch.to_vec();
            let outcome =
                self.0.db.in_platform(&Operator::system(), async |tx| api_key::stamp(tx, stamps).await).await;
            match outcome {
                Ok(count) => written += count,
                Err(error) => {
                    for (id, at) in &uses[index * BATCH..] {
                        self.0.uses.note(*id, None, *at);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(written)
    }
}
