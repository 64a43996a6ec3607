//! Refusals and failures, by what the caller can do about them.

use std::fmt;

use chrono::TimeDelta;
use tidegate_broker::{Error as BrokerError, Missing};
use tidegate_model::{FieldErrors, QuotaBound, SessionId, SessionState};
use tidegate_persistence::{Constraint, Error as DbError};

/// Why an agent took no session.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NoRoom {
    /// The agent's name.
    pub agent_id: String,
    /// Why not.
    pub reason: String,
}

/// Why a use case did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there, or not for this caller.
    #[error("{0} is not found")]
    NotFound(String),
    /// No credential, or one that is not good any more.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// Wrong name or password; which one is not said.
    #[error("username or password is wrong")]
    InvalidCredentials,
    /// The caller's role does not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// Bad fields, each named.
    #[error("the request is not valid: {0}")]
    Invalid(FieldErrors),
    /// The session is in a state that does not allow it.
    #[error("session {id} is {state}, which does not allow this")]
    WrongState {
        /// The session.
        id: SessionId,
        /// Its state.
        state: SessionState,
    },
    /// Somebody else was there first.
    #[error("{message}")]
    Conflict {
        /// Wire code.
        code: &'static str,
        /// What is in the way.
        message: String,
    },
    /// No agent has room.
    #[error("no agent can take this session: {}", Reasons(.0))]
    NoAgent(Vec<NoRoom>),
    /// A quota leaves no room for it.
    #[error("{0}")]
    QuotaExceeded(Box<QuotaBound>),
    /// Too many attempts.
    #[error("too many attempts, try again in {} s", .0.num_seconds().max(1))]
    RateLimited(TimeDelta),
    /// The database cannot be reached: nothing happened, try again.
    #[error("the service is not available for a moment, try again")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What carries pipes cannot be reached, or is not there: a repeat may succeed, and does nothing twice.
    #[error("pipes are not available for a moment, try again")]
    BrokerUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something is being made that this waits for: a repeat completes it.
    #[error("{0} is not ready yet: ask again in a moment")]
    NotReady(String),
    /// No room is left to store it.
    #[error("{message}")]
    StorageFull {
        /// What is full, with the numbers, and what can be done.
        message: String,
        /// The numbers by name.
        figures: FieldErrors,
    },
    /// It is larger than it may be.
    #[error("{0}")]
    TooLarge(String),
    /// Whoever vouches for people does not answer: try again, or come in another way.
    #[error("{provider} does not answer as it should: try again in a moment, or log in another way")]
    ProviderUnavailable {
        /// Its name for people.
        provider: String,
        /// What went wrong, for the log.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Plugins have to be asked first, outside of the transaction; never an answer to anybody.
    #[error("plugins are to be asked first")]
    AskPlugins,
    /// A plugin gave no answer: its own fault, and said so.
    #[error("the plugin {0} gave no answer: {1}")]
    PluginFailed(String, String),
    /// A fault of ours.
    #[error("the server made a mistake")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

struct Reasons<'a>(&'a [NoRoom]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none is approved, approve one with `tidegate-admin agents approve`");
        }
        for (index, room) in self.0.iter().take(5).enumerate() {
            write!(f, "{}{} {}", if index == 0 { "" } else { "; " }, room.agent_id, room.reason)?;
        }
        if self.0.len() > 5 {
            write!(f, "; and {} more", self.0.len() - 5)?;
        }
        Ok(())
    }
}

impl Error {
    pub(crate) fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    pub(crate) fn not_found(what: impl fmt::Display) -> Self {
        Self::NotFound(what.to_string())
    }

