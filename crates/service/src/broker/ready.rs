//! Waiting until a pipe's stream is what its row says: whoever needs it does what is left to do, in its order, or waits for
//! whoever does it. Given up after a moment with an answer that a repeat completes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_model::{PipeOperationId, PipeUse, SourceId};
use tidegate_persistence::{
    Error as DbError, OrgScope, OrgTx,
    pipe_operation::{self, Claimed, Operation, Standing},
    pipe_stream::PipeStream,
};

use super::{
    accounts::Tenant,
    operations::{LEASE, attempt, attempt_first, claim_one, find_in},
};
use crate::{Core, Error, OpenPipe, Pipes, Result};

/// How long a request waits for NATS to follow.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether others have done it.
const POLL: Duration = Duration::from_millis(20);

/// Opens a pipe for the caller, and gives its stream once NATS has it.
pub(super) async fn open_ready(
    core: &Arc<Core>,
    scope: &OrgScope,
    pipe: (&str, &str),
    to: PipeUse,
) -> Result<(OpenPipe, PipeStream)> {
    // Whoever cannot carry an operation out claims none: it would only wait longer.
    let can = match core.broker.live() {
        Ok(live) => live.system().await.is_ok(),
        Err(_) => false,
    };
    let lease = can.then(|| core.clock.now() + LEASE);
    let opened = Pipes(Arc::clone(core)).open_until(scope, pipe, to, lease).await?;
    let stream = ready(core, scope, &opened).await?;
    Ok((opened, stream))
}

/// The stream of a pipe that was opened, once NATS has it.
pub(super) async fn ready<'a>(
    core: &Arc<Core>,
    tenant: impl Into<Tenant<'a>>,
    pipe: &OpenPipe,
) -> Result<PipeStream> {
    let tenant = tenant.into();
    match &pipe.claimed {
        Some(claimed) => {
            if let Some(stream) = made_first(core, claimed, &pipe.stream).await? {
                return Ok(stream);
            }
            settle_all(core, tenant, &[claimed.id]).await?;
        }
        None if pipe.pending.is_empty() && pipe.stream.in_force.is_some() => return Ok(pipe.stream.clone()),
        None => settle_all(core, tenant, &pipe.pending).await?,
    }
    let (source, name) = (pipe.source.id, pipe.name.as_str());
    match found(core, tenant, source, name).await? {
        Some(stream) if stream.in_force.is_some() => Ok(stream),
        // It was given up before, and may do now.
        Some(_) => made_anew(core, tenant, source, name).await,
        None => Err(gone(pipe)),
    }
}

/// Carries out what the opening of a pipe claimed, in a task of its own: whoever leaves meanwhile leaves no lease behind that
/// others wait for. None where it is not over with that.
async fn made_first(core: &Arc<Core>, claimed: &Claimed, wanted: &PipeStream) -> Result<Option<PipeStream>> {
    let (own, claimed, mut stream) = (Arc::clone(core), claimed.clone(), wanted.clone());
    let trying = tokio::spawn(async move {
        let found = attempt_first(&own, &claimed, &stream).await?;
        stream.in_force = found;
        Ok(found.map(|_| stream))
    });
    match trying.await.map_err(Error::internal)? {
        // Something else has to be over first.
        Err(Error::NotReady(_)) => Ok(None),
        ended => ended,
    }
}

/// The stream of a pipe that NATS turned out not to have, made anew.
pub(super) async fn made_anew<'a>(
    core: &Core,
    tenant: impl Into<Tenant<'a>>,
    source: SourceId,
    name: &str,
) -> Result<PipeStream> {
    let (tenant, now) = (tenant.into(), core.clock.now());
    let operation = Operation::EnsureStream(source, name.to_owned());
    let ask = async |tx: &mut OrgTx| Ok(pipe_operation::insert(tx, &operation, now).await?);
    let id = tenant.within(&core.db, ask).await?;
    settle_all(core, tenant, &[id]).await?;
    let stream = found(core, tenant, source, name).await?;
    stream.filter(|stream| stream.in_force.is_some()).ok_or_else(|| Error::NotReady(format!("pipe {name}")))
}

async fn found(core: &Core, tenant: Tenant<'_>, source: SourceId, name: &str) -> Result<Option<PipeStream>> {
    tenant.within(&core.db, async |tx| find_in(tx, source, name).await).await
}

fn gone(pipe: &OpenPipe) -> Error {
    Error::not_found(format_args!("pipe {} of source {}", pipe.name, pipe.source.handle))
}

/// Waits until operations are over, in their order.
pub(super) async fn settle_all<'a>(
    core: &Core,
    tenant: impl Into<Tenant<'a>>,
    ids: &[PipeOperationId],
) -> Result<()> {
    let (tenant, deadline) = (tenant.into(), Instant::now() + PATIENCE);
    for id in ids {
        settle(core, tenant, *id, deadline).await?;
    }
    Ok(())
}

async fn settle(core: &Core, tenant: Tenant<'_>, id: PipeOperationId, deadline: Instant) -> Result<()> {
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
        let look = async |tx: &mut OrgTx| match pipe_operation::standing(tx, id).await {
            // What failed is seen by what it left undone.
            Ok(Standing::Done | Standing::Failed(_)) | Err(DbError::NotFound) => Ok(true),
            Ok(Standing::Pending(_)) => Ok(false),
            Err(other) => Err(other.into()),
        };
        if tenant.within(&core.db, look).await? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::NotReady("the pipe".into()));
        }
        tokio::time::sleep(POLL).await;
    }
}
