//! Live agents: who is connected, what is sent to them, what they report, and the tunnels of their sessions.
//!
//! The hub works on any `Stream` and `Sink` of [`Frame`]s; no HTTP server and no SQL is named here. What is true stands
//! in the database behind [`tidegate_service::Links`]: the hub keeps connections and bytes on their way, nothing that a
//! restart could lose.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use tidegate_hub::{CloseReason, Frame, Hub, Options, TransportError};
//! # use tidegate_model::SystemClock;
//! # use tidegate_service::{AgentIdentity, Links};
//! # async fn example<S, K>(links: Links, identity: AgentIdentity, inbound: S, outbound: K)
//! # where S: futures_util::Stream<Item = Result<Frame, TransportError>>, K: futures_util::Sink<Frame> {
//! let hub = Hub::new(links, Options::default(), Arc::new(SystemClock::new()));
//! let shutdown = tokio_util::sync::CancellationToken::new();
//! let running = tokio::spawn({ let (hub, stop) = (hub.clone(), shutdown.clone()); async move { hub.run(stop).await } });
//! // in the handler of `GET /api/v1/agents/connect`, after the upgrade:
//! let reason: CloseReason = hub.serve_agent(identity, inbound, outbound).await;
//! # drop((running, reason));
//! # }
//! ```

mod backoff;
mod close;
mod connection;
mod dispatch;
mod error;
mod frame;
mod guard;
mod hub;
mod ingest;
mod liveness;
mod options;
mod outbox;
mod parcel;
mod reader;
mod registry;
mod serve;
mod tunnel;
mod watch;

pub use close::CloseReason;
pub use error::Error;
pub use frame::{CloseCode, Frame, TransportError};
pub use hub::Hub;
pub use options::Options;
pub use tunnel::{TunnelEnd, TunnelEnding, TunnelError, TunnelHandle, TunnelRequest, plain, relay};
