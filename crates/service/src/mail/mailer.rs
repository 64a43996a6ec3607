//! What carries mails: a mail server, or a folder.

use std::{fmt::Debug, pin::Pin};

use super::Letter;

/// Why a mail was not sent. What it says goes into the log and the mail's row: no secret, no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// For now: another try may succeed.
    #[error("{0}")]
    Passing(String),
    /// For good: this mail cannot be sent.
    #[error("{0}")]
    Final(String),
}

/// Longest reason that is kept, in characters.
const LONGEST: usize = 300;

impl MailError {
    /// What it says, on one line and not too long.
    pub(super) fn reason(&self) -> String {
        self.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
    }
}

/// What sending comes to.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), MailError>> + Send + 'a>>;

/// Carries mails. It may take one twice, and must not take longer than it must: whoever calls gives up after a while.
pub trait Mailer: Debug + Send + Sync {
    /// What it is, for people.
    fn describe(&self) -> String;

    /// Whether it would take a mail now.
    fn check(&self) -> Sending<'_>;

    /// Hands a mail over: `Ok` when whoever took it answers for it.
    fn send<'a>(&'a self, letter: &'a Letter) -> Sending<'a>;
}
