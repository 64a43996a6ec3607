//! Why a provider did not say who somebody is.

/// Why a provider did not say who somebody is. Texts of the provider are never part of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, answers with a fault of its own, or not in time: a repeat may succeed.
    #[error("the provider does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What it says is not believed, or it did not take the code.
    #[error("the provider's answer is not accepted: {0}")]
    Refused(&'static str),
}

impl Error {
    pub(crate) fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }
}
