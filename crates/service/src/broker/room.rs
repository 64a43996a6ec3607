//! Too little room on the disk of the pipes closes them for everybody, clients of NATS included: every account is signed so
//! that it may keep less than it does, which NATS refuses with a word that clients know. What is there stays readable.
//!
//! Once there is room it is opened again. Where so little was left that a write may have failed, the server has to be
//! started anew before: nats-server stores nothing more in a stream that it once could not write.

use serde_json::json;
use tidegate_persistence::{Operator, audit, nats_account};
use tokio::sync::watch;

use super::{Broker, slot::locked};
use crate::Result;

/// The part of what is to stay free that has to be there beyond it, before anything is stored again: who is at the edge is
/// not closed and opened all the time.
const MARGIN: u64 = 16;
/// With fewer bytes free a write may have failed.
const RAN_OUT: u64 = 64 * 1024 * 1024;

/// What this process knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether every account was told that nothing is stored; none before the first look.
    told: Option<bool>,
    /// The least that was free while it was so.
    lowest: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self { told: None, lowest: u64::MAX }
    }
}

impl Seen {
    /// Whether nothing is to be stored, where so many bytes are free and so many are to stay so.
    fn closes(self, free: u64, least: u64) -> bool {
        if free < least {
            return true;
        }
        self.told == Some(true) && free < least.saturating_add(least / MARGIN)
    }
}

impl Broker {
    /// Closes or opens, where the room says so.
    pub(super) async fn look_at_room(&self) -> Result<()> {
        let live = self.0.broker.live()?;
        let seen = *locked(&live.room);
        let (free, least) = match live.disk.as_ref().map(|guard| (guard.free(), guard.least())) {
            // Somebody else's disk: what this platform closed before it moved there is open.
            None => (u64::MAX, 0),
            Some((Some(free), least)) => (free, least),
            // A disk that cannot be looked at says nothing.
            Some((None, _)) => return Ok(()),
        };
        let closed = seen.closes(free, least);
        let lowest = if closed { seen.lowest.min(free) } else { seen.lowest };
        locked(&live.room).lowest = lowest;
        if seen.told == Some(closed) {
            return Ok(());
        }
        self.note_room(closed, free, least).await?;
        if !closed && lowest < RAN_OUT {
            tracing::warn!(
                "the disk of the pipes had run out: NATS is started anew, so that every stream can be written"
            );
            live.restarts.send_modify(|count| *count += 1);
            locked(&live.room).lowest = u64::MAX;
        }
        self.sign_all_anew().await?;
        locked(&live.room).told = Some(closed);
        Ok(())
    }

    /// Writes it down: from then on accounts are signed so.
    async fn note_room(&self, closed: bool, free: u64, least: u64) -> Result<()> {
        let now = self.0.clock.now();
        let (db, system) = (&self.0.db, Operator::system());
        let changed = db.in_platform(&system, async |tx| {
            let changed = nats_account::set_closed(tx, closed.then_some(now)).await?;
            if changed {
                let entry = audit::Entry {
                    action: if closed { "nats.close" } else { "nats.open" },
                    resource: "nats:storage".to_owned(),
                    address: None,
                    detail: json!({"after": {"freeBytes": free, "leastFreeBytes": least}}),
                    at: now,
                };
                audit::insert_platform(tx, entry).await?;
            }
            Ok::<_, crate::Error>(changed)
        });
        if !changed.await? {
            return Ok(());
        }
        if closed {
            tracing::warn!(
                free,
                least,
                "the disk of the pipes has too little room: nothing is stored until there is more"
            );
        } else {
            tracing::info!(free, least, "the disk of the pipes has room: messages are stored again");
        }
        Ok(())
    }

    /// Follows how often the server that keeps its streams here is to be started anew.
    pub fn restarts(&self) -> Result<watch::Receiver<u64>> {
        Ok(self.0.broker.live()?.restarts.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_below_the_bound_and_opens_a_margin_above_it() {
        let told = |told| Seen { told, ..Seen::default() };
        for (known, free, closed) in [
            (None, 99, true),
            (None, 100, false),
            (Some(false), 99, true),
            (Some(false), 100, false),
            (Some(true), 100, true),
            (Some(true), 105, true),
            (Some(true), 106, false),
        ] {
            assert_eq!(told(known).closes(free, 100), closed, "{known:?} {free}");
        }
        // Nothing is asked of a disk that is somebody else's.
        assert!(!told(Some(true)).closes(u64::MAX, 0));
        assert!(told(None).closes(u64::MAX - 1, u64::MAX));
    }
}
