//! NATS, which carries pipes: rows say what should exist, this makes NATS follow them.
//!
//! What is never kept here: a row's rules. Whoever may open a pipe is asked in [`crate::Pipes`]; NATS is told by
//! `tidegate-broker` alone. Nothing waits for NATS inside a transaction.

mod accounts;
mod confirming;
mod disk;
mod end;
mod ended;
mod exchange;
mod keyed;
mod limits;
mod messages;
mod noted;
mod operations;
mod operator;
mod reading;
mod ready;
mod receipts;
mod reconcile;
mod recording;
mod revocations;
mod room;
mod rotation;
mod run;
mod slot;
mod standing;
mod subscriptions;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use self::{
    confirming::ReadPlace,
    end::PipeEnd,
    exchange::{Exchange, Exchanged},
    limits::{PipeLimits, PipeLimitsChange},
    messages::{Messages, PipeRoute, Published},
    reading::{MessagesPage, MessagesRead, MessagesWanted, ReadMessage},
    reconcile::Drift,
    recording::{Recorded, Recorder, Recording},
    rotation::{Begun, Rotation},
    slot::Connected,
    standing::{NatsStanding, OperatorStanding},
};
pub(crate) use exchange::MOST as MOST_WRITABLE;
pub(crate) use slot::Slot;
pub use tidegate_broker::{
    Authority as Operator, OLDEST_SERVER as OLDEST_NATS, ServerState, StoreState, Tls as BrokerTls, Trust,
    check_version,
};

use crate::{Core, Error, Result};

/// How long a process that ends waits for what its requests began and left.
const FINISH: Duration = Duration::from_secs(10);

/// NATS, which carries pipes.
#[derive(Debug, Clone)]
pub struct Broker(pub(crate) Arc<Core>);

/// Where NATS is.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Its servers, as this process reaches them.
    pub urls: Vec<String>,
    /// The address that clients are told; none is the first of `urls`.
    pub public_url: Option<String>,
    /// What is trusted beyond loopback.
    pub tls: BrokerTls,
    /// How many copies of a stream a cluster keeps: 1, 3 or 5.
    pub replicas: usize,
    /// The folder of its streams, where it is on this machine, and the bytes that must stay free there: with fewer,
    /// nothing is sent.
    pub disk: Option<(PathBuf, u64)>,
    /// How often rows and NATS are compared.
    pub reconcile: Duration,
}

impl BrokerOptions {
    /// A single server without TLS.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            public_url: None,
            tls: BrokerTls::default(),
            replicas: 1,
            disk: None,
            reconcile: Duration::from_mins(5),
        }
    }
}

impl Broker {
    /// Sets where NATS is, once: from then on pipes can be used. Nothing is asked of it yet, so that one that comes late
    /// stops nobody from starting.
    pub async fn open(&self, options: BrokerOptions) -> Result<()> {
        let authority = operator::kept(&self.0, None).await?;
        self.0.broker.set(options, authority, Arc::clone(&self.0.clock))
    }

    /// What a server has to be told to trust this platform: nothing secret. The operator is made where there is none; of
    /// several who make it at once, one does. The same each time, until the operator's keys change.
    pub async fn trust(&self) -> Result<Trust> {
        operator::trust(&self.0).await
    }

    /// Keeps an operator that was made elsewhere, for a server that trusts it already. Refused where there is another one.
    pub async fn adopt(&self, operator: Operator) -> Result<()> {
        let wanted = operator.identity().public().clone();
        let kept = operator::kept(&self.0, Some(operator)).await?;
        if *kept.identity().public() == wanted {
            return Ok(());
        }
        let message = "this platform has another operator on NATS already".to_owned();
        Err(Error::Conflict { code: "E_OPERATOR_KEPT", message })
    }

    /// Whether NATS was set.
    pub fn is_open(&self) -> bool {
        self.0.broker.live().is_ok()
    }

    /// Waits for what requests began and left, a while at most: called once no request comes any more, so that a process that
    /// ends in order leaves nothing claimed behind.
    pub async fn finish(&self) {
        if let Ok(live) = self.0.broker.live() {
            // Whatever takes longer is what others do after its lease.
            drop(tokio::time::timeout(FINISH, live.finished()).await);
        }
    }

    /// Asks NATS whether it is there, can store messages, is new enough and trusts this platform.
    pub async fn check(&self) -> Result<Connected> {
        let live = self.0.broker.live()?;
        let system = live.system().await?;
        system.ping().await?;
        Ok(Connected { version: system.server().version, organizations: live.pool.len().await })
    }
}
