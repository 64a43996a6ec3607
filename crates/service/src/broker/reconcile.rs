//! Rows and NATS beside each other: what is missing there is made, what is too much is deleted, what differs is made to be
//! what the row says. Everything that was found is counted, logged and written into the organization's log.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use futures_util::future::try_join_all;
use metrics::{counter, gauge};
use serde_json::json;
use tidegate_broker::{OrgBroker, StreamInForce};
use tidegate_model::{OrgStatus, SourceId, UserId, pipe_of_stream, stream_name};
use tidegate_persistence::{
    Error as DbError, OrgTx, SystemScope, audit, organization,
    pipe_operation::{self, Operation},
    pipe_stream::{self, PipeStream},
    read_cursor::{self, StreamEnd},
    source,
};
use tokio_util::sync::CancellationToken;

use super::{
    Broker,
    accounts::{Tenant, account, connection, find_in as find_account_in, push},
    confirming::set_back_all,
    ended::forget,
    operations::{find_in, in_force, spec},
};
use crate::{Core, Error, Result};

/// Organizations, and rows of one, that are read at one time.
const PAGE: i32 = 500;
const ROWS: i64 = 5_000;
/// Streams whose readers are asked for at one time.
const READ: usize = 64;
/// Names that the log tells.
const TOLD: usize = 20;
/// How long what NATS refused is not asked of it again, where nobody else asks.
const REFUSED: TimeDelta = TimeDelta::hours(1);

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drift {
    /// Organizations that were looked at.
    pub organizations: usize,
    /// Those that could not be looked at.
    pub failed: usize,
    /// Accounts that NATS did not know, or knew by another token.
    pub accounts: usize,
    /// Streams that should be there and were not.
    pub missing: usize,
    /// Streams that should not be there and were.
    pub extra: usize,
    /// Streams that were not what they should be.
    pub different: usize,
    /// Readers of somebody who may not read, or not any more.
    pub readers: usize,
    /// Streams that are no pipe's at all: left alone.
    pub foreign: usize,
    /// Places beyond the end of their stream.
    pub places: usize,
    /// Streams of which fewer servers have all than should: one is away, or they are being brought after the others. Nothing
    /// to repair, but no moment to start a server anew.
    pub behind: usize,
}

impl Drift {
    /// Whether anything was to be repaired.
    pub const fn is_some(&self) -> bool {
        let streams = self.missing + self.extra + self.different + self.foreign;
        self.accounts + streams + self.readers + self.places > 0
    }

    fn add(&mut self, other: Self) {
        self.organizations += other.organizations;
        self.failed += other.failed;
        self.accounts += other.accounts;
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
        self.readers += other.readers;
        self.foreign += other.foreign;
        self.places += other.places;
        self.behind += other.behind;
    }
}

impl Broker {
    /// Compares every organization's rows with NATS and has the differences repaired, which [`Broker::apply_pending`] does.
    /// One that cannot be compared keeps no other from it, unless NATS is away as a whole.
    pub async fn reconcile(&self) -> Result<Drift> {
        self.reconcile_until(&CancellationToken::new()).await
    }

