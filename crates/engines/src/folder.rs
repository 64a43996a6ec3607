//! Folders that are made, and the lock that makes one process an engine's owner.
//! Never what is in them.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::Context;
use crate::{Error, Result};

/// Makes a folder and those above it, unless it is there.
pub(crate) fn create_folder(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path).context("create the folder", path)
}

/// The lock on an engine in a data directory; ends with this value or with the process, whatever ends it.
#[derive(Debug)]
pub(crate) struct OwnerLock(#[expect(dead_code, reason = "held for its lock alone")] File);

impl OwnerLock {
    /// Takes the engine whose lock is the file `name`, or says who has it.
    pub(crate) fn take(data_dir: &Path, name: &str) -> Result<Self> {
        let path = data_dir.join(name);
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = options.context("open the lock", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // a holder that has not written its pid yet is still a holder
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(Error::Owned { data_dir: data_dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(error).context("lock", &path),
        }
        let pid = format!("{}\n", std::process::id());
        let written = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
        written.and_then(|_| file.write_all(pid.as_bytes())).context("write the lock", &path)?;
        Ok(Self(file))
    }
}
