//! Pipes over NATS: for those who send much, or read without asking again and again.
//!
//! The control plane says who may, and makes streams and readers; messages go past it. A token is good for five minutes and
//! renewed before, a lost connection is made again, and what was on its way is neither lost nor doubled by either.
//!
//! ```no_run
//! use tidegate_client::{Client, IdempotencyKey, MessageToSend, NatsPipes, PipesOptions};
//! use tidegate_model::Payload;
//!
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let pipes = NatsPipes::connect(&client, PipesOptions::default()).await?;
//! let sender = pipes.sender(&"build".parse()?, "inbox").await?;
//! let message = MessageToSend {
//!     payload: Payload::Text("the tests are green".to_owned()),
//!     in_reply_to: None,
//!     ack_requested: false,
//! };
//! let (stored, _) = sender.send(&message, &IdempotencyKey::random()).await?.stored().await?;
//! println!("stored at {}", stored.sequence);
//! # Ok(())
//! # }
//! ```

mod error;
mod link;
mod names;
mod read;
mod send;

use std::{sync::Arc, time::Duration};

use tidegate_model::Handle;
use tokio::time::Instant;

pub use self::{
    error::PipeError,
    read::{Delivery, PipeReader},
    send::{Pending, PipeSender},
};
use crate::{Client, PipeOpening};
use link::Links;

/// Pipes of one organization over NATS, with the credential of a client. Cheap to clone; the connection ends with the last clone and the
/// last sender and reader.
#[derive(Debug, Clone)]
pub struct NatsPipes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    options: PipesOptions,
    links: Links,
}

/// How pipes are used.
#[derive(Debug, Clone)]
pub struct PipesOptions {
    /// The organization, by id or name; none is the credential's own.
    pub account: Option<String>,
    /// How many messages of one sender may be on their way; 64. With 1 none is sent before the one before is stored.
    pub in_flight: usize,
    /// How many messages a reader asks for at a time, 1 to 256; 100.
    pub ahead: usize,
    /// How long a connection, an acknowledgement or a message is tried for; 30 s.
    pub timeout: Duration,
    /// When a connection gets a new token; none is after two thirds of the token's life.
    pub renew_after: Option<Duration>,
}

impl Default for PipesOptions {
    fn default() -> Self {
        Self { account: None, in_flight: 64, ahead: 100, timeout: Duration::from_secs(30), renew_after: None }
    }
}

impl NatsPipes {
    /// Exchanges the client's credential for a token of NATS, again and again, and connects.
    pub async fn connect(client: &Client, options: PipesOptions) -> Result<Self, PipeError> {
        let links = Links::start(client.clone(), options.clone());
        links.newer(0, Instant::now() + options.timeout).await?;
        Ok(Self(Arc::new(Inner { client: client.clone(), options, links })))
    }

    /// Sends to a pipe, whose stream is made where it is not. Refused where the caller may not write to it.
    pub async fn sender(&self, handle: &Handle, pipe: &str) -> Result<PipeSender, PipeError> {
        let route = self.0.client.open_pipe(handle, pipe, PipeOpening::Write).await?;
        PipeSender::new(self.clone(), handle.clone(), pipe.to_owned(), route)
    }

    /// Reads a pipe from where the caller's reader is, or at the oldest message. Refused where the caller may not read it.
    pub async fn reader(&self, handle: &Handle, pipe: &str) -> Result<PipeReader, PipeError> {
        self.open(handle, pipe, PipeOpening::Read).await
    }

    /// Reads what is stored from now on, and nothing of before: the caller's reader is moved there.
    pub async fn reader_anew(&self, handle: &Handle, pipe: &str) -> Result<PipeReader, PipeError> {
        self.open(handle, pipe, PipeOpening::ReadAnew).await
    }

    async fn open(&self, handle: &Handle, pipe: &str, to: PipeOpening) -> Result<PipeReader, PipeError> {
        let route = self.0.client.open_pipe(handle, pipe, to).await?;
        PipeReader::new(self.clone(), handle.clone(), pipe.to_owned(), &route)
    }

    /// How many connections there were so far: one more with each new token.
    pub fn connections(&self) -> u64 {
        self.0.links.number()
    }

    /// Gets a connection with a new token at once, for instance because of a right that was given just now.
    pub fn renew(&self) {
        self.0.links.renew();
    }
}
