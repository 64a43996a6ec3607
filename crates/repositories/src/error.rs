//! Why a repository could not be fetched, in words for whoever added it. Secrets are never part of them.

/// Why a repository could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something to do for whoever added it, or for the server it lies on.
    #[error("{0}")]
    Refused(String),
    /// It took too long.
    #[error("it took longer than {0} seconds, and was given up")]
    TooSlow(u64),
    /// A program that is not there.
    #[error("the program `{program}` is not installed on the control plane's machine: {install}")]
    Missing {
        /// Which one.
        program: &'static str,
        /// How to get it.
        install: &'static str,
    },
    /// The cache folder cannot be worked with.
    #[error("the cache folder of repositories cannot be used: {0}")]
    Cache(#[source] std::io::Error),
    /// Two syncs at one time on one machine.
    #[error("another sync of this repository runs on this machine")]
    Busy,
    /// What reading it goes on with has ended.
    #[error("reading it was ended")]
    Ended,
}

impl Error {
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    /// Whether a repeat may succeed with nothing changed.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::TooSlow(_) | Self::Busy | Self::Ended)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Cache(error)
    }
}

/// Text of somebody else's as one line that may be shown: no control characters, none of the secrets, not long.
pub(crate) fn shown(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[redacted]");
    }
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_and_no_control_character_is_shown() {
        assert_eq!(shown("for \u{1b}[31mtop-secret\n", &["top-secret", ""]), "for  [31m[redacted]");
        assert_eq!(shown(&"x".repeat(1_000), &[]).len(), 300);
    }
}
