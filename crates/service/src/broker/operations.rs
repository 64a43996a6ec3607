//! What NATS is told: operations are claimed with a lease, carried out, and their end is written down. A crash in between
//! tells NATS the same once more, which changes nothing.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use futures_util::future::join_all;
use metrics::counter;
use tidegate_broker::{
    Error as BrokerError, PipeSubject, Principal, Retention as StreamRetention, StreamInForce, StreamName,
    StreamSpec,
};
use tidegate_model::{OrgId, OrgStatus, PipeOperationId, Retention, SourceId, UserId};
use tidegate_persistence::{
    Error as DbError, Operator, OrgTx, nats_account,
    pipe_operation::{self, Claimed, Operation, Outcome},
    pipe_stream::{self, InForce, PipeStream},
    read_cursor, source,
};

use super::{
    Broker,
    accounts::{Tenant, connection, push},
};
use crate::{Core, Error, Result};

/// Operations of one organization, and of all, that one process carries out at one time.
const EACH: i64 = 16;
const ALL: i64 = 64;
/// How long a try is nobody else's. Longer than everything that a try waits for.
pub(super) const LEASE: TimeDelta = TimeDelta::seconds(60);
/// Tries of what NATS refuses in words that nobody foresaw.
const TRIES: i32 = 10;
/// Sources of a deleted organization that are ended at one time.
const CLEARED: i64 = 500;
/// What JetStream says of a stream whose subjects another one has: that one is about to be deleted.
const OVERLAP: u64 = 10_065;

impl Broker {
    /// Carries out some of what is due, all at one time. Returns how much was: more may be, until it is none.
    pub async fn apply_pending(&self) -> Result<usize> {
        let (core, system, now) = (&self.0, Operator::system(), self.0.clock.now());
        // Nothing is claimed that cannot be tried.
        core.broker.live()?.system().await?;
        let work = core
            .db
            .in_platform(&system, async |tx| pipe_operation::claim(tx, (EACH, ALL), now, now + LEASE).await);
        let claimed = work.await?;
        let tried = join_all(claimed.iter().map(|claimed| attempt(core, claimed))).await;
        for outcome in tried {
            // The database: whoever comes after the lease tries again. Everything else is written down with the operation.
            if let Err(error @ Error::Unavailable(_)) = outcome {
                return Err(error);
            }
        }
        Ok(claimed.len())
    }

    /// Lets go of what an earlier process claimed and did not live to carry out: nobody waits for its lease. Only for a control
    /// plane that is the only one on its database, before it does anything itself. Gives how much it was.
    pub async fn let_go(&self) -> Result<usize> {
        let (core, system, now) = (&self.0, Operator::system(), self.0.clock.now());
        let work = core.db.in_platform(&system, async |tx| pipe_operation::let_go(tx, now).await);
        Ok(work.await?)
    }
}

/// Carries one operation out and writes down what became of it.
async fn attempt(core: &Core, claimed: &Claimed) -> Result<()> {
    let done = carry_out(core, claimed).await;
    ended(core, claimed, done).await.map(drop)
}

/// The same for a stream that nobody wanted before, of whose row the claim tells: gives what NATS has once the rows say it,
/// too; none where the lease has passed and others carry it out, or the stream is not wanted any more.
pub(super) async fn attempt_first(
    core: &Core,
    claimed: &Claimed,
    wanted: &PipeStream,
) -> Result<Option<InForce>> {
    let done = made(core, Tenant::System(&claimed.scope), wanted).await.map(Some);
    ended(core, claimed, done).await
}

