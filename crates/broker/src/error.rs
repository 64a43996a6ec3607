//! The one error of this crate: each variant says what the caller can do.
//! Never a seed, a token or a payload.

use std::fmt;

use crate::org::Usage;

/// Why NATS did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// NATS is not there, or did not answer in time: nothing is known of the outcome. Try again later, with the same
    /// message id.
    #[error("NATS did not answer while it was asked to {doing}; try again")]
    Unavailable {
        /// What was asked, as a verb phrase.
        doing: &'static str,
        /// The client library's reason.
        #[source]
        source: Option<async_nats::Error>,
    },
    /// So many requests of ours wait for NATS already that another one is not begun.
    #[error("too many requests wait for NATS already ({limit}); try again")]
    Busy {
        /// How many may wait.
        limit: usize,
    },
    /// A limit of the account or of the server is reached. Nothing was changed.
    #[error("{limit} is full: {description}")]
    Full {
        /// Which limit.
        limit: Full,
        /// The words of NATS.
        description: String,
        /// What the account uses and may use, where NATS said so.
        usage: Option<Box<Usage>>,
    },
    /// NATS answered that it will not. Trying again changes nothing.
    #[error("NATS refused to {doing}: {description} (code {code})")]
    Refused {
        /// What was asked, as a verb phrase.
        doing: &'static str,
        /// The JetStream error code, or the HTTP-like one where there is none.
        code: u64,
        /// The words of NATS.
        description: String,
    },
    /// What was asked for is not there.
    #[error("there is no such {0}")]
    NotFound(Missing),
    /// A stream is not what was asked for, and NATS would not make it so.
    #[error("stream {stream} has {field} {in_force} in force where {wanted} was asked for")]
    Mismatch {
        /// The stream.
        stream: String,
        /// The setting's name.
        field: &'static str,
        /// What was asked for.
        wanted: String,
        /// What is in force.
        in_force: String,
    },
    /// A message or its headers are too large.
    #[error("the message has {bytes} bytes where {limit} are allowed")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The greatest size in bytes.
        limit: usize,
    },
    /// A principal has more explicit write grants than one token carries.
    #[error(
        "{count} write grants are more than the {limit} that one credential can carry; grant to fewer pipes, or remove unused grants"
    )]
    TooManyGrants {
        /// How many there are.
        count: usize,
        /// How many fit.
        limit: usize,
    },
    /// A token would be longer than NATS reads.
    #[error("the token has {bytes} bytes where {limit} are allowed")]
    TokenTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The greatest size in bytes.
        limit: usize,
    },
    /// The server is too old.
    #[error("nats-server {found} is too old; {oldest} or newer is needed")]
    Version {
        /// What the server says it is.
        found: String,
        /// The oldest version that is accepted.
        oldest: &'static str,
    },
    /// A key, token or name is not what it must be.
    #[error("{what} {problem}")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// What is wrong with it; never its content where that is secret.
        problem: String,
    },
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The bytes the account may promise to its streams.
    AccountStorage,
    /// The bytes the server may promise to all accounts.
    ServerStorage,
    /// The number of streams of the account.
    Streams,
    /// The number of readers.
    Readers,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccountStorage => "the organization's storage for pipes",
            Self::ServerStorage => "the storage of the NATS server",
            Self::Streams => "the organization's number of pipes",
            Self::Readers => "the number of readers",
        })
    }
}

/// What is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The account, as NATS knows it.
    Account,
    /// The stream.
    Stream,
    /// The reader, which is a consumer of a stream.
    Reader,
    /// The message.
    Message,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "account",
            Self::Stream => "stream",
            Self::Reader => "reader",
            Self::Message => "message",
        })
    }
}

impl Error {
    /// An answer that did not come, or a connection that is not there.
    pub(crate) fn unavailable(doing: &'static str, source: impl Into<async_nats::Error>) -> Self {
        Self::Unavailable { doing, source: Some(source.into()) }
    }

    /// An answer that did not come in time.
    pub(crate) const fn late(doing: &'static str) -> Self {
        Self::Unavailable { doing, source: None }
    }

    pub(crate) fn invalid(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { what, problem: problem.into() }
    }

    /// Whether the same call may succeed later without anything being changed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Busy { .. })
    }
}
