//! Running modules: what is loaded is remembered by its digest, never whether it may run; that is asked of the row each
//! time. Each call has a thread of its own, of which there are few.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tidegate_model::InstalledPluginId;
use tidegate_persistence::{
    Operator, OrgTx, PlatformTx,
    installed_plugin::{self, Running},
};
use tidegate_plugins::{Fault, Grants, Limits, Module, Sandbox};
use tokio::sync::{OnceCell, Semaphore};

use super::{host::PluginHost, package::Package, switch};
use crate::{Core, Error, Result, egress::Egress};

/// Bytes of packages that are remembered at most, and how many.
const REMEMBERED: usize = 64 * 1024 * 1024;
const PACKAGES: usize = 64;
/// How long a call waits for a thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// What runs modules.
#[derive(Debug)]
pub(crate) struct Runtime {
    sandbox: Sandbox,
    permits: Arc<Semaphore>,
    loaded: Mutex<HashMap<Vec<u8>, Arc<Loaded>>>,
    /// Plugins that did something wrong here since they last did not.
    faulty: Mutex<HashSet<InstalledPluginId>>,
    pub(crate) egress: Egress,
}

/// A package with its module, once somebody needs it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) package: Package,
    module: OnceCell<std::result::Result<Module, Fault>>,
}

/// Why a module gave no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It did something wrong.
    Fault(Fault),
    /// It was to be told more than so many bytes.
    Told(usize),
    /// Too many run already.
    Busy,
    /// Something of ours.
    Ours(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Told(most) => Self::Told(most),
            its_own => Self::Fault(its_own),
        }
    }
}

impl Runtime {
    pub(crate) fn new(workers: usize, egress: Egress) -> Self {
        Self {
            sandbox: Sandbox::new(),
            permits: Arc::new(Semaphore::new(workers.max(1))),
            loaded: Mutex::default(),
            faulty: Mutex::default(),
            egress,
        }
    }

    fn known(&self, digest: &[u8]) -> Option<Arc<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn remember(&self, digest: Vec<u8>, loaded: &Arc<Loaded>) {
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let weight: usize = all.values().map(|it| it.package.bytes()).sum();
        if all.len() >= PACKAGES || weight + loaded.package.bytes() > REMEMBERED {
            // Whoever is needed is read again.
            all.clear();
        }
        all.insert(digest, Arc::clone(loaded));
    }

