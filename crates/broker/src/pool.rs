//! Connections to organizations' accounts: made when first needed, kept while used, never more than a bound.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_model::Clock;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use crate::keys::AccountPublic;
use crate::{Options, OrgAccount, OrgBroker, Result};

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
    broker: Arc<OnceCell<OrgBroker>>,
}

impl Pool {
    /// Connects to nobody yet.
    pub fn new(options: Options, clock: Arc<dyn Clock>) -> Self {
        Self { options: Arc::new(options), clock, entries: Arc::default() }
    }

    /// The connection to an organization's account, made now where there is none: by one caller, the others wait for it.
    /// The account must have been pushed before.
    pub async fn get(&self, account: &OrgAccount) -> Result<OrgBroker> {
        let cell = self.entry(account.authority.public()).await;
        let connect = || OrgBroker::connect(&self.options, account.clone(), Arc::clone(&self.clock));
        cell.get_or_try_init(connect).await.cloned()
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

    async fn entry(&self, account: &AccountPublic) -> Arc<OnceCell<OrgBroker>> {
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
