//! What can go wrong in an agent, sorted by what the caller can do about it.

use std::{io, path::PathBuf};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the agent's could not be used.
    #[error("cannot {what} {}", path.display())]
    File {
        /// The verb, for example `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The machine did not do what it was asked for.
    #[error("cannot {what}")]
    System {
        /// The verb and its object.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The engine that runs containers gave no answer: what was asked for may have been done or not.
    #[error("cannot {what}: the engine does not answer")]
    Away {
        /// The verb and its object.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was asked for cannot be done; the sentence says why.
    #[error("{0}")]
    Refused(String),
    /// A setting does not fit; the sentence says which and what to do.
    #[error("{0}")]
    Setting(String),
    /// The control plane could not be reached or did not answer as agreed.
    #[error("control plane: {0}")]
    Link(String),
}

impl Error {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }

    /// The error and what caused it in one line, for reports to the control plane and for logs.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}
