//! How often plugins were looked at, kept for a moment and written together: no request waits for it, and a plugin costs one
//! write every few seconds however often it is looked at. What is in memory when a process is killed is not counted.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use tidegate_model::CatalogPluginId;
use tidegate_persistence::{
    Operator,
    catalog::{self, PluginViews},
};

use super::Catalog;
use crate::Result;

/// Plugins that wait to be written at most. Views of more are not counted until then.
const WAITING: usize = 100_000;
/// Plugins written by one statement at most.
const BATCH: usize = 1_000;

/// Views that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Views(Mutex<HashMap<CatalogPluginId, (i64, DateTime<Utc>)>>);

impl Views {
    /// Notes that a plugin was looked at.
    pub(crate) fn note(&self, plugin: CatalogPluginId, now: DateTime<Utc>) {
        self.add(PluginViews { plugin, views: 1, last: now });
    }

    fn add(&self, views: PluginViews) {
        let mut waiting = self.waiting();
        if waiting.len() < WAITING || waiting.contains_key(&views.plugin) {
            let (count, last) = waiting.entry(views.plugin).or_insert((0, views.last));
            *count += views.views;
            *last = views.last.max(*last);
        }
    }

    fn take(&self) -> Vec<PluginViews> {
        let mut waiting = self.waiting();
        let plugins: Vec<CatalogPluginId> = waiting.keys().copied().take(BATCH).collect();
        let taken = plugins.into_iter().filter_map(|plugin| waiting.remove_entry(&plugin));
        taken.map(|(plugin, (views, last))| PluginViews { plugin, views, last }).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<CatalogPluginId, (i64, DateTime<Utc>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalog {
    /// Writes down how often plugins were looked at since the last call; called every few seconds, and once more at the end.
    /// What could not be written waits for the next call.
    pub async fn flush_views(&self) -> Result<()> {
        let (core, system) = (&self.0, Operator::system());
        loop {
            let views = core.views.take();
            if views.is_empty() {
                return Ok(());
            }
            let (now, written) = (core.clock.now(), views.clone());
            if let Err(error) =
                core.db.in_platform(&system, async |tx| catalog::count_views(tx, written, now).await).await
            {
                for one in views {
                    core.views.add(one);
                }
                return Err(error.into());
            }
        }
    }
}
