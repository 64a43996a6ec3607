//! Reading a session's output to its end, through restarts of everything between.

use std::time::{Duration, Instant};

use tidegate_client::{Error, LogChunk, StatusCode};
use tidegate_model::{Session, SessionId, SessionState};

use crate::context::Context;

/// How long an agent that is away is waited for.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long the state of a session may lag behind the end of its output.
const LAG: Duration = Duration::from_secs(5);
/// The wait before output that ended too early is asked for again.
const WAIT: Duration = Duration::from_millis(500);

/// Writes what the session printed after its first `after` bytes, and returns how many it had printed then.
pub(super) async fn so_far(
    context: &Context,
    id: SessionId,
    after: u64,
    mut write: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut place = after;
    read(context, id, &mut place, false, &mut write).await?;
    Ok(place)
}

/// Writes what the session prints until its program has ended, and returns the session as it ended.
pub(super) async fn to_the_end(
    context: &Context,
    id: SessionId,
    after: u64,
    mut write: impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Session> {
    let mut place = after;
    let mut since = Instant::now();
    loop {
        let before = place;
        let failure = match read(context, id, &mut place, true, &mut write).await {
            Ok(()) => None,
            Err(error) => Some(passing(error)?),
        };
        if place > before {
            since = Instant::now();
        }
        let ended = context.client.wait_for(id, has_ended, |_| {});
        match (tokio::time::timeout(LAG, ended).await, failure) {
            (Ok(Ok(session)), None) => return Ok(session),
            (Ok(Ok(session)), Some(_)) => {
                // It ended while the connection was away: what it printed last may still be kept.
                if let Err(error) = read(context, id, &mut place, false, &mut write).await {
                    let error = passing(error)?;
                    context.output.note(&format!("the end of the output is not to be had: {error}"));
                }
                return Ok(session);
            }
            (Ok(Err(error)), _) if !error.is_passing() => return Err(error.into()),
            (_, Some(error)) if since.elapsed() > PATIENCE => return Err(error.into()),
            _ => tokio::time::sleep(WAIT).await,
        }
    }
}

/// Whether there is no more output to come for now.
fn has_ended(session: &Session) -> bool {
    session.state.is_final() || session.state == SessionState::Hibernated
}

/// Lets a refusal of the network or of the session's state pass, and nothing else.
fn passing(error: anyhow::Error) -> anyhow::Result<Error> {
    let error = error.downcast::<Error>()?;
    let state = matches!(error.status(), Some(StatusCode::CONFLICT));
    if error.is_passing() || state { Ok(error) } else { Err(error.into()) }
}

async fn read(
    context: &Context,
    id: SessionId,
    place: &mut u64,
    follow: bool,
    write: &mut impl FnMut(u64, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut logs = context.client.logs(id, *place, follow).await?;
    while let Some(LogChunk { offset, bytes }) = logs.next().await? {
        if offset > *place {
            context.output.note(&format!("{} bytes before these are no longer kept", offset - *place));
        }
        write(offset, &bytes)?;
        *place = logs.offset();
    }
    Ok(())
}
