//! The one error of this crate: each variant says what a person has to do next.
//! Never a password: outputs of programs are shown, their input is not.

use std::path::{Path, PathBuf};

/// Why an engine could not be found, started, used or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No usable program of the engine is installed.
    #[error("{wanted} was not found (looked in {searched}); install it with `{install}`")]
    Missing {
        /// What was looked for: `PostgreSQL 15 or newer`, the exact major version a cluster needs, `nats-server 2.11.15 or newer`.
        wanted: String,
        /// The folders that were looked into, and the versions found there.
        searched: String,
        /// The command that installs it on this platform.
        install: String,
    },
    /// Another process runs the engine of this data directory.
    #[error("{} is in use by {}; stop that process or choose another data directory", data_dir.display(), holder(*pid))]
    Owned {
        /// The data directory.
        data_dir: PathBuf,
        /// The process that holds it, where it could be read.
        pid: Option<u32>,
    },
    /// A Unix socket in this folder would have a path longer than the system allows.
    #[error("the socket path {} has {length} bytes, the system allows {limit}; choose a shorter run directory", path.display())]
    SocketPathTooLong {
        /// The path of the socket.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The greatest length in bytes.
        limit: usize,
    },
    /// The engine's user cannot reach the data or run directory.
    #[error("{} cannot be entered by the user {user}; run `chmod o+x {}` or choose another directory", folder.display(), folder.display())]
    Closed {
        /// The folder that is closed to the user.
        folder: PathBuf,
        /// The user that the engine runs as.
        user: String,
    },
    /// A setting is not usable.
    #[error("{0}")]
    Setting(String),
    /// A secret's file is not what it must be.
    #[error("the secret file {} {problem}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do about it.
        problem: String,
    },
    /// The system refused an operation on a file, folder or process.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A program of the engine ended with an error.
    #[error("{program} ended with {status}: {output}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// Its exit status.
        status: String,
        /// What it wrote, shortened.
        output: String,
    },
    /// The server did not come up.
    #[error("{engine} did not start: {reason}; the end of {} says:\n{log_tail}", log.display())]
    NotStarted {
        /// The engine's name.
        engine: &'static str,
        /// Exit status or deadline.
        reason: String,
        /// The server's log file.
        log: PathBuf,
        /// Its last lines since this start.
        log_tail: String,
    },
    /// Processes of an earlier run are still using the cluster and do not end.
    #[error("processes {pids:?} of an earlier run still use {} and do not end; end them and start again", cluster.display())]
    Orphans {
        /// The processes.
        pids: Vec<i32>,
        /// The folder they work in.
        cluster: PathBuf,
    },
    /// The supervisor ended without its work done, for instance because its runtime was dropped.
    #[error("the supervisor of {engine} ended early; start it again")]
    SupervisorLost {
        /// The engine's name.
        engine: &'static str,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Gives an [`std::io::Error`] the path and the verb a person needs.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<std::io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source: source.into() })
    }
}
