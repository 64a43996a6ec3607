//! What can go wrong between us and PostgreSQL, by what the caller can do about it.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// A failed statement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such row in this scope.
    #[error("not found")]
    NotFound,
    /// A constraint refused the row.
    #[error("{0} is violated")]
    Violation(Constraint),
    /// The database cannot be reached, is restarting or did not answer in time: try again.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A text holds what PostgreSQL stores in none.
    #[error("a text cannot be stored")]
    Unstorable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row holds what this version does not understand.
    #[error("a stored {what} cannot be read")]
    Corrupt {
        /// What was read.
        what: &'static str,
        /// Why it could not be.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Anything else: a fault of ours.
    #[error("a statement failed")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The constraints that mean something to a caller; everything else is a fault of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Constraint {
    /// Two users of one name.
    #[error("the unique username")]
    Username,
    /// Two users of one e-mail address.
    #[error("the unique e-mail address")]
    Email,
    /// Two organizations of one name.
    #[error("the unique organization name")]
    OrganizationName,
    /// Two agents of one name.
    #[error("the unique agent id")]
    AgentHandle,
    /// Two pending invites of one organization and username.
    #[error("the one pending invite")]
    PendingInvite,
    /// Two groups of one organization and name.
    #[error("the unique group name")]
    GroupName,
    /// Two applications of one organization and name.
    #[error("the unique application name")]
    ApplicationName,
    /// A start in a home that is being deleted.
    #[error("the home that stays")]
    HomeStays,
    /// Two repositories of one name.
    #[error("the unique repository name")]
    RepositoryName,
    /// Two plugins of one name in one place.
    #[error("the unique plugin name")]
    PluginName,
    /// Two sources of one organization and handle.
    #[error("the unique handle")]
    Handle,
    /// Two pipes of one source and name.
    #[error("the unique pipe name")]
    PipeName,
    /// Two sessions that are recorded at one source.
    #[error("the one session of a source")]
    RecordedSession,
    /// One idempotency key twice at the same time.
    #[error("the unique idempotency key")]
    IdempotencyKey,
}

impl Constraint {
    fn by_name(name: &str) -> Option<Self> {
        match name {
            "users_username_key" => Some(Self::Username),
            "users_email_key" => Some(Self::Email),
            "organizations_name_key" => Some(Self::OrganizationName),
            "agents_agent_id_key" => Some(Self::AgentHandle),
            "invites_pending_key" => Some(Self::PendingInvite),
            "repositories_name_key" => Some(Self::RepositoryName),
            "installed_plugins_name_key" => Some(Self::PluginName),
            "sources_handle_key" => Some(Self::Handle),
            "pipes_name_key" => Some(Self::PipeName),
            "terminal_sources_source_key" => Some(Self::RecordedSession),
            "groups_name_key" => Some(Self::GroupName),
            "installed_applications_name_key" => Some(Self::ApplicationName),
            "idempotency_keys_pkey" | "user_idempotency_keys_pkey" => Some(Self::IdempotencyKey),
            _ => None,
        }
    }
}

/// Messages with which PostgreSQL refuses work for a while: restarting, out of connections, statement or lock timeout.
const PASSING: &[&str] = &[
    "terminating connection",
    "the database system is",
    "statement timeout",
    "lock timeout",
    "too many clients",
    "remaining connection slots",
    "connection closed",
    "deadlock detected",
    "error communicating with the server",
    "No space left on device",
    "unexpected end of file",
];

/// Messages of SQLSTATE 22021 and 22P05: NUL, as a byte of a text or escaped in JSON. The driver passes no code on.
const UNSTORABLE: &[&str] = &["invalid byte sequence for encoding", "unsupported Unicode escape sequence"];

impl Error {
    pub(crate) fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }

    pub(crate) fn corrupt(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt { what, source: source.into() }
    }
}

impl From<DieselError> for Error {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::NotFound => Self::NotFound,
            DieselError::BrokenTransactionManager
            | DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _) => Self::unavailable(error),
            DieselError::DatabaseError(kind, info) => {
                let constraint = info.constraint_name().and_then(Constraint::by_name);
                match (kind, constraint) {
                    (DatabaseErrorKind::UniqueViolation, Some(constraint)) => Self::Violation(constraint),
                    _ if PASSING.iter().any(|text| info.message().contains(text)) => Self::unavailable(error),
                    _ if UNSTORABLE.iter().any(|text| info.message().contains(text)) => {
                        Self::Unstorable(Box::new(error))
                    }
                    _ => Self::Internal(Box::new(error)),
                }
            }
            _ => Self::Internal(Box::new(error)),
        }
    }
}