    /// The same, left off as soon as `shutdown` says so: what was found by then is reported.
    pub async fn reconcile_until(&self, shutdown: &CancellationToken) -> Result<Drift> {
        let core = &self.0;
        self.see_operator().await?;
        core.broker.live()?.system().await?;
        let (mut all, mut after) = (Drift::default(), None);
        'all: loop {
            let page = core.db.nats_organizations(after, PAGE).await?;
            for scope in &page {
                if shutdown.is_cancelled() {
                    break 'all;
                }
                match reconcile(core, scope, shutdown).await {
                    Ok(drift) => all.add(drift),
                    Err(error @ Error::Unavailable(_)) => return Err(error),
                    Err(error) => {
                        if matches!(error, Error::BrokerUnavailable(_)) && !shutdown.is_cancelled() {
                            // Its account alone, or all of NATS: then each of the others would wait in vain, too.
                            core.broker.live()?.system().await?.ping().await?;
                        }
                        all.failed += 1;
                        tracing::warn!(org = %scope.org_id(), %error, "pipes could not be compared with NATS");
                    }
                }
            }
            after = page.last().map(SystemScope::org_id);
            if i32::try_from(page.len()).is_ok_and(|found| found < PAGE) {
                break;
            }
        }
        self.report(all).await?;
        core.broker.wake();
        Ok(all)
    }

    async fn report(&self, drift: Drift) -> Result<()> {
        for (kind, found) in [
            ("account", drift.accounts),
            ("missing", drift.missing),
            ("extra", drift.extra),
            ("different", drift.different),
            ("reader", drift.readers),
            ("foreign", drift.foreign),
            ("place", drift.places),
        ] {
            counter!("tidegate_pipe_drift_total", "kind" => kind).increment(found as u64);
        }
        if drift.is_some() {
            tracing::warn!(?drift, "pipes and NATS differed");
        }
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        gauge!("tidegate_pipe_organizations_not_compared").set(drift.failed as f64);
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        gauge!("tidegate_pipe_streams_behind").set(drift.behind as f64);
        self.measure().await
    }
}

async fn reconcile(core: &Core, scope: &SystemScope, shutdown: &CancellationToken) -> Result<Drift> {
    let mut drift = Drift { organizations: 1, ..Drift::default() };
    let tenant = Tenant::System(scope);
    match account_agrees(core, tenant).await? {
        Some(true) => {}
        Some(false) => {
            drift.accounts += 1;
            push(core, scope.org_id()).await?;
        }
        // It was forgotten meanwhile.
        None => return Ok(drift),
    }
    let status = tenant.within(&core.db, status).await?;
    if status == OrgStatus::Suspended {
        // Nobody connects, we do not either: its streams are looked at when it is let in again.
        return Ok(drift);
    }
    let broker = connection(core, tenant).await?;
    // NATS first: a stream is wanted before it is made, so that what has no row afterwards is too much.
    let streams = broker.streams().await?;
    if status == OrgStatus::Deleted && streams.is_empty() {
        forget(core, tenant).await?;
        return Ok(drift);
    }
    drift.readers = end_unreadable(core, tenant).await?;
    drift.readers += remove_readers(core, tenant, &broker, &streams).await?;
    let names = compare(core, tenant, &broker, streams, &mut drift, shutdown).await?;
    if drift.is_some() {
        write_down(core, tenant, drift, names).await?;
    }
    Ok(drift)
}

/// Compares rows with streams, both ways, and gives the names of those that differ.
async fn compare(
    core: &Core,
    tenant: Tenant<'_>,
    broker: &OrgBroker,
    streams: Vec<StreamInForce>,
    drift: &mut Drift,
    shutdown: &CancellationToken,
) -> Result<Vec<String>> {
    let mut there: BTreeMap<String, StreamInForce> =
        streams.into_iter().map(|stream| (stream.name.to_string(), stream)).collect();
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let rows =
            tenant.within(&core.db, async |tx| Ok(pipe_stream::list(tx, after.clone(), ROWS).await?)).await?;
        let mut ends = Vec::new();
        for row in &rows {
            if shutdown.is_cancelled() {
                return Ok(names);
            }
            let name = stream_name(row.source_id, &row.pipe);
            let found = there.remove(&name);
            ends.extend(found.as_ref().map(|found| end_of(row, found)));
            drift.behind += usize::from(found.as_ref().is_some_and(|found| found.complete < broker.copies()));
            match repair(core, tenant, broker, row, found).await? {
                Repair::None => {}
                Repair::Missing => {
                    drift.missing += 1;
                    names.push(name);
                }
                Repair::Different => {
                    drift.different += 1;
                    names.push(name);
                }
            }
        }
        drift.places += set_back_all(core, tenant, broker, ends).await?;
        after = rows.last().map(|row| (row.source_id, row.pipe.clone()));
        if i64::try_from(rows.len()).is_ok_and(|found| found < ROWS) {
            break;
        }
    }
    for name in there.into_keys() {
        if shutdown.is_cancelled() {
            break;
        }
        match remove(core, tenant, &name).await? {
            Removal::Known => {}
            Removal::Extra => {
                drift.extra += 1;
                names.push(name);
            }
            Removal::Foreign => drift.foreign += 1,
        }
    }
    Ok(names)
}

