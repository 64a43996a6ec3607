//! Waiting until a pipe's stream is what its row says: whoever needs it does what is left to do, in its order, or waits for
//! whoever does it. Given up after a moment with an answer that a repeat completes.

use std::time::{Duration, Instant};

use tidegate_model::{PipeOperationId, SourceId};
use tidegate_persistence::{
    Error as DbError, OrgScope,
    pipe_operation::{self, Operation, Standing},
    pipe_stream::PipeStream,
};

use super::operations::{attempt, claim_one, find_in};
use crate::{Core, Error, OpenPipe, Result};

/// How long a request waits for NATS to follow.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether others have done it.
const POLL: Duration = Duration::from_millis(20);

/// The stream of a pipe that was opened, once NATS has it.
pub(super) async fn ready(core: &Core, scope: &OrgScope, pipe: &OpenPipe) -> Result<PipeStream> {
    if pipe.pending.is_empty() && pipe.stream.in_force.is_some() {
        return Ok(pipe.stream.clone());
    }
    settle_all(core, scope, &pipe.pending).await?;
    let (source, name) = (pipe.source.id, pipe.name.as_str());
    match found(core, scope, source, name).await? {
        Some(stream) if stream.in_force.is_some() => Ok(stream),
        // It was given up before, and may do now.
        Some(_) => made_anew(core, scope, source, name).await,
        None => Err(gone(pipe)),
    }
}

/// The stream of a pipe that NATS turned out not to have, made anew.
pub(super) async fn made_anew(
    core: &Core,
    scope: &OrgScope,
    source: SourceId,
    name: &str,
) -> Result<PipeStream> {
    let now = core.clock.now();
    let operation = Operation::EnsureStream(source, name.to_owned());
    let id = core.db.in_org(scope, async |tx| pipe_operation::insert(tx, &operation, now).await).await?;
    settle_all(core, scope, &[id]).await?;
    let stream = found(core, scope, source, name).await?;
    stream.filter(|stream| stream.in_force.is_some()).ok_or_else(|| Error::NotReady(format!("pipe {name}")))
}

async fn found(core: &Core, scope: &OrgScope, source: SourceId, name: &str) -> Result<Option<PipeStream>> {
    core.db.in_org(scope, async |tx| find_in(tx, source, name).await).await
}

fn gone(pipe: &OpenPipe) -> Error {
    Error::not_found(format_args!("pipe {} of source {}", pipe.name, pipe.source.handle))
}

/// Waits until operations are over, in their order.
pub(super) async fn settle_all(core: &Core, scope: &OrgScope, ids: &[PipeOperationId]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for id in ids {
        settle(core, scope, *id, deadline).await?;
    }
    Ok(())
}

async fn settle(core: &Core, scope: &OrgScope, id: PipeOperationId, deadline: Instant) -> Result<()> {
    // Without NATS nothing is claimed: the operation would only wait longer.
    core.broker.live()?.system().await?;
    loop {
        if let Some(claimed) = claim_one(core, id).await? {
            match attempt(core, &claimed).await {
                // Something else has to be over first.
                Err(Error::NotReady(_)) => {}
                ended => return ended,
            }
        }
        match core.db.in_org(scope, async |tx| pipe_operation::standing(tx, id).await).await {
            // What failed is seen by what it left undone.
            Ok(Standing::Done | Standing::Failed(_)) | Err(DbError::NotFound) => return Ok(()),
            Ok(Standing::Pending(_)) if Instant::now() >= deadline => {
                return Err(Error::NotReady("the pipe".into()));
            }
            Ok(Standing::Pending(_)) => tokio::time::sleep(POLL).await,
            Err(other) => return Err(other.into()),
        }
    }
}