    fn is_faulty(&self, id: InstalledPluginId) -> bool {
        self.faulty.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    fn note_fault(&self, id: InstalledPluginId) {
        let mut faulty = self.faulty.lock().unwrap_or_else(PoisonError::into_inner);
        if faulty.len() < 10_000 {
            faulty.insert(id);
        }
    }

    /// Whether a module could be run, as far as that can be told without running it.
    pub(crate) async fn check(&self, bytes: Vec<u8>) -> std::result::Result<(), String> {
        let sandbox = self.sandbox.clone();
        let loaded = tokio::task::spawn_blocking(move || sandbox.load(&bytes).map(drop)).await;
        match loaded {
            Ok(loaded) => loaded.map_err(|fault| fault.to_string()),
            Err(_) => Err("it cannot be read".to_owned()),
        }
    }
}

/// What a plugin consists of.
pub(crate) async fn loaded(core: &Arc<Core>, running: &Running) -> Result<Arc<Loaded>> {
    if let Some(known) = core.plugins.known(&running.package) {
        return Ok(known);
    }
    let digest = running.package.clone();
    let content = if let Some(scope) = &running.scope {
        let read = async |tx: &mut OrgTx| installed_plugin::package_in(tx, digest).await;
        core.db.in_org_as_system(scope, read).await?
    } else {
        let read = async |tx: &mut PlatformTx| installed_plugin::package(tx, digest).await;
        core.db.in_platform(&Operator::system(), read).await?
    };
    let read = tokio::task::spawn_blocking(move || Package::read(&content)).await;
    let package = read.map_err(Error::internal)?.map_err(Error::internal)?;
    let loaded = Arc::new(Loaded { package, module: OnceCell::new() });
    core.plugins.remember(running.package.clone(), &loaded);
    Ok(loaded)
}

/// Calls a plugin's module, and keeps the count of what it does wrong.
pub(crate) async fn call(core: &Arc<Core>, running: &Running, input: Value) -> Result<Value, Failed> {
    let answer = try_call(core, running, input).await;
    match &answer {
        Ok(_) => {
            if core.plugins.is_faulty(running.id) {
                let forgive = async |tx: &mut PlatformTx| installed_plugin::forgive(tx, running.id).await;
                core.db.in_platform(&Operator::system(), forgive).await.map_err(Error::from)?;
            }
        }
        Err(Failed::Fault(fault)) => blame(core, running, fault).await?,
        Err(Failed::Told(_) | Failed::Busy | Failed::Ours(_)) => {}
    }
    answer
}

async fn try_call(core: &Arc<Core>, running: &Running, input: Value) -> Result<Value, Failed> {
    let loaded = loaded(core, running).await?;
    let permit = tokio::time::timeout(PATIENCE, Arc::clone(&core.plugins.permits).acquire_owned()).await;
    let Ok(Ok(permit)) = permit else { return Err(Failed::Busy) };
    let module = loaded.module.get_or_init(|| load(core, running, &loaded)).await.clone();
    let module = module.map_err(Failed::Fault)?;
    let grants = Grants::of(running.permissions.iter().map(String::as_str));
    let (host, limits) = (PluginHost::new(core, running, grants.clone()), Limits::default());
    let waited = host.waited();
    let called = tokio::task::spawn_blocking(move || {
        let answer = module.call(&input, Box::new(host), &grants, &limits);
        drop(permit);
        answer
    });
    match called.await {
        // The time was the platform's own: a slow database disables no plugin.
        Ok(Err(Fault::Time(_))) if waited.longer_than(limits.time / 2) => {
            Err(Failed::Ours(Error::Unavailable("the database did not answer a plugin in time".into())))
        }
        Ok(answer) => answer.map_err(Failed::from),
        // A panic is a mistake of ours or of the interpreter's; whatever it was, this module brought it about.
        Err(_) => Err(Failed::Fault(Fault::Trapped("the interpreter gave up".to_owned()))),
    }
}

async fn load(
    core: &Arc<Core>,
    running: &Running,
    loaded: &Arc<Loaded>,
) -> std::result::Result<Module, Fault> {
    let missing = || Fault::Unloadable("its package does not hold it".to_owned());
    let path = super::check::module_path(&running.manifest).ok_or_else(missing)?;
    let bytes = loaded.package.file(path).ok_or_else(missing)?.to_vec();
    let sandbox = core.plugins.sandbox.clone();
    let module = tokio::task::spawn_blocking(move || sandbox.load(&bytes)).await;
    module.unwrap_or_else(|_| Err(Fault::Unloadable("it cannot be read".to_owned())))
}

/// Counts a fault; a plugin with too many of them runs no more.
async fn blame(core: &Arc<Core>, running: &Running, fault: &Fault) -> Result<()> {
    tracing::warn!(plugin = running.name, id = %running.id, %fault, "a plugin did something wrong");
    core.plugins.note_fault(running.id);
    let most = i32::try_from(core.options.plugins.faults.max(1)).unwrap_or(i32::MAX);
    let (id, revision, now) = (running.id, running.revision, core.clock.now());
    core.db
        .in_platform(&Operator::system(), async |tx| {
            let faults = installed_plugin::count_fault(tx, id, revision).await?;
            if faults.is_some_and(|faults| faults >= most) {
                let reason = format!("{most} faults one after the other; the last: {fault}");
                switch(tx, id, false, Some(reason), now).await?;
            }
            Ok::<_, Error>(())
        })
        .await
}
