//! What this process has of NATS: the connection to the system account, those to organizations, and what is worth
//! remembering between two requests. Never a row's state: accounts that were made never change their keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tidegate_broker::{Authority, Options, OrgAccount, Pool, System};
use tidegate_model::{Clock, OrgId};
use tidegate_persistence::nats_account::PrincipalPlace;
use tokio::{
    runtime::Handle,
    sync::{Notify, OnceCell, watch},
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

use super::{BrokerOptions, disk::Guard, noted::Noted, room::Seen};
use crate::{Error, Result};

/// How long nobody tries to connect after somebody could not: those who wait would do so one after the other.
const PAUSE: Duration = Duration::from_millis(500);
/// Accounts that are remembered at most.
const ACCOUNTS: usize = 10_000;

/// NATS, once it is set.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    live: OnceLock<Live>,
    /// That something is to be told to NATS.
    work: Arc<Notify>,
    /// That a terminal is to be recorded.
    recordings: Arc<Notify>,
    /// What was last sent to sources, not written down yet.
    pub(crate) noted: Noted,
    /// How far credentials were looked at.
    looked_at: Mutex<Option<PrincipalPlace>>,
}

/// What NATS says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The server's version.
    pub version: String,
    /// Organizations that this process is connected to.
    pub organizations: usize,
}

/// NATS, as it was set.
#[derive(Debug)]
pub(crate) struct Live {
    authority: watch::Sender<Arc<Authority>>,
    pub(crate) pool: Pool,
    pub(crate) url: String,
    pub(crate) reconcile: Duration,
    pub(crate) disk: Option<Guard>,
    /// What is known of the room there.
    pub(super) room: Mutex<Seen>,
    /// How often the server is to be started anew.
    pub(super) restarts: watch::Sender<u64>,
    options: Options,
    clock: Arc<dyn Clock>,
    system: OnceCell<System>,
    failed: Mutex<Option<Instant>>,
    accounts: Mutex<HashMap<OrgId, OrgAccount>>,
    /// What goes on whether or not a request still waits for it, and where: serving threads end before it does.
    tasks: TaskTracker,
    runtime: Handle,
}

impl Slot {
    pub(crate) fn set(
        &self,
        options: BrokerOptions,
        authority: Authority,
        clock: Arc<dyn Clock>,
    ) -> Result<()> {
        let BrokerOptions { urls, public_url, tls, replicas, disk, reconcile } = options;
        let url = public_url.or_else(|| urls.first().cloned()).unwrap_or_default();
        let options = Options { tls, replicas, ..Options::new(urls) };
        let live = Live {
            authority: watch::Sender::new(Arc::new(authority)),
            pool: Pool::new(options.clone(), Arc::clone(&clock)),
            url,
            reconcile,
            disk: disk.map(|(folder, least)| Guard::new(folder, least)),
            room: Mutex::default(),
            restarts: watch::Sender::default(),
            options,
            clock,
            system: OnceCell::new(),
            failed: Mutex::default(),
            accounts: Mutex::default(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        };
        self.live.set(live).map_err(|_| Error::internal("NATS was set twice"))
    }

    /// NATS, or that there is none.
    pub(crate) fn live(&self) -> Result<&Live> {
        self.live.get().ok_or_else(|| Error::BrokerUnavailable("this process was given no NATS".into()))
    }

    /// Says that something committed which NATS is to be told.
    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    /// Waits until somebody says so.
    pub(crate) async fn woken(&self) {
        self.work.notified().await;
    }

    /// Keeps how far credentials were looked at, and gives how far they were before.
    pub(crate) fn looked_at(&self, place: Option<PrincipalPlace>) -> Option<PrincipalPlace> {
        std::mem::replace(&mut *locked(&self.looked_at), place)
    }

    /// Says that a terminal is to be recorded.
    pub(crate) fn record(&self) {
        self.recordings.notify_one();
    }

    /// Waits until somebody says so.
    pub(crate) async fn to_record(&self) {
        self.recordings.notified().await;
    }
}

impl Live {
    /// Begins what goes on whether or not anybody waits for it.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn_on(work, &self.runtime)
    }

    /// Waits until all of that is over.
    pub(super) async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The connection to the system account, made when it is first needed.
    pub(crate) async fn system(&self) -> Result<&System> {
        self.system.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<System> {
        if locked(&self.failed).is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(Error::BrokerUnavailable("it could not be reached a moment ago".into()));
        }
        let connected = System::connect(&self.options, self.authority(), Arc::clone(&self.clock)).await;
        connected.map_err(|error| {
            *locked(&self.failed) = Some(Instant::now());
            // Whatever it says of itself, pipes cannot be used until somebody has seen to it.
            Error::BrokerUnavailable(Box::new(error))
        })
    }

    /// How many servers every stream is to be on.
    pub(crate) const fn copies(&self) -> usize {
        self.options.replicas
    }

    /// The operator, as this process last saw it. What signs reads it anew.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority.borrow())
    }

    /// Follows the operator.
    pub(crate) fn authorities(&self) -> watch::Receiver<Arc<Authority>> {
        self.authority.subscribe()
    }

    /// Keeps the operator as the row has it now; whoever follows it is told where other keys are trusted.
    pub(crate) fn see(&self, authority: Authority) {
        self.authority.send_if_modified(|seen| {
            let changed = seen.trusted() != authority.trusted();
            if changed {
                *seen = Arc::new(authority);
            }
            changed
        });
    }

    /// An account that was used before in this process.
    pub(crate) fn known(&self, org: OrgId) -> Option<OrgAccount> {
        locked(&self.accounts).get(&org).cloned()
    }

    pub(crate) fn remember(&self, org: OrgId, account: OrgAccount) {
        let mut accounts = locked(&self.accounts);
        // All anew now and then, rather than an order to keep.
        if accounts.len() >= ACCOUNTS {
            accounts.clear();
        }
        accounts.insert(org, account);
    }

    /// Looks at the account's row again the next time.
    pub(crate) fn forget(&self, org: OrgId) {
        locked(&self.accounts).remove(&org);
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
