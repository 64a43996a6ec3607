//! What is done inside one organization's account: streams, messages, readers.
//! Never who may: a connection of ours may do everything in its account and nothing outside it.

mod api;
mod message;
mod publish;
mod read;
mod reader;
mod stream;
mod watch;
mod wire;

use std::fmt;
use std::sync::Arc;

use tidegate_model::Clock;

pub use message::{Ack, Fetched, Stored};
pub(crate) use publish::MAX_WIRE_BYTES;
pub use publish::{MAX_HEADER_BYTES, MAX_MESSAGE_BYTES, Outgoing, Receipt};
pub use reader::{Position, ReaderState};
pub use stream::{Retention, StreamInForce, StreamSpec, Usage};
pub use watch::Watch;

use crate::connect::Connection;
use crate::{Options, OrgAccount, Result};

/// A connection to one organization's account. Cheap to clone; made again when it breaks.
#[derive(Clone)]
pub struct OrgBroker {
    connection: Connection,
    replicas: usize,
    watches: watch::Watches,
}

impl OrgBroker {
    /// Connects to an account that was pushed before.
    pub async fn connect(options: &Options, account: OrgAccount, clock: Arc<dyn Clock>) -> Result<Self> {
        let name = format!("tidegate {}", account.organization);
        let authority = account.authority;
        let mint = move |user: &_| authority.mint_own(user, clock.now());
        let connection = Connection::open(options, &name, mint).await?;
        Ok(Self { connection, replicas: options.replicas, watches: watch::Watches::default() })
    }
}

impl fmt::Debug for OrgBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrgBroker").field("connection", &self.connection).finish_non_exhaustive()
    }
}