/// Writes down what became of a try, and with it what NATS has: nobody sees the one without the other, and whose lease has
/// passed writes neither.
async fn ended(core: &Core, claimed: &Claimed, done: Result<Option<InForce>>) -> Result<Option<InForce>> {
    let now = core.clock.now();
    let outcome = outcome(&done, claimed, now);
    let label = match &outcome {
        Outcome::Done => "done",
        Outcome::Again(..) => "again",
        Outcome::Failed(reason) => {
            tracing::warn!(operation = ?claimed.operation, reason, "NATS was not made to follow a change");
            "failed"
        }
    };
    counter!("tidegate_pipe_operations_total", "outcome" => label).increment(1);
    let (key, system) = ((claimed.id, claimed.attempt), Operator::system());
    let found = done.as_ref().ok().copied().flatten();
    let work = core.db.in_platform_hot(&system, async |tx| match found {
        Some(found) => pipe_operation::finish_made(tx, key, found, now).await,
        None => pipe_operation::finish(tx, key, outcome, now).await,
    });
    let written = work.await?;
    Ok(done?.filter(|_| written))
}

/// Carries an operation out for whoever waits for it; false where others have it, or it has to wait itself.
pub(super) async fn attempt_one(core: &Core, id: PipeOperationId) -> Result<bool> {
    match claim_one(core, id).await? {
        Some(claimed) => attempt(core, &claimed).await.map(|()| true),
        None => Ok(false),
    }
}

async fn claim_one(core: &Core, id: PipeOperationId) -> Result<Option<Claimed>> {
    let (system, now) = (Operator::system(), core.clock.now());
    let work =
        core.db.in_platform(&system, async |tx| pipe_operation::claim_one(tx, id, now, now + LEASE).await);
    Ok(work.await?)
}

fn outcome<T>(done: &Result<T>, claimed: &Claimed, now: DateTime<Utc>) -> Outcome {
    let Err(error) = done else { return Outcome::Done };
    let reason = reason(error);
    let passing = matches!(error, Error::BrokerUnavailable(_) | Error::Unavailable(_) | Error::NotReady(_));
    // Whoever was cut off stays so, however long it takes.
    let always = claimed.operation == Operation::PushAccount;
    let unforeseen = matches!(error, Error::Internal(_)) && claimed.attempt < TRIES;
    if passing || always || unforeseen {
        Outcome::Again(now + wait(claimed.attempt), reason)
    } else {
        Outcome::Failed(reason)
    }
}

