//! Fetching repositories of templates and plugins, and reading what lies in them.
//!
//! What is never kept here: rows, catalogs, HTTP servers, and who may add what. A repository is content of others': it is
//! never checked out or unpacked under names of its own, nothing in it is run, and everything about it is bounded.
//! One egress [`Guard`] says which addresses are dialled.
//!
//! ```
//! use tidegate_repositories::{Options, Remote};
//!
//! // By default only servers of the internet are asked, and only in ways that git's helpers have no part in.
//! let options = Options::default();
//! assert!(Remote::git("https://git.example.org/catalog.git", &options).is_ok());
//! assert!(Remote::git("git@git.example.org:catalog.git", &options).is_ok());
//! assert!(Remote::git("ext::sh -c id", &options).is_err());
//! assert!(Remote::git("/etc", &options).is_err());
//! ```

mod archive;
mod cache;
mod credential;
mod egress;
mod error;
mod fetch;
mod git;
mod http;
mod options;
mod package;
mod program;
mod reading;
mod remote;
mod snapshot;
mod yaml;

pub use archive::files_of;
pub use credential::Credential;
pub use egress::{Guard, Refusal};
pub use error::Error;
pub use fetch::{Fetcher, Source, SourceKind, Tell};
pub use options::{Options, networks};
pub use package::{Complaint, Icon, icon_type};
pub use reading::{Found, FoundPlugin, FoundTemplate};
pub use remote::{Branch, Remote, SshRemote};
pub use snapshot::Problems;
pub use snapshot::Snapshot;

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Bytes are on their way.
    Fetching {
        /// So many so far.
        bytes: u64,
    },
    /// Its files are listed.
    Listing {
        /// So many so far.
        files: usize,
    },
    /// Manifests are read.
    Reading {
        /// So many so far.
        done: usize,
        /// Of so many.
        of: usize,
    },
}
