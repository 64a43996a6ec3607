//! Where everything lies. Never the content of the server's folder.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::error::Context;
use crate::folder::create_folder;
use crate::identity::Identity;

/// The paths of one embedded nats-server.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) data_dir: PathBuf,
    /// The server's own folder, in which it works.
    pub(super) folder: PathBuf,
    pub(super) config: PathBuf,
    pub(super) pid: PathBuf,
    pub(super) accounts: PathBuf,
    pub(super) streams: PathBuf,
    pub(super) log: PathBuf,
    pub(super) port: PathBuf,
}

impl Layout {
    /// Makes the paths absolute.
    pub(super) fn new(data_dir: &Path) -> Result<Self> {
        let data_dir = std::path::absolute(data_dir).context("resolve", data_dir)?;
        let folder = data_dir.join("nats");
        Ok(Self {
            config: folder.join("nats.conf"),
            pid: folder.join("nats-server.pid"),
            accounts: folder.join("accounts"),
            streams: folder.join("streams"),
            log: data_dir.join("nats.log"),
            port: data_dir.join("nats.port"),
            folder,
            data_dir,
        })
    }

    /// Makes the folder that is ours.
    pub(super) fn create_data_dir(&self) -> Result<()> {
        // others may pass through, to the folder of the server's user, and list nothing
        create_folder(&self.data_dir, 0o711)
    }

    /// Makes the server's folders, which nobody else may enter.
    pub(super) fn create_folders(&self, identity: &Identity) -> Result<()> {
        for folder in [&self.folder, &self.accounts, &self.streams] {
            create_folder(folder, 0o700)?;
            identity.give(folder)?;
        }
        identity.can_reach(&self.folder)
    }
}
