//! The folder that a repository is kept in between two syncs: one each, used by one sync at a time. All of it may be
//! deleted at any time, and is fetched again then.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};

use crate::Error;

/// A repository's folder, held as long as this lives.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    _held: Flock<File>,
}

impl Cache {
    /// Takes the folder of one repository, which nobody else may read.
    pub(crate) fn take(root: &Path, name: &str) -> Result<Self, Error> {
        private_folder(root)?;
        ours_alone(root)?;
        let folder = root.join(name);
        private_folder(&folder)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("lock"))?;
        let held = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => Error::Busy,
            other => Error::Cache(other.into()),
        })?;
        Ok(Self { folder, _held: held })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a small file, whole or not at all.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.path(name);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        io::Write::write_all(&mut file, content)?;
        file.persist(&path)?;
        Ok(path)
    }
}

/// Makes a folder that only its owner may read. What it lies in is made as any folder: others may have to pass through it.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Refuses a folder that was there before and that somebody else may write into: git would run what they put there.
fn ours_alone(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let shown = folder.display();
    Err(io::Error::other(format!("{shown} is not a folder that this program's user alone may write into")))
}

/// Removes a folder that may not be there.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Bytes of the files below a folder; what vanishes meanwhile is nothing.
pub(crate) fn weigh(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(it) if it.is_dir() => weigh(&entry.path()),
            Ok(it) => it.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_the_folder_itself_is_private_and_not_what_it_lies_in() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        private_folder(&data.join("repositories")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&data.join("repositories")) & 0o077, 0);
        assert_eq!(mode(&data) & 0o001, 0o001, "the database's user passes through");
    }

    #[test]
    fn a_folder_that_others_may_write_into_is_no_cache() {
        let root = tempfile::tempdir().unwrap();
        let (open, ours, link) =
            (root.path().join("open"), root.path().join("ours"), root.path().join("link"));
        for (folder, mode) in [(&open, 0o777), (&ours, 0o755)] {
            fs::create_dir(folder).unwrap();
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink(&ours, &link).unwrap();
        assert!(Cache::take(&ours, "1").is_ok());
        for folder in [&open, &link] {
            let refused = Cache::take(folder, "1").unwrap_err().to_string();
            assert!(refused.contains("alone may write"), "{refused}");
        }
    }
}
