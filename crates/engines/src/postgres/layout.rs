//! Where everything lies: cluster, sockets, log and passwords.
//! Never the cluster's content.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::folder::create_folder;
use crate::identity::Identity;
use crate::{Error, Result};

/// Bytes of a Unix socket's path without its final zero: 107 on Linux, 103 on the BSDs and macOS.
const SOCKET_PATH_LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// Names the socket's file, never a TCP port.
pub(super) const PORT: u16 = 5432;

/// The paths of one embedded PostgreSQL.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) data_dir: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) cluster: PathBuf,
    pub(super) sockets: PathBuf,
    pub(super) secrets: PathBuf,
    pub(super) log: PathBuf,
}

impl Layout {
    /// Makes the paths absolute and refuses a socket path that the system would cut.
    pub(super) fn new(data_dir: &Path, run_dir: &Path) -> Result<Self> {
        let data_dir = std::path::absolute(data_dir).context("resolve", data_dir)?;
        let run_dir = std::path::absolute(run_dir).context("resolve", run_dir)?;
        let sockets = run_dir.join("postgres");
        if sockets.as_os_str().as_bytes().contains(&b',') {
            // PostgreSQL reads a comma as the start of another folder
            return Err(Error::Setting(format!(
                "the run directory {} must not contain a comma",
                run_dir.display()
            )));
        }
        // the lock beside the socket has the longest name
        let path = sockets.join(format!(".s.PGSQL.{PORT}"));
        let length = path.as_os_str().len();
        if length > SOCKET_PATH_LIMIT {
            return Err(Error::SocketPathTooLong { path, length, limit: SOCKET_PATH_LIMIT });
        }
        Ok(Self {
            cluster: data_dir.join("postgres"),
            secrets: data_dir.join("secrets"),
            log: data_dir.join("postgres.log"),
            data_dir,
            run_dir,
            sockets,
        })
    }

    /// Makes the folders that are ours; the cluster itself is initdb's.
    pub(super) fn create_data_dir(&self) -> Result<()> {
        // others may pass through, to the cluster and the sockets of the database user, and list nothing
        create_folder(&self.data_dir, 0o711)?;
        create_folder(&self.secrets, 0o700)
    }

    /// Makes the socket folder, 0700 and owned by the database user: that user and root connect, nobody else.
    pub(super) fn create_sockets(&self, identity: &Identity) -> Result<()> {
        create_folder(&self.run_dir, 0o711)?;
        create_folder(&self.sockets, 0o700)?;
        let metadata = fs::symlink_metadata(&self.sockets).context("look at", &self.sockets)?;
        if !metadata.is_dir() || !identity.may_own(metadata.uid()) {
            return Err(Error::Setting(format!(
                "{} is not a folder of the user {}; remove it or choose another run directory",
                self.sockets.display(),
                identity.user
            )));
        }
        identity.give(&self.sockets)?;
        identity.can_reach(&self.sockets)
    }

    /// The major version that made the cluster; none where there is no cluster yet.
    pub(super) fn cluster_major(&self) -> Result<Option<u32>> {
        let path = self.cluster.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let major = text.trim().parse();
                major.map(Some).map_err(|_| Error::Setting(format!("{} holds no version", path.display())))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("read", &path),
        }
    }

    /// The file that psql reads the superuser's password from.
    pub(super) fn passfile(&self) -> PathBuf {
        self.secrets.join("postgres.pgpass")
    }

    /// The file that holds a role's password.
    pub(super) fn password_file(&self, role: &str) -> PathBuf {
        self.secrets.join(format!("{role}.password"))
    }
}
