//! What a module did wrong, said to whoever runs the platform.

use crate::{Function, Permission};

/// Why a call ended without an answer: all but [`Fault::Told`] are the module's own doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no module that can be run here.
    #[error("it is no module that can be run: {0}")]
    Unloadable(String),
    /// It does not export what a plugin has to, or not with this type.
    #[error("it does not export `{0}` as a plugin has to")]
    Missing(&'static str),
    /// It called a function that it was not granted.
    #[error("it called `{0}` without the permission `{1}`")]
    NotGranted(Function, Permission),
    /// It worked for longer than it may.
    #[error("it did more work than one call may do")]
    Fuel,
    /// It took more time than it may.
    #[error("it took longer than {0} ms")]
    Time(u128),
    /// It wanted more memory than it may have.
    #[error("it wanted more than {0} MiB of memory")]
    Memory(usize),
    /// It called functions of the host more often than it may.
    #[error("it called the host more than {0} times in one call")]
    Calls(u32),
    /// It stopped by itself.
    #[error("it trapped: {0}")]
    Trapped(String),
    /// What it answered or asked cannot be read.
    #[error("what it {0} cannot be read: {1}")]
    Nonsense(&'static str, String),
    /// Whoever called it had more to say than it may be told.
    #[error("it cannot be told more than {0} bytes")]
    Told(usize),
}
