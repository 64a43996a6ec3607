//! What a repository is asked with.

use base64::{Engine, engine::general_purpose::STANDARD};
use tidegate_model::Secret;

/// What a repository is asked with. Never part of an argument, a log line or an error.
#[derive(Debug, Clone, Default)]
pub enum Credential {
    /// Nothing: everybody may read it.
    #[default]
    None,
    /// An access token.
    Token {
        /// What some servers want to hear before it; others take any name.
        username: Option<String>,
        /// The token.
        token: Secret<String>,
    },
    /// Name and password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: Secret<String>,
    },
    /// A private key.
    Ssh {
        /// In OpenSSH's or PEM format, without a passphrase.
        private_key: Secret<String>,
        /// Host keys of the server, as in `known_hosts`: others are refused.
        known_hosts: Option<String>,
    },
}

/// The name before a token where none was given: GitHub, GitLab, Gitea and Azure take any.
const ANY_NAME: &str = "x-access-token";

impl Credential {
    /// The `Authorization` that git's servers take: a token stands for a password there.
    pub(crate) fn for_git(&self) -> Option<Secret<String>> {
        match self {
            Self::Token { username, token } => {
                Some(basic(username.as_deref().unwrap_or(ANY_NAME), token.expose()))
            }
            Self::Basic { username, password } => Some(basic(username, password.expose())),
            Self::None | Self::Ssh { .. } => None,
        }
    }

    /// The `Authorization` that other servers take.
    pub(crate) fn for_http(&self) -> Option<Secret<String>> {
        match self {
            Self::Token { username: None, token } => Some(Secret::new(format!("Bearer {}", token.expose()))),
            _ => self.for_git(),
        }
    }

    /// What must not be shown.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        match self {
            Self::None => Vec::new(),
            Self::Token { token, .. } => vec![token.expose()],
            Self::Basic { password, .. } => vec![password.expose()],
            Self::Ssh { private_key, .. } => vec![private_key.expose()],
        }
    }
}

fn basic(username: &str, password: &str) -> Secret<String> {
    Secret::new(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}
