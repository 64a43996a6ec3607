//! The hold on one start of one session. It is a lock on the shim's log: taken before there is a shim, inherited by it as
//! its standard error, and given back by the kernel when it ends, however it ends. Whoever finds it taken knows that a
//! shim lives, even one that does not listen yet, and starts no other.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::tree;
use crate::{Error, SessionKey};

/// The log of a start's shim, which is its lock.
pub(crate) fn path(folder: &Path, key: &SessionKey) -> PathBuf {
    folder.join(format!("shim.{}.log", key.generation))
}

/// Takes the hold; `None` when a shim has it.
pub(crate) fn take(path: &Path) -> Result<Option<File>, Error> {
    let mut options = OpenOptions::new();
    // Not truncated: it may be the log of a shim that lives.
    let log = options.create(true).append(true).mode(0o600).open(path).map_err(Error::file("write", path))?;
    lock(&log).map(|taken| taken.then_some(log)).map_err(Error::file("lock", path))
}

/// Whether a shim has it.
pub(crate) fn is_taken(path: &Path) -> bool {
    // Without a file there never was a shim; with one that cannot be locked the shim's own look decides.
    let Ok(log) = File::open(path) else { return false };
    let taken = lock(&log).is_ok_and(|taken| !taken);
    if !taken {
        // At once: a program that another thread is just starting may hold a copy of it for a moment.
        let _ = log.unlock();
    }
    taken
}

/// A shim's own look at its standard error: whether it has the hold, as it must before it starts anything.
pub(crate) fn is_own() -> io::Result<bool> {
    // The same open file as the agent locked: to lock it again changes nothing, and it stays locked until the last
    // descriptor of it is closed.
    lock(&File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// The processes that have it.
pub(crate) fn holders(path: &Path) -> Vec<i32> {
    let Ok(path) = fs::canonicalize(path) else { return Vec::new() };
    tree::with_errors_to(&path)
}

fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_has_one_owner_until_the_last_copy_of_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), &SessionKey::new("s-1", 3).unwrap());
        assert!(!is_taken(&path));
        let hold = take(&path).unwrap().unwrap();
        let inherited = hold.try_clone().unwrap();
        drop(hold);
        assert!(is_taken(&path) && take(&path).unwrap().is_none());
        drop(inherited);
        assert!(!is_taken(&path) && take(&path).unwrap().is_some());
    }
}
