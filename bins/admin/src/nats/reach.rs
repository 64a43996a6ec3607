//! From settings to NATS: the configured servers, the running private one, or the private one started for this command
//! alone.

use std::{path::Path, time::Duration};

use tidegate_engines::{
    Error as EngineError,
    nats::{self, Durability, Nats, Options, Trust},
};
use tidegate_service::{BrokerOptions, BrokerTls, Error, Services};
use tokio::time::{Instant, sleep};

use crate::settings::{NatsDurability, Settings};

/// How long a private server that others run may be away.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);

/// A NATS to work on.
pub(crate) struct Reached {
    /// What it is, for people.
    pub(crate) what: String,
    private: bool,
    /// The server, if it runs for this command alone.
    engine: Option<Nats>,
}

impl Reached {
    /// Whether it is the control plane's own.
    pub(crate) const fn is_private(&self) -> bool {
        self.private
    }

    /// Stops what was started for this command.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        if let Some(engine) = self.engine {
            engine.stop().await?;
        }
        Ok(())
    }
}

/// Refuses where there are no pipes.
pub(crate) fn wanted(settings: &Settings) -> anyhow::Result<()> {
    if settings.has_pipes() {
        return Ok(());
    }
    anyhow::bail!("there are no pipes: set `nats.url` to the servers that are to carry them")
}

/// Finds or starts NATS, and tells the services where it is.
pub(crate) async fn open(services: &Services, settings: &Settings) -> anyhow::Result<Reached> {
    wanted(settings)?;
    let (reached, urls) = find(services, settings).await?;
    let options = BrokerOptions {
        tls: BrokerTls { required: settings.nats.tls_required, roots: settings.nats.ca_files.clone() },
        replicas: settings.nats.replicas,
        ..BrokerOptions::new(urls)
    };
    match services.broker.open(options).await {
        Ok(()) => Ok(reached),
        Err(error) => {
            reached.close().await?;
            Err(error.into())
        }
    }
}

async fn find(services: &Services, settings: &Settings) -> anyhow::Result<(Reached, Vec<String>)> {
    let urls = settings.nats.urls();
    if !urls.is_empty() {
        let what = format!("NATS at {}", urls.join(", "));
        return Ok((Reached { what, private: false, engine: None }, urls));
    }
    let data_dir = settings.engine().data_dir;
    let place = data_dir.display().to_string();
    let trust = services.broker.trust().await?;
    let trust = Trust {
        operator: trust.operator,
        system_account: trust.system_account,
        system_token: trust.system_token,
    };
    let mut options = Options::new(data_dir.clone(), trust);
    options.port = settings.nats.port;
    options.run_as.clone_from(&settings.nats.run_as);
    options.bin_dirs.clone_from(&settings.nats.bin_dirs);
    if settings.nats.durability == NatsDurability::Relaxed {
        options.durability = Durability::Relaxed;
    }
    match Nats::start(options).await {
        Ok(engine) => {
            let urls = vec![engine.url()];
            let what = format!("the private nats-server in {place}, started for this command");
            Ok((Reached { what, private: true, engine: Some(engine) }, urls))
        }
        Err(EngineError::Owned { .. }) => {
            let url = running(&data_dir).await?;
            let what = format!("the private nats-server in {place}, run by the control plane");
            Ok((Reached { what, private: true, engine: None }, vec![url]))
        }
        Err(error) => Err(anyhow::Error::new(error).context("the private nats-server cannot be started")),
    }
}

/// The address of a server that another process runs, which may be starting it anew at this moment.
async fn running(data_dir: &Path) -> anyhow::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match nats::running_url(data_dir) {
            Err(_) if Instant::now() < deadline => sleep(POLL).await,
            found => return Ok(found?),
        }
    }
}

/// An error with its cause, which an operator may see.
pub(crate) fn told(error: Error) -> anyhow::Error {
    anyhow::Error::new(error)
}
