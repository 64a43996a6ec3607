//! NATS, which carries pipes: the private server or a configured one. Whom a private server trusts stands in the database,
//! so that it is started after that.

use std::time::Duration;

use tidegate_engines::nats::{Durability, Nats, Options, Trust};
use tidegate_service::{BrokerOptions, BrokerTls, Error as ServiceError, Services};

use crate::{Config, Error, NatsDurability};

/// Starts the private server where none is configured, and tells the services where NATS is. One that does not answer yet
/// stops nobody from starting: pipes answer 503 until it does, and `/readyz` says so.
pub(crate) async fn open(config: &Config, services: &Services) -> Result<Option<Nats>, Error> {
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
    let mut private = None;
    if nats.url.is_none() {
        if !config.is_embedded() {
            tracing::warn!(
                "a private NATS beside a shared database serves this process alone: set `nats.url` where there are others"
            );
        }
        let server = Nats::start(options(config, services).await?).await?;
        tracing::info!(url = server.url(), version = server.version(), "NATS runs");
        broker.urls = vec![server.url()];
        broker.disk = Some((config.data_dir(), nats.min_free_bytes));
        private = Some(server);
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

async fn ready(services: &Services, options: BrokerOptions, private: bool) -> Result<(), Error> {
    let failed = |doing| move |error: ServiceError| Error::Nats { doing, source: Box::new(error) };
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

/// How the private server is run.
async fn options(config: &Config, services: &Services) -> Result<Options, Error> {
    let trust = services.broker.trust().await;
    let trust = trust.map_err(|error| Error::Nats {
        doing: "make its operator in the database",
        source: Box::new(error),
    })?;
    let trust = Trust {
        operator: trust.operator,
        system_account: trust.system_account,
        system_token: trust.system_token,
    };
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
