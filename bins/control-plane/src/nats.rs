//! NATS, which carries pipes: the private server or a configured one. Whom a private server trusts stands in the database,
//! so that it is started after that.

use std::time::Duration;

use tidegate_engines::nats::{Durability, Nats, Options, Trust};
use tidegate_service::{Broker, BrokerOptions, BrokerTls, Error as ServiceError, NatsTrust, Services};

use crate::{Config, Error, NatsDurability};

/// The private server, and the keys that it was told to trust when it was started.
pub(crate) struct Private {
    server: Nats,
    trusted: Vec<String>,
}

impl Private {
    /// Stops it.
    pub(crate) async fn stop(self) -> Result<(), tidegate_engines::Error> {
        self.server.stop().await
    }
}

/// How long nobody tries again to tell the server whom to trust.
const PAUSE: Duration = Duration::from_secs(2);

/// Starts the private server where none is configured, and tells the services where NATS is. One that does not answer yet
/// stops nobody from starting: pipes answer 503 until it does, and `/readyz` says so.
pub(crate) async fn open(config: &Config, services: &Services) -> Result<Option<Private>, Error> {
    let nats = &config.nats;
    if !nats.is_wanted(config.is_embedded()) {
        tracing::info!("there are no pipes: set `nats.url` to the servers that are to carry them");
        return Ok(None);
    }
    let mut broker = BrokerOptions {
        public_url: nats.public_url.clone(),
        tls: BrokerTls { required: nats.tls_required, roots: nats.ca_files.clone() },
        replicas: nats.replicas,
        reconcile: Duration::from_secs(nats.reconcile_seconds.max(1)),
        ..BrokerOptions::new(nats.urls())
    };
    if config.is_embedded() {
        // No other control plane works on this database: whoever had claimed something was killed. What the console is at
        // just now is done once more, which changes nothing.
        let left = services.broker.let_go().await.map_err(failed("let go of what was claimed before"))?;
        tracing::debug!(left, "operations on NATS that an earlier process left");
    }
    let mut private = None;
    if nats.url.is_none() {
        if !config.is_embedded() {
            tracing::warn!(
                "a private NATS beside a shared database serves this process alone: set `nats.url` where there are others"
            );
        }
        let operator =
            services.broker.operator().await.map_err(failed("make its operator in the database"))?;
        let trusted = operator.trusted();
        // Whom it trusts is read after that: keys that came in between are told once more.
        let server = Nats::start(options(config, services).await?).await?;
        tracing::info!(url = server.url(), version = server.version(), "NATS runs");
        broker.urls = vec![server.url()];
        broker.disk = Some((config.data_dir(), nats.min_free_bytes));
        private = Some(Private { server, trusted });
    }
    match ready(services, broker, private.is_some()).await {
        Ok(()) => Ok(private),
        Err(error) => {
            if let Some(server) = private {
                // Why it could not be used matters more than how it ended.
                drop(server.stop().await);
            }
            Err(error)
        }
    }
}

fn failed(doing: &'static str) -> impl FnOnce(ServiceError) -> Error {
    move |error| Error::Nats { doing, source: Box::new(error) }
}

async fn ready(services: &Services, options: BrokerOptions, private: bool) -> Result<(), Error> {
    services.broker.open(options).await.map_err(failed("read its operator from the database"))?;
    if let Err(error) = services.broker.check().await {
        tracing::warn!(error = crate::chain(&error), "NATS cannot be used yet: pipes wait for it");
        if !private {
            let trust =
                services.broker.trust().await.map_err(failed("read its operator from the database"))?;
            // Public keys and tokens signed by them: nothing secret.
            tracing::info!(
                operator = trust.operator,
                system_account = trust.system_account,
                resolver_preload = trust.system_token,
                "nats-server has to run in operator mode with this operator, this system account with its token under \
                 `resolver_preload`, and a `full` resolver"
            );
        }
    }
    Ok(())
}

/// Starts the private server anew whenever the operator trusts other keys than it was told of, and where its disk had run
/// out; never ends.
pub(crate) async fn follow(private: Option<&Private>, broker: &Broker) {
    let (Some(Private { server, trusted }), Ok(mut operators), Ok(mut restarts)) =
        (private, broker.operators(), broker.restarts())
    else {
        return std::future::pending().await;
    };
    let mut told = trusted.clone();
    loop {
        let wanted: Vec<String> =
            operators.borrow_and_update().trusted().iter().map(ToString::to_string).collect();
        if wanted != told {
            match tell(server, broker).await {
                Ok(()) => told = wanted,
                Err(error) => {
                    tracing::warn!(
                        error = crate::chain(&*error),
                        "NATS was not told whom to trust, tried again"
                    );
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
        }
        let changed = tokio::select! {
            changed = operators.changed() => changed,
            wanted = restarts.changed() => {
                server.restart();
                wanted
            }
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn tell(server: &Nats, broker: &Broker) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let trust = broker.trust().await?;
    server.trust(engine_trust(trust)).await?;
    tracing::info!("NATS is started anew: its operator trusts other keys");
    Ok(())
}

fn engine_trust(trust: NatsTrust) -> Trust {
    let NatsTrust { operator, system_account, system_token } = trust;
    Trust { operator, system_account, system_token }
}

/// How the private server is run.
async fn options(config: &Config, services: &Services) -> Result<Options, Error> {
    let trust = services.broker.trust().await;
    let trust = trust.map_err(|error| Error::Nats {
        doing: "make its operator in the database",
        source: Box::new(error),
    })?;
    let trust = engine_trust(trust);
    let nats = &config.nats;
    let mut options = Options::new(config.data_dir(), trust);
    options.port = nats.port;
    options.run_as.clone_from(&nats.run_as);
    options.bin_dirs.clone_from(&nats.bin_dirs);
    options.durability = match nats.durability {
        NatsDurability::Full => Durability::Full,
        NatsDurability::Relaxed => Durability::Relaxed,
    };
    Ok(options)
}
