//! NATS and nothing else: the keys and tokens of operator mode, the accounts of organizations, their streams, and what is
//! published to and read from them.
//!
//! What is never kept here: rows, HTTP, and who may do what. Whoever calls says which organization, which stream and which
//! permissions; this crate makes NATS enforce them, and says what NATS has in force. No seed is ever written down here.
//!
//! ```
//! use chrono::{TimeZone, Utc};
//! use tidegate_broker::{AccountAuthority, Authority, Limits, Principal, user_key};
//! use uuid::Uuid;
//!
//! # fn main() -> Result<(), tidegate_broker::Error> {
//! let now = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).single().unwrap_or_default();
//! // Made once, kept encrypted.
//! let authority = Authority::generate();
//! let organization = Uuid::from_u128(1);
//! let account = AccountAuthority::generate();
//! // What is pushed to NATS.
//! let claims = account.claims(organization, Limits::default());
//! let token = authority.sign_account(&claims, now)?;
//! assert_eq!(token.account(), account.public());
//! // What a caller gets for five minutes.
//! let key = user_key(&[9; 32], Uuid::from_u128(2))?;
//! let permissions = Principal::new(Uuid::from_u128(3)).permissions(&[])?;
//! let jwt = account.mint(key.public(), "credential", &permissions, now, chrono::TimeDelta::minutes(5))?;
//! assert!(jwt.len() < tidegate_broker::MAX_TOKEN_BYTES);
//! # Ok(())
//! # }
//! ```

mod account;
mod authority;
mod connect;
mod error;
mod jwt;
mod keys;
mod listened;
mod name;
mod options;
mod org;
mod permissions;
mod pool;
mod servers;
mod system;
mod version;

pub use account::{AccountAuthority, OrgAccount};
pub use authority::{Authority, Trust};
pub use error::{Error, Full, Missing};
pub use jwt::{
    AccountClaims, AccountToken, Limits, MAX_TOKEN_BYTES, Permissions, Revocations, Revoked, SubjectRules,
    UserToken,
};
pub use keys::{AccountKey, AccountPublic, OperatorKey, OperatorPublic, Seed, UserKey, UserPublic, user_key};
pub use name::{PipeSubject, StreamName};
pub use options::{Options, Tls};
pub use org::{
    Ack, Fetched, MAX_HEADER_BYTES, MAX_MESSAGE_BYTES, OrgBroker, Outgoing, Position, ReaderState, Receipt,
    Retention, Stored, StreamInForce, StreamSpec, Usage, Watch,
};
pub use permissions::{MAX_GRANTS, Principal, WriteGrant};
pub use pool::Pool;
pub use servers::{ServerState, Servers, StoreState};
pub use system::{AccountLoad, ServerInfo, System};
pub use version::{OLDEST_SERVER, check_version};

/// What every function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
