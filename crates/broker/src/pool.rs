//! Connections to organizations' accounts: made when first needed, kept while used, never more than a bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as Guarded, PoisonError};
use std::time::Duration;

use tidegate_model::Clock;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use crate::keys::AccountPublic;
use crate::{Error, Options, OrgAccount, OrgBroker, Result};

/// An attempt that took so long before it failed was made to somebody who does not answer. For as long after it nobody else
/// tries: all who wait would, one after the other.
const SLOW: Duration = Duration::from_millis(500);

/// One connection per organization, shared by everybody who asks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    options: Arc<Options>,
    clock: Arc<dyn Clock>,
    entries: Arc<Mutex<HashMap<AccountPublic, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    used: Instant,
    broker: Arc<Made>,
}

/// A connection once it is made, and when an attempt failed that took long.
#[derive(Debug, Default)]
struct Made {
    broker: OnceCell<OrgBroker>,
    failed: Guarded<Option<Instant>>,
}

impl Pool {
    /// Connects to nobody yet.
    pub fn new(options: Options, clock: Arc<dyn Clock>) -> Self {
        Self { options: Arc::new(options), clock, entries: Arc::default() }
    }

    /// The connection to an organization's account, made now where there is none: by one caller, the others wait for it.
    /// The account must have been pushed before.
    pub async fn get(&self, account: &OrgAccount) -> Result<OrgBroker> {
        let made = self.entry(account.authority.public()).await;
        made.broker.get_or_try_init(|| self.connect(&made.failed, account)).await.cloned()
    }

    async fn connect(&self, failed: &Guarded<Option<Instant>>, account: &OrgAccount) -> Result<OrgBroker> {
        let began = Instant::now();
        let recent = |at: Instant| began.duration_since(at) < SLOW;
        if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(recent) {
            return Err(Error::late("connect"));
        }
        let connected = OrgBroker::connect(&self.options, account.clone(), Arc::clone(&self.clock)).await;
        if connected.is_err() && began.elapsed() >= SLOW {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        connected
    }

    /// Closes the connection to an account, for instance because the organization is suspended or has new keys. Whoever
    /// still works with it goes on until done.
    pub async fn close(&self, account: &AccountPublic) {
        self.entries.lock().await.remove(account);
    }

    /// Closes what was not used for [`Options::idle`]; to be called now and then.
    pub async fn sweep(&self) {
        let idle = self.options.idle;
        self.entries.lock().await.retain(|_, entry| entry.used.elapsed() < idle);
    }

    /// How many organizations are connected or being connected to.
    pub async fn len(&self) -> usize {
        self.entries.lock().await.len()
    }

    /// Whether nobody is connected.
    pub async fn is_empty(&self) -> bool {
        self.len().await == 0
    }

    async fn entry(&self, account: &AccountPublic) -> Arc<Made> {
        let mut entries = self.entries.lock().await;
        if !entries.contains_key(account) && entries.len() >= self.options.connections {
            let longest_idle =
                entries.iter().min_by_key(|(_, entry)| entry.used).map(|(account, _)| account.clone());
            entries.remove(&longest_idle.unwrap_or_else(|| account.clone()));
        }
        let entry = entries
            .entry(account.clone())
            .or_insert_with(|| Entry { used: Instant::now(), broker: Arc::default() });
        entry.used = Instant::now();
        Arc::clone(&entry.broker)
    }
}