fn end_of(row: &PipeStream, found: &StreamInForce) -> StreamEnd {
    StreamEnd {
        source_id: row.source_id,
        pipe: row.pipe.clone(),
        incarnation: found.created,
        last: i64::try_from(found.last).unwrap_or(i64::MAX),
    }
}

/// Whether NATS has the token that the row has; none where there is no row.
async fn account_agrees(core: &Core, tenant: Tenant<'_>) -> Result<Option<bool>> {
    let live = core.broker.live()?;
    let Some(row) = tenant.within(&core.db, find_account_in).await? else { return Ok(None) };
    let known = account(core, tenant).await?;
    let told = live.system().await?.account(known.authority.public()).await?;
    let signed_now = row.signed_by == live.authority().signing().public().as_str();
    Ok(Some(signed_now && told.as_deref() == Some(row.account_jwt.as_str())))
}

async fn status(tx: &mut OrgTx) -> Result<OrgStatus> {
    match organization::find(tx).await {
        Ok(found) => Ok(found.status),
        Err(DbError::NotFound) => Ok(OrgStatus::Deleted),
        Err(other) => Err(other.into()),
    }
}

enum Repair {
    None,
    Missing,
    Different,
}

/// Asks for whatever makes a stream what its row says, unless that was asked for already, or refused a moment ago. One that
/// was never made, for want of room, is no drift: whoever uses it next asks for it, and is told.
async fn repair(
    core: &Core,
    tenant: Tenant<'_>,
    broker: &OrgBroker,
    row: &PipeStream,
    found: Option<StreamInForce>,
) -> Result<Repair> {
    let wanted = spec(tenant.org_id(), row)?;
    let found = match found {
        None if row.in_force.is_none() => return Ok(Repair::None),
        // It may be younger than the list.
        None => broker.stream(&wanted.name).await?,
        found => found,
    };
    let (missing, agrees) = match &found {
        None => (true, false),
        Some(found) => {
            let subject = wanted.subject.all_senders();
            let as_often = found.copies == broker.copies();
            (false, as_often && found.retention == wanted.retention && found.subject == subject)
        }
    };
    let now = core.clock.now();
    let (source, pipe) = (row.source_id, row.pipe.as_str());
    if let (Some(found), true) = (&found, agrees) {
        let found = in_force(found);
        if row.in_force != Some(found) {
            // The same stream as wanted, and news only to the row.
            tenant
                .within(&core.db, async |tx| Ok(pipe_stream::note(tx, source, pipe, found, now).await?))
                .await?;
        }
        return Ok(Repair::None);
    }
    let asked = tenant
        .within(&core.db, async |tx| {
            let operation = Operation::EnsureStream(source, pipe.to_owned());
            if find_in(tx, source, pipe).await?.is_none()
                || is_pending(tx, source, pipe).await?
                || pipe_operation::has_failed(tx, &operation, now - REFUSED).await?
            {
                return Ok(false);
            }
            pipe_operation::insert(tx, &operation, now).await?;
            Ok(true)
        })
        .await?;
    Ok(match (asked, missing) {
        (false, _) => Repair::None,
        (true, true) => Repair::Missing,
        (true, false) => Repair::Different,
    })
}

enum Removal {
    Known,
    Extra,
    Foreign,
}

