//! What somebody reads, with what waits there for them, and who was seen on pipes. Rows say what and who, in one statement
//! each; NATS says how much, asked side by side.

use futures_util::{StreamExt, stream};
use tidegate_broker::{OrgBroker, Principal};
use tidegate_model::{LastSent, Operation, SeenMember, Subscription, UserId};
use tidegate_persistence::{
    OrgScope,
    pipe_reader::{self, Subscribed},
    source::PREVIEW,
};

use super::{
    accounts::{Tenant, connection},
    messages::{Messages, stream_of},
    reading,
};
use crate::{
    Error, Listed, Paging, Result,
    page::{bad_cursor, moment},
    permissions::{require, standing},
};

/// Pipes that NATS is asked about at once.
const AT_ONCE: usize = 16;

impl Messages {
    /// The pipes that the caller reads, by handle and name, with what waits for them in each. Where NATS does not answer,
    /// that is left out.
    pub async fn subscriptions(&self, scope: &OrgScope, paging: &Paging) -> Result<Listed<Subscription>> {
        require(Operation::ReadSources, standing(scope, scope.role()))?;
        let after = match paging.after()? {
            Some(cursor) => {
                let (handle, pipe) = cursor.split_once('/').ok_or_else(bad_cursor)?;
                (handle.to_owned(), pipe.to_owned())
            }
            None => <(String, String)>::default(),
        };
        let (me, rows) = (scope.user_id(), paging.rows());
        let work = self
            .0
            .db
            .in_org(scope, async |tx| Ok::<_, Error>(pipe_reader::subscriptions(tx, me, after, rows).await?));
        let (items, total) = work.await?;
        let page = paging.page(items, total, |row| format!("{}/{}", row.handle, row.pipe));
        if page.items.is_empty() {
            return Ok(page.map(|row| known(row, None)));
        }
        let broker = match connection(&self.0, Tenant::Member(scope)).await {
            Ok(broker) => Some(broker),
            Err(Error::BrokerUnavailable(_) | Error::NotReady(_)) => None,
            Err(other) => return Err(other),
        };
        let Listed { items, total, total_is_exact, next_cursor } = page;
        let asked = stream::iter(items).map(|row| {
            let broker = broker.as_ref();
            async move {
                let found = match broker {
                    Some(broker) => waiting(broker, me, &row).await?,
                    None => None,
                };
                Ok::<_, Error>(known(row, found))
            }
        });
        let asked: Vec<Result<Subscription>> = asked.buffered(AT_ONCE).collect().await;
        let items = asked.into_iter().collect::<Result<_>>()?;
        Ok(Listed { items, total, total_is_exact, next_cursor })
    }

    /// Members of the caller's organization who were seen on pipes, the last one first.
    pub async fn seen(&self, scope: &OrgScope, paging: &Paging) -> Result<Listed<SeenMember>> {
        require(Operation::ReadSources, standing(scope, scope.role()))?;
        let (before, rows, now) = (paging.after_moment::<UserId>()?, paging.rows(), self.0.clock.now());
        let work =
            self.0.db.in_org(scope, async |tx| Ok::<_, Error>(pipe_reader::seen(tx, before, rows).await?));
        let (items, total) = work.await?;
        let page = paging.page(items, total, |seen| moment(seen.at, seen.user_id));
        Ok(page.map(|seen| SeenMember {
            user_id: seen.user_id,
            username: seen.username,
            seen_at: seen.at,
            connected_until: seen.token_until.filter(|until| *until > now),
            pipes: seen.pipes.unsigned_abs(),
        }))
    }
}

/// What NATS says of a pipe for one reader.
struct Waiting {
    sequence: u64,
    unread: u64,
    last: Option<LastSent>,
}

/// Asks NATS; none where it does not answer, or has lost the stream, which is then made anew.
async fn waiting(broker: &OrgBroker, me: UserId, row: &Subscribed) -> Result<Option<Waiting>> {
    let name = stream_of(row.source_id, &row.pipe)?;
    let reader = Principal::new(me.as_uuid()).reader();
    let asked =
        async { tokio::try_join!(broker.stream(&name), broker.reader(&name, &reader), broker.last(&name)) };
    let (found, state, last) = match asked.await {
        Ok(answers) => answers,
        Err(error) => {
            return match Error::from(error) {
                Error::BrokerUnavailable(why) => {
                    tracing::debug!(stream = %name, %why, "a pipe is listed without what waits in it");
                    Ok(None)
                }
                other => Err(other),
            };
        }
    };
    let written = if row.incarnation == row.stream { row.sequence.unsigned_abs() } else { 0 };
    let sequence = state.as_ref().map_or(0, |state| state.acknowledged).max(written);
    let unread = match (&state, &found) {
        (Some(state), Some(found)) => super::confirming::waiting(written, state, found),
        (Some(state), None) => state.unread(),
        // The reader was idle for so long that NATS forgot it: it comes back where it was.
        (None, Some(found)) => super::confirming::left(written, found),
        (None, None) => 0,
    };
    let last = last.as_ref().and_then(|stored| {
        let envelope = reading::envelope(stored)?;
        let text = envelope.payload.preview(PREVIEW);
        Some(LastSent { sequence: stored.sequence, sender: envelope.sender, stored_at: stored.time, text })
    });
    Ok(Some(Waiting { sequence, unread, last }))
}

fn known(row: Subscribed, found: Option<Waiting>) -> Subscription {
    let written = if row.incarnation == row.stream { row.sequence.unsigned_abs() } else { 0 };
    let (sequence, unread, last) = match found {
        Some(found) => (found.sequence, Some(found.unread), found.last),
        None => (written, None, None),
    };
    Subscription {
        source_id: row.source_id,
        handle: row.handle,
        kind: row.kind,
        owner: row.owner,
        pipe: row.pipe,
        sequence,
        at: row.at,
        unread,
        last,
    }
}
