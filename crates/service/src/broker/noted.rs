//! What was last sent to each source, gathered for a moment and written in one statement an organization: a busy source is
//! one row, and its messages would wait for each other. Lost with the process, as far as it was not written.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tidegate_model::{OrgId, SourceId};
use tidegate_persistence::{
    OrgScope,
    source::{self, LastMessage},
};

use crate::{Core, Result};

/// Organizations that are gathered for at most; past it, news of others are left out until the next writing.
const ORGANIZATIONS: usize = 10_000;

/// News that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Noted(Mutex<HashMap<OrgId, (OrgScope, HashMap<SourceId, LastMessage>)>>);

impl Noted {
    /// Notes what was sent by a member.
    pub(super) fn note(&self, scope: &OrgScope, source: SourceId, message: LastMessage) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ORGANIZATIONS && !all.contains_key(&scope.org_id()) {
            return;
        }
        let (_, of_org) = all.entry(scope.org_id()).or_insert_with(|| (scope.clone(), HashMap::new()));
        match of_org.get(&source) {
            Some(known) if known.at >= message.at => {}
            _ => drop(of_org.insert(source, message)),
        }
    }

    /// Writes all of it down. What cannot be written is dropped, and keeps no other organization's from it: newer news come,
    /// or none that matter.
    pub(super) async fn write(&self, core: &Core) -> Result<usize> {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut written = Ok(0);
        for (scope, messages) in all.into_values() {
            // In one order, so that two who write wait for each other in no circle.
            let mut messages: Vec<_> = messages.into_iter().collect();
            messages.sort_unstable_by_key(|(source, _)| *source);
            let noted = core.db.in_org(&scope, async |tx| source::note(tx, messages).await).await;
            written = match (written, noted) {
                (Ok(all), Ok(here)) => Ok(all + here),
                (Err(error), _) => Err(error),
                (Ok(_), Err(error)) => Err(error.into()),
            };
        }
        written
    }
}
