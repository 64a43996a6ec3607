//! The typed client of Tidegate's HTTP API: what the CLI, an agent's registration and the tests share. No HTTP server
//! and no SQL is named here, and nothing is written to a terminal.
//!
//! Answers are the entity types of `tidegate-model`. Bodies, waits and retries are bounded; streams (a session's
//! terminal and its log, events) have no time limit, a dead peer is noticed by TCP keepalive.
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use tidegate_client::{Client, TerminalEvent};
//! use tidegate_model::{NewSession, Secret, SessionState, StreamMode};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("http://127.0.0.1:8080".parse()?).build()?;
//! client.login("alice", &Secret::new("tidewater gate".to_owned())).await?;
//! let session = client.create_session(&NewSession::of("shell")).await?.session;
//! let session = client.wait_for(session.id, |now| now.state == SessionState::Running, |_| {}).await?;
//! let mut terminal = client.terminal(session.id, StreamMode::Control).await?;
//! while let Some(event) = terminal.next().await {
//!     if let TerminalEvent::Bytes(bytes) = event? {
//!         println!("{} bytes", bytes.len());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod agents;
mod applications;
mod audit;
mod auth;
mod builder;
mod call;
mod catalog;
mod devices;
mod error;
mod events;
mod groups;
mod homes;
mod invites;
mod keys;
mod logs;
mod messages;
mod organizations;
#[cfg(feature = "pipes")]
mod pipes;
mod places;
mod plugins;
mod port;
mod quotas;
mod repositories;
mod sessions;
mod shares;
mod sources;
mod terminal;
mod terminal_pipes;
mod tls;
mod tokens;
mod users;

pub use agents::{AgentChange, AgentList, Quarantine, Quarantined, Registration, RotatedAgentKey};
pub use applications::{ApplicationChange, ApplicationGroupList, ApplicationPage, NewApplication};
pub use audit::{AuditExport, AuditOf, AuditPage, AuditQuery};
pub use auth::Login;
pub use builder::{Client, ClientBuilder};
pub use catalog::{CatalogQuery, PluginPage, PluginVersions, RatingPage, TemplatePage};
pub use devices::{DeviceCodes, DeviceToken, TokenPage};
pub use error::{ApiError, Error};
pub use events::{EventQuery, EventTicket, Events};
pub use groups::{GroupChange, GroupMemberPage, GroupPage, NewGroup, UserGroupPage};
pub use homes::{HomeLeaving, HomePage};
pub use invites::{InviteList, Joined, NewInvite};
pub use keys::{KeyPage, MadeKey};
pub use logs::{LogChunk, Logs};
pub use messages::{
    Message, MessageList, MessageQuery, MessageToSend, NatsAccess, PipeEnd, PipeOpening, PipeRoute,
    SeenMemberPage, SubscriptionPage,
};
pub use organizations::{
    MemberPage, MyOrganization, NewOrganization, OrganizationChange, OrganizationPage, Permissions,
};
#[cfg(feature = "pipes")]
pub use pipes::{Delivery, NatsPipes, Pending, PipeError, PipeReader, PipeSender, PipesOptions};
pub use places::{PlacePage, PlaceReader, ReadPlace};
pub use plugins::{DeliveryPage, InstalledPlugins};
pub use quotas::{QuotaChange, QuotaQuestion};
pub use repositories::{RepositoryPage, RepositoryProblems};
pub use sessions::{Accepted, Connection, History, IdempotencyKey, SessionPage};
pub use shares::{ActivityList, LimitChange, NewShare, SessionPolicyChange, ShareList, ShareWith};
pub use sources::{GrantList, GrantTo, MadePipe, NewPipe, PipeChange, PipeList, SourcePage};
pub use terminal::{CloseReason, TerminalEvent, TerminalInput, TerminalStream};
pub use terminal_pipes::{
    Followed, LostAnswer, PipeCarrier, PipeFlow, PipeFollower, PipeFrom, PipeWriter, PipeWriting,
    WriterClosed,
};
pub use tls::{tls_config, tls_config_as};
pub use tokens::{MemoryStore, StoreGuard, TokenStore, Tokens};
pub use users::{LoginPage, NewUser, UserChange, UserPage};

// What callers need to name the arguments and answers above.
pub use reqwest::StatusCode;
pub use url::Url;
