//! What every handler can reach.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusHandle;
use tidegate_hub::Hub;
use tidegate_model::{AgentHandle, Secret};
use tidegate_service::Services;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Origin, ProxyRange};
use crate::{Config, Limits, health::Probe};

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub(crate) services: Services,
    pub(crate) hub: Hub,
    pub(crate) public: Option<Origin>,
    pub(crate) proxies: Arc<[ProxyRange]>,
    pub(crate) limits: Limits,
    pub(crate) metrics_token: Option<Secret<String>>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) probe: Arc<Probe>,
    pub(crate) dialling: Dialling,
    pub(crate) shutdown: CancellationToken,
    /// Tasks of upgraded connections; a shutdown waits for them.
    pub(crate) tasks: TaskTracker,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("hub", &self.hub)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Wires it once a server.
    pub fn new(
        config: &Config,
        services: Services,
        hub: Hub,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            services,
            hub,
            public: config.public_url.as_deref().and_then(Origin::of_url),
            proxies: config.trusted_proxies.clone().into(),
            limits: config.limits.clone(),
            metrics_token: config.metrics.token.clone(),
            metrics: crate::metrics::handle(),
            probe: Arc::default(),
            dialling: Dialling::default(),
            shutdown,
            tasks,
        }
    }

    pub(crate) fn body_time(&self) -> Duration {
        Duration::from_secs(self.limits.body_seconds)
    }
}

/// The agents that were asked to dial a tunnel and have not yet: a dial that does not say whose it is can only be
/// one of theirs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dialling(Arc<Mutex<HashMap<AgentHandle, usize>>>);

/// One dial that is waited for.
#[derive(Debug)]
pub(crate) struct Expected {
    agent: AgentHandle,
    dialling: Dialling,
}

impl Dialling {
    /// A dial of `agent` is expected until the answer is dropped.
    pub(crate) fn expect(&self, agent: AgentHandle) -> Expected {
        *self.lock().entry(agent.clone()).or_default() += 1;
        Expected { agent, dialling: self.clone() }
    }

    /// Every agent a dial is expected of.
    pub(crate) fn agents(&self) -> Vec<AgentHandle> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AgentHandle, usize>> {
        // Nothing that holds the lock can leave the map half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut dialling = self.dialling.lock();
        if let Some(count) = dialling.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                dialling.remove(&self.agent);
            }
        }
    }
}