/// The reason for an operator, which is the cause where the error itself is a fixed sentence.
fn reason(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// How long to wait after a try: a tenth of a second, then twice as long each time, a minute at most; up to a quarter more,
/// so that what failed together is not tried together.
fn wait(attempt: i32) -> TimeDelta {
    let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(10);
    let about = TimeDelta::milliseconds((100_i64 << doublings).min(60_000));
    about * rand::random_range(100..=125) / 100
}

/// Gives what NATS has, where a stream was made.
async fn carry_out(core: &Core, claimed: &Claimed) -> Result<Option<InForce>> {
    let tenant = Tenant::System(&claimed.scope);
    match &claimed.operation {
        Operation::EnsureStream(source, pipe) => return ensure_stream(core, tenant, *source, pipe).await,
        Operation::DeleteStream(source, pipe) => delete_stream(core, tenant, *source, pipe).await?,
        Operation::DeleteConsumer(source, pipe, user) => {
            delete_consumer(core, tenant, (*source, pipe), *user).await?;
        }
        Operation::ReviewReaders => {
            tenant.within(&core.db, async |tx| Ok(read_cursor::end_unreadable(tx, None).await?)).await?;
            core.broker.wake();
        }
        Operation::PushAccount => {
            push(core, tenant.org_id()).await?;
            clear_deleted(core, tenant).await?;
        }
    }
    Ok(None)
}

/// Ends the sources of a deleted organization: what they leave for NATS deletes their streams, which hold a place there
/// otherwise. Some at a time, because there may be very many.
async fn clear_deleted(core: &Core, tenant: Tenant<'_>) -> Result<()> {
    let (system, org) = (Operator::system(), tenant.org_id());
    match core.db.in_platform(&system, async |tx| nats_account::lock(tx, org).await).await {
        Ok((_, OrgStatus::Deleted)) => {}
        // It was ended since, or goes on.
        Ok((_, OrgStatus::Active | OrgStatus::Suspended)) | Err(DbError::NotFound) => return Ok(()),
        Err(other) => return Err(other.into()),
    }
    while tenant.within(&core.db, async |tx| Ok(source::delete_some(tx, CLEARED).await?)).await? > 0 {}
    core.broker.wake();
    Ok(())
}

async fn ensure_stream(
    core: &Core,
    tenant: Tenant<'_>,
    source: SourceId,
    pipe: &str,
) -> Result<Option<InForce>> {
    let found = tenant.within(&core.db, async |tx| find_in(tx, source, pipe).await).await?;
    // Its source or pipe is gone since: what deletes it waits behind this.
    let Some(wanted) = found else { return Ok(None) };
    made(core, tenant, &wanted).await.map(Some)
}

/// Makes a stream what its row says.
async fn made(core: &Core, tenant: Tenant<'_>, wanted: &PipeStream) -> Result<InForce> {
    let broker = connection(core, tenant).await?;
    let made = broker.ensure_stream(&spec(tenant.org_id(), wanted)?).await.map_err(taken)?;
    Ok(in_force(&made))
}

/// A source that was deleted and made anew has the subjects of its predecessor, whose streams go first.
fn taken(error: BrokerError) -> Error {
    match error {
        BrokerError::Refused { code: OVERLAP, .. } => {
            Error::NotReady("the pipe, whose predecessor is being deleted,".into())
        }
        other => other.into(),
    }
}

pub(super) async fn find_in(tx: &mut OrgTx, source: SourceId, pipe: &str) -> Result<Option<PipeStream>> {
    match pipe_stream::find(tx, source, pipe).await {
        Ok(found) => Ok(Some(found)),
        Err(DbError::NotFound) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

async fn delete_stream(core: &Core, tenant: Tenant<'_>, source: SourceId, pipe: &str) -> Result<()> {
    let broker = connection(core, tenant).await?;
    broker.delete_stream(&StreamName::of_pipe(source.as_uuid(), pipe)?).await?;
    Ok(())
}

async fn delete_consumer(
    core: &Core,
    tenant: Tenant<'_>,
    (source, pipe): (SourceId, &str),
    user: UserId,
) -> Result<()> {
    // Allowed again since: their place is theirs.
    let back = async |tx: &mut OrgTx| Ok(read_cursor::find(tx, user, source, pipe).await?.is_some());
    if tenant.within(&core.db, back).await? {
        return Ok(());
    }
    let broker = connection(core, tenant).await?;
    let reader = Principal::new(user.as_uuid()).reader();
    broker.delete_reader(&StreamName::of_pipe(source.as_uuid(), pipe)?, &reader).await?;
    Ok(())
}

/// The stream of a row.
pub(super) fn spec(org: OrgId, wanted: &PipeStream) -> Result<StreamSpec> {
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let Retention { ttl_seconds, max_msgs, max_bytes } = wanted.wanted;
    Ok(StreamSpec {
        name: StreamName::of_pipe(wanted.source_id.as_uuid(), &wanted.pipe)?,
        subject: PipeSubject::new(org.as_uuid(), wanted.creator.as_uuid(), &wanted.handle, &wanted.pipe)?,
        retention: StreamRetention {
            age: std::time::Duration::from_secs(number(ttl_seconds)),
            messages: number(max_msgs),
            bytes: number(max_bytes),
        },
    })
}

/// What NATS has, as it is written down.
pub(super) fn in_force(found: &StreamInForce) -> InForce {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let retention = Retention {
        ttl_seconds: number(found.retention.age.as_secs()),
        max_msgs: number(found.retention.messages),
        max_bytes: number(found.retention.bytes),
    };
    // As the row gives it back: rows know a moment in microseconds, and an incarnation has one name.
    InForce { retention, incarnation: found.created.trunc_subsecs(6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_less_and_less_often_and_at_least_every_75_seconds() {
        for (attempt, about) in
            [(1, 100), (2, 200), (6, 3_200), (10, 51_200), (11, 60_000), (i32::MAX, 60_000)]
        {
            let waited = wait(attempt).num_milliseconds();
            assert!(waited >= about && waited <= about * 125 / 100, "{attempt}: {waited}");
        }
    }
}
