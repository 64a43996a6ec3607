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
use tracing::Instrument as _;

use super::{
    accounts::Tenant,
    operations::{LEASE, attempt_first, attempt_one, find_in},
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
    (handle, name): (&str, &str),
    to: PipeUse,
) -> Result<(OpenPipe, PipeStream)> {
    let opened = Pipes(Arc::clone(core)).open(scope, handle, name, to).await?;
    let stream = ready(core, scope, &opened).await?;
    Ok((opened, stream))
}

/// The same for whoever sends the first message of a pipe, as a rule: makes its stream at once, in fewer steps.
pub(super) async fn open_first(
    core: &Arc<Core>,
    scope: &OrgScope,
    (handle, name): (&str, &str),
) -> Result<(OpenPipe, PipeStream)> {
    // Whoever cannot carry an operation out claims none: it would only wait longer.
    if core.broker.live()?.system().await.is_err() {
        return open_ready(core, scope, (handle, name), PipeUse::Write).await;
    }
    let (own, to_open) = (Arc::clone(core), (scope.clone(), handle.to_owned(), name.to_owned()));
    let opening = whole(core, async move {
        let (core, (scope, handle, name)) = (&own, &to_open);
        let lease = Some(core.clock.now() + LEASE);
        let pipes = Pipes(Arc::clone(core));
        let mut opened = pipes.open_until(scope, (handle, name), PipeUse::Write, lease).await?;
        if let Some(claimed) = opened.claimed.take() {
            made_first(core, &claimed, &mut opened).await?;
        }
        Ok(opened)
    });
    let opened = opening.await?;
    let stream = ready(core, scope, &opened).await?;
    Ok((opened, stream))
}

/// Does what claims an operation in a task of its own, which ends with the process and not with a request: whoever leaves
/// meanwhile leaves no lease behind that others wait for.
async fn whole<T: Send + 'static>(
    core: &Core,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    core.broker.live()?.spawn(work.in_current_span()).await.map_err(Error::internal)?
}

/// The stream of a pipe that was opened, once NATS has it.
pub(super) async fn ready<'a>(
    core: &Arc<Core>,
    tenant: impl Into<Tenant<'a>>,
    pipe: &OpenPipe,
) -> Result<PipeStream> {
    let tenant = tenant.into();
    if pipe.pending.is_empty() && pipe.stream.in_force.is_some() {
        return Ok(pipe.stream.clone());
    }
    settle_all(core, tenant, &pipe.pending).await?;
    let (source, name) = (pipe.source.id, pipe.name.as_str());
    match found(core, tenant, source, name).await? {
        Some(stream) if stream.in_force.is_some() => Ok(stream),
        // It was given up before, and may do now.
        Some(_) => made_anew(core, tenant, source, name).await,
        None => Err(gone(pipe)),
    }
}

/// Carries out what the opening of a pipe claimed. It waits on where it is not over with that.
async fn made_first(core: &Core, claimed: &Claimed, opened: &mut OpenPipe) -> Result<()> {
    match attempt_first(core, claimed, &opened.stream).await {
        Ok(Some(found)) => {
            opened.stream.in_force = Some(found);
            opened.pending.clear();
            Ok(())
        }
        // Others carry it out, or something else has to be over first.
        Ok(None) | Err(Error::NotReady(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

/// The stream of a pipe that NATS turned out not to have, made anew.
pub(super) async fn made_anew<'a>(
    core: &Arc<Core>,
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
    core: &Arc<Core>,
    tenant: impl Into<Tenant<'a>>,
    ids: &[PipeOperationId],
) -> Result<()> {
    let (tenant, deadline) = (tenant.into(), Instant::now() + PATIENCE);
    for id in ids {
        settle(core, tenant, *id, deadline).await?;
    }
    Ok(())
}

async fn settle(core: &Arc<Core>, tenant: Tenant<'_>, id: PipeOperationId, deadline: Instant) -> Result<()> {
    // Without NATS nothing is claimed: the operation would only wait longer.
    core.broker.live()?.system().await?;
    loop {
        let own = Arc::clone(core);
        match whole(core, async move { attempt_one(&own, id).await }).await {
            Ok(true) => return Ok(()),
            // Others have it, or something else has to be over first.
            Ok(false) | Err(Error::NotReady(_)) => {}
            Err(other) => return Err(other),
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
