//! Where a pipe ends: behind that is what is stored from now on, whatever any clock says.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tidegate_persistence::OrgScope;

use super::{
    accounts::{Tenant, connection},
    messages::{Messages, incarnation, stream_of},
    ready::{made_anew, ready},
};
use crate::{PipeUse, Pipes, Result};

/// Where a pipe ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeEnd {
    /// The sequence of the newest message ever; 0 where there never was one.
    pub last: u64,
    /// Of which stream: sequences of another one mean other messages.
    pub incarnation: Option<DateTime<Utc>>,
}

impl Messages {
    /// Where a pipe that the caller may read ends: what is sent once this was asked for is behind it.
    pub async fn end(&self, scope: &OrgScope, handle: &str, pipe: &str) -> Result<PipeEnd> {
        let core = &self.0;
        let opened = Pipes(Arc::clone(core)).open(scope, handle, pipe, PipeUse::Read).await?;
        let stream = ready(core, scope, &opened).await?;
        let broker = connection(core, Tenant::Member(scope)).await?;
        // Its leader answers, which has all that is acknowledged.
        let found = broker.stream(&stream_of(opened.source.id, &opened.name)?).await?;
        let (last, stream) = match found {
            Some(found) => (found.last, stream),
            // Somebody took it away behind our back.
            None => (0, made_anew(core, scope, opened.source.id, &opened.name).await?),
        };
        Ok(PipeEnd { last, incarnation: incarnation(&stream) })
    }
}
