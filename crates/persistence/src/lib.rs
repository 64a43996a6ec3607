//! PostgreSQL and nothing else: [`Db`], the four scopes and their transactions, one file per entity, the migrations.
//!
//! What is never kept here: whether something is allowed, and anything of HTTP or of agents' connections.
//! A line that mentions a column stands here or in a migration.
//!
//! A scope is made from a row only, and a transaction from a scope only:
//!
//! ```compile_fail
//! use tidegate_model::OrgId;
//! // The fields are private: an organization's scope cannot be made up.
//! let scope = tidegate_persistence::OrgScope { org_id: OrgId::new() };
//! ```
//!
//! ```compile_fail
//! fn forged(org_id: tidegate_model::OrgId) -> tidegate_persistence::OrgTx {
//!     tidegate_persistence::OrgTx { org_id }
//! }
//! ```

pub mod activity;
pub mod agent;
pub mod api_key;
pub mod application;
pub mod audit;
pub mod auth;
pub mod bearer_token;
pub mod catalog;
mod certificates;
pub mod command;
mod connector;
pub mod credential;
mod db;
pub mod device_code;
mod error;
pub mod event;
pub mod event_ticket;
pub mod group;
pub mod home;
pub mod idempotency;
pub mod identity;
pub mod identity_attempt;
pub mod installed_plugin;
pub mod invite;
pub mod login_session;
pub mod mail;
pub mod membership;
pub mod migrate;
pub mod nats_account;
pub mod organization;
mod origin;
pub mod password_reset;
pub mod pipe;
pub mod pipe_operation;
pub mod pipe_reader;
pub mod pipe_stream;
pub mod plugin_delivery;
mod pulse;
pub mod quarantine;
pub mod quota;
pub mod read_cursor;
pub mod repository;
pub mod retention;
pub mod roles;
pub mod schema;
mod scope;
pub mod session;
pub mod session_end;
pub mod session_limit;
pub mod share;
pub mod source;
pub mod source_grant;
mod statement;
pub mod stream_grant;
pub mod system;
pub mod terminal_source;
pub mod ticket;
mod together;
mod tx;
pub mod user;
pub mod user_change;
pub mod viewing;

pub use connector::with_ca_file;
pub use db::{Db, Options};
pub use error::{Constraint, Error};
pub use origin::Origin;
pub use scope::{Actor, AgentScope, Operator, OrgScope, SystemScope, Told, UserScope};
pub use system::{DuePlace, DueSession, FreeRecording, Reason};
pub use tx::{AgentTx, OrgTx, PlatformTx, UserTx};

/// What every function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
