//! What can go wrong with the hub as a whole.

/// Why [`crate::Hub::run`] cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It may run once.
    #[error("the hub runs already, start it once")]
    AlreadyRunning,
    /// One of its tasks ended by itself, which only a panic can make it do.
    #[error("a task of the hub ended by itself, restart the process")]
    TaskEnded,
}
