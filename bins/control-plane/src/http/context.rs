//! What every handler can reach.

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use tidegate_hub::Hub;
use tidegate_model::Secret;
use tidegate_service::Services;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Origin, ProxyHeader, ProxyRange, content::Site, sources::followers::Followers};
use crate::{Config, Limits, health::Probe};

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub(crate) services: Services,
    pub(crate) hub: Hub,
    pub(crate) public: Option<Origin>,
    pub(crate) site: Site,
    pub(crate) proxies: Arc<[ProxyRange]>,
    pub(crate) proxy_header: ProxyHeader,
    pub(crate) limits: Limits,
    /// Whether agents must bring a certificate of their own.
    pub(crate) agent_certificates: bool,
    pub(crate) metrics_token: Option<Secret<String>>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) probe: Arc<Probe>,
    /// Who follows pipes.
    pub(crate) followers: Followers,
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
            site: Site::of(config),
            proxies: config.trusted_proxies.clone().into(),
            proxy_header: config.proxy_header,
            limits: config.limits.clone(),
            agent_certificates: config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
            metrics_token: config.metrics.token.clone(),
            metrics: crate::metrics::handle(),
            probe: Arc::default(),
            followers: Followers::default(),
            shutdown,
            tasks,
        }
    }

    pub(crate) fn body_time(&self) -> Duration {
        Duration::from_secs(self.limits.body_seconds)
    }
}
