//! Where tokens come from and where renewed ones go.

use std::{fmt::Debug, io, sync::Mutex};

use chrono::{DateTime, Utc};
use tidegate_model::Secret;

/// A bearer token and what renews it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Sent with every call.
    pub token: Secret<String>,
    /// When it stops being good.
    pub expires_at: DateTime<Utc>,
    /// Good for one renewal.
    pub refresh_token: Secret<String>,
}

/// Held while a token is renewed; dropping it lets the next one in.
pub type StoreGuard = Box<dyn Send>;

/// Keeps the tokens of one control plane. Calls may block (a small file, a lock): the client makes them on a thread
/// where that is allowed.
pub trait TokenStore: Send + Sync + Debug {
    /// What is kept.
    fn load(&self) -> io::Result<Option<Tokens>>;

    /// Keeps these, and forgets what was kept before.
    fn save(&self, tokens: &Tokens) -> io::Result<()>;

    /// Forgets what is kept.
    fn clear(&self) -> io::Result<()>;

    /// Keeps every other process with the same store from renewing: a refresh token is good once, and a second use
    /// looks like theft.
    fn lock(&self) -> io::Result<StoreGuard>;
}

/// Keeps tokens for the life of the process.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Option<Tokens>>);

impl MemoryStore {
    /// A store that holds these tokens.
    pub const fn new(tokens: Option<Tokens>) -> Self {
        Self(Mutex::new(tokens))
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Tokens>> {
        // A panic elsewhere leaves the tokens whole: they are replaced in one step.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl TokenStore for MemoryStore {
    fn load(&self) -> io::Result<Option<Tokens>> {
        Ok(self.held().clone())
    }

    fn save(&self, tokens: &Tokens) -> io::Result<()> {
        *self.held() = Some(tokens.clone());
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        *self.held() = None;
        Ok(())
    }

    fn lock(&self) -> io::Result<StoreGuard> {
        // Nobody else has this store, and the client itself renews one at a time.
        Ok(Box::new(()))
    }
}