    /// Whether a repeat may succeed without anything being changed.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<BrokerError> for Error {
    fn from(error: BrokerError) -> Self {
        match error {
            // An account that NATS does not know is pushed again by the reconciler. A stream that was made sure of a moment ago
            // has nobody who leads it: each server that has all of it is away.
            BrokerError::Unavailable { .. }
            | BrokerError::Busy { .. }
            | BrokerError::NotFound(Missing::Account | Missing::Stream | Missing::Reader) => {
                Self::BrokerUnavailable(Box::new(error))
            }
            BrokerError::Full { limit, description, usage } => {
                let mut figures = FieldErrors::new();
                figures.add("limit", limit);
                figures.add("reason", &description);
                if let Some(usage) = usage {
                    figures.add("storedBytes", usage.stored_bytes);
                    figures.add("promisedBytes", usage.promised_bytes);
                    figures.add("pipes", usage.streams);
                    figures.add("readers", usage.readers);
                    usage.limit_bytes.iter().for_each(|limit| figures.add("limitBytes", limit));
                    usage.limit_streams.iter().for_each(|limit| figures.add("limitPipes", limit));
                }
                let message = format!(
                    "{limit} is full ({description}): delete pipes, let them keep less, or ask an operator for more"
                );
                Self::StorageFull { message, figures }
            }
            BrokerError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            BrokerError::TooManyGrants { .. } => {
                Self::Conflict { code: "E_TOO_MANY_GRANTS", message: error.to_string() }
            }
            // Only grants make it that long: 256 of them fit where handles are not among the longest.
            BrokerError::TokenTooLarge { bytes, limit } => {
                let message = format!(
                    "your rights to write to the sources of others fill a credential of {bytes} bytes where {limit} are allowed: have some of them ended"
                );
                Self::Conflict { code: "E_TOO_MANY_GRANTS", message }
            }
            other => Self::internal(other),
        }
    }
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        let conflict = |code, message: &str| Self::Conflict { code, message: message.to_owned() };
        match error {
            DbError::NotFound => Self::NotFound("this".into()),
            DbError::Unavailable(source) => Self::Unavailable(source),
            // The last wall: what reads requests and reports refuses it sooner, and by name.
            DbError::Unstorable(_) => {
                Self::Invalid(FieldErrors::one("request", "contains characters that cannot be stored"))
            }
            DbError::Violation(Constraint::Username) => {
                conflict("E_USERNAME_TAKEN", "this username is taken, choose another one")
            }
            DbError::Violation(Constraint::Email) => {
                conflict("E_EMAIL_TAKEN", "this e-mail address is taken")
            }
            DbError::Violation(Constraint::OrganizationName) => {
                conflict("E_ORGANIZATION_TAKEN", "this organization name is taken, choose another one")
            }
            DbError::Violation(Constraint::AgentHandle) => {
                conflict("E_AGENT_TAKEN", "an agent of this id is registered")
            }
            DbError::Violation(Constraint::PendingInvite) => conflict(
                "E_INVITE_PENDING",
                "this user has a pending invite: revoke it before you make another one",
            ),
            DbError::Violation(Constraint::GroupName) => {
                conflict("E_GROUP_TAKEN", "this group name is taken in the organization, choose another one")
            }
            DbError::Violation(Constraint::Handle) => {
                conflict("E_SOURCE_TAKEN", "this handle is taken in the organization, choose another one")
            }
            DbError::Violation(Constraint::PipeName) => {
                conflict("E_PIPE_TAKEN", "this source has a pipe of this name, choose another one")
            }
            DbError::Violation(Constraint::RecordedSession) => conflict(
                "E_SOURCE_BUSY",
                "this source records another session: choose another one, or end that recording first",
            ),
            DbError::Violation(Constraint::ApplicationName) => {
                conflict("E_APPLICATION_TAKEN", "an application got the same name at this moment: ask again")
            }
            DbError::Violation(Constraint::RepositoryName) => {
                conflict("E_REPOSITORY_TAKEN", "a repository of this name is there, choose another name")
            }
            DbError::Violation(Constraint::PluginName) => conflict(
                "E_PLUGIN_INSTALLED",
                "a plugin of this name is installed there: upgrade or uninstall it",
            ),
            DbError::Violation(Constraint::HomeStays) => conflict(
                "E_HOME_LEAVING",
                "your home on that agent is being deleted: try again in a moment, or without persistentHome",
            ),
            DbError::Violation(Constraint::IdempotencyKey) => {
                conflict("E_IDEMPOTENCY_RUNNING", "the first request with this key is still running")
            }
            other @ (DbError::Corrupt { .. } | DbError::Internal(_)) => Self::internal(other),
        }
    }
}

/// Names what was looked for in a `NotFound`.
pub(crate) trait Named<T> {
    fn named(self, what: impl fmt::Display) -> Result<T, Error>;
}

impl<T> Named<T> for Result<T, DbError> {
    fn named(self, what: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| match error {
            DbError::NotFound => Error::not_found(what),
            other => other.into(),
        })
    }
}
