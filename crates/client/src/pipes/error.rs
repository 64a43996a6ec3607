//! What can go wrong with pipes over NATS, by what the caller can do about it.

use std::sync::Arc;

use tidegate_model::EnvelopeError;

use crate::Error;

/// Why something was not done over NATS.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// The control plane refused, or the credential has ended. Nothing more is tried with it.
    #[error(transparent)]
    Api(Arc<Error>),
    /// NATS was not reached in time. Nothing was sent.
    #[error(
        "NATS at {url} was not reached in time ({reason}): check that it runs and that this machine may connect to it"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What the network or NATS said.
        reason: String,
    },
    /// The message was sent and nobody has said that it is stored.
    #[error(
        "it is not known whether the message is stored: send it again with the key {key}, and it is stored once"
    )]
    Unknown {
        /// What a repeat within ten minutes is known by.
        key: String,
    },
    /// No answer in time; nothing changes by asking again.
    #[error("NATS did not answer in time: try again")]
    NoAnswer,
    /// No room is left for it.
    #[error("no room is left for the message: {0}; let the pipe keep less, or ask for more room")]
    Full(String),
    /// It is too large, or cannot be written.
    #[error(transparent)]
    Message(#[from] EnvelopeError),
    /// NATS said that it will not. Trying again changes nothing.
    #[error("NATS refused the message: {0}")]
    Refused(String),
    /// The control plane's answer cannot be used for this.
    #[error("unexpected answer: {0}; check that the client and the control plane are of one version")]
    Protocol(String),
}

impl PipeError {
    /// The refusal of the control plane, where it is one.
    pub fn of_api(&self) -> Option<&Error> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }

    /// Whether trying the same again later may work.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Api(error) => error.is_passing(),
            Self::Unreachable { .. } | Self::Unknown { .. } | Self::NoAnswer => true,
            Self::Full(_) | Self::Message(_) | Self::Refused(_) | Self::Protocol(_) => false,
        }
    }
}

impl From<Error> for PipeError {
    fn from(error: Error) -> Self {
        Self::Api(Arc::new(error))
    }
}