/// Asks for a stream to be deleted that no row wants, unless that was asked for already.
async fn remove(core: &Core, tenant: Tenant<'_>, name: &str) -> Result<Removal> {
    let Some((id, pipe)) = pipe_of_stream(name) else { return Ok(Removal::Foreign) };
    let now = core.clock.now();
    let asked = tenant
        .within(&core.db, async |tx| {
            // Whoever wants this very stream now waits, so that it is made after it is deleted.
            source::lock(tx, id).await?;
            if find_in(tx, id, pipe).await?.is_some() || is_pending(tx, id, pipe).await? {
                return Ok(false);
            }
            pipe_operation::insert(tx, &Operation::DeleteStream(id, pipe.to_owned()), now).await?;
            Ok(true)
        })
        .await?;
    Ok(if asked { Removal::Extra } else { Removal::Known })
}

/// Ends the places of those who may not read any more, which has their readers deleted: left by a right that was taken away
/// while the place was made.
async fn end_unreadable(core: &Core, tenant: Tenant<'_>) -> Result<usize> {
    tenant.within(&core.db, async |tx| Ok(read_cursor::end_unreadable(tx, None).await?)).await
}

/// Asks for readers to be deleted that have no row: left by a process that ended before it saw that the right was gone.
async fn remove_readers(
    core: &Core,
    tenant: Tenant<'_>,
    broker: &OrgBroker,
    streams: &[StreamInForce],
) -> Result<usize> {
    let mut asked = 0;
    let read: Vec<&StreamInForce> = streams.iter().filter(|stream| stream.readers > 0).collect();
    for some in read.chunks(READ) {
        // NATS first here, too: a reader's row stands before it is made.
        let names = try_join_all(some.iter().map(|stream| broker.readers(&stream.name)));
        let found: Vec<(SourceId, &str, UserId)> = some
            .iter()
            .zip(names.await?)
            .filter_map(|(stream, names)| Some((pipe_of_stream(stream.name.as_str())?, names)))
            .flat_map(|((source, pipe), names)| {
                let readers = names.into_iter().filter_map(|name| name.parse().ok());
                readers.map(move |user| (source, pipe, UserId::from_uuid(user))).collect::<Vec<_>>()
            })
            .collect();
        let now = core.clock.now();
        let work = tenant.within(&core.db, async |tx| {
            let sources = found.iter().map(|(source, ..)| *source).collect();
            let known: BTreeSet<(SourceId, String, UserId)> =
                read_cursor::readers(tx, sources).await?.into_iter().collect();
            let mut asked = 0;
            for (source, pipe, user) in found {
                if !known.contains(&(source, pipe.to_owned(), user)) && !is_pending(tx, source, pipe).await? {
                    let operation = Operation::DeleteConsumer(source, pipe.to_owned(), user);
                    pipe_operation::insert(tx, &operation, now).await?;
                    asked += 1;
                }
            }
            Ok(asked)
        });
        asked += work.await?;
    }
    Ok(asked)
}

async fn is_pending(tx: &mut OrgTx, source: SourceId, pipe: &str) -> Result<bool> {
    let topic = stream_name(source, pipe);
    Ok(!pipe_operation::pending(tx, Some(topic), 1).await?.is_empty())
}

async fn write_down(core: &Core, tenant: Tenant<'_>, drift: Drift, mut names: Vec<String>) -> Result<()> {
    names.truncate(TOLD);
    let entry = audit::Entry {
        action: "pipes.reconcile",
        resource: format!("organization:{}", tenant.org_id()),
        address: None,
        detail: json!({
            "missing": drift.missing, "extra": drift.extra, "different": drift.different, "readers": drift.readers, "foreign": drift.foreign, "places": drift.places,
            "accountPushed": drift.accounts > 0, "streams": names,
        }),
        at: core.clock.now(),
    };
    tenant.within(&core.db, async |tx| Ok(audit::insert_org(tx, entry).await?)).await
}
