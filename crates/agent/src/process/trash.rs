//! Where folders go that sessions wrote into: out of the way at once, and deleted beside everything else. A session may
//! leave a nest deeper than any path and any table of descriptors reaches; it is flattened level by level.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{Error, files::make_dir};

/// A folder that only the agent may enter, on the file system of what goes into it.
#[derive(Debug, Clone)]
pub(super) struct Trash(Arc<Path>);

impl Trash {
    /// Makes it inside of `folder`.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let trash = folder.join(".trash");
        make_dir(&trash, 0o700)?;
        Ok(Self(trash.into()))
    }

    /// Takes a folder away; its name here, or nothing when it was not there.
    pub(super) fn take(&self, folder: &Path) -> io::Result<Option<String>> {
        let name = format!("{:016x}", rand::random::<u64>());
        match fs::rename(folder, self.0.join(&name)) {
            Ok(()) => Ok(Some(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of what lies here.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Deletes one of what lies here, however deep it is. Slow: for a thread of its own.
    pub(super) fn delete(&self, name: &str) -> io::Result<()> {
        let mut open = VecDeque::from([self.0.join(name)]);
        while let Some(folder) = open.pop_front() {
            open.extend(self.flatten(&folder)?);
        }
        Ok(())
    }

    /// Deletes a folder right below this one, and brings the folders in it up here. No path is ever longer than two
    /// steps, one folder is open at a time, and nobody but the agent can put a link where a folder was looked at.
    fn flatten(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        match fs::symlink_metadata(folder) {
            Ok(found) if !found.is_dir() => return fs::remove_file(folder).map(|()| Vec::new()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        // Its owner may have locked it even against itself.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let mut raised = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                // To move a folder is to write into it.
                if fs::rename(entry.path(), self.raise(&mut raised)).is_err() {
                    fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700))?;
                    raised.pop();
                    fs::rename(entry.path(), self.raise(&mut raised))?;
                }
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir(folder)?;
        Ok(raised)
    }

    /// A new place right below this folder.
    fn raise(&self, raised: &mut Vec<PathBuf>) -> PathBuf {
        let place = self.0.join(format!("{:016x}", rand::random::<u64>()));
        raised.push(place.clone());
        place
    }

    /// Deletes on a thread of its own and calls `done` with the names that are gone. What cannot be deleted now is tried
    /// again at the next start.
    pub(super) fn delete_beside(&self, names: Vec<String>, done: impl FnOnce(Vec<String>) + Send + 'static) {
        if names.is_empty() {
            return;
        }
        let trash = self.clone();
        let work = move || {
            let deleted = names.into_iter().filter(|name| match trash.delete(name) {
                Ok(()) => true,
                Err(error) => {
                    let path = trash.0.join(name);
                    tracing::warn!(path = %path.display(), %error, "a session's folder cannot be deleted yet");
                    false
                }
            });
            done(deleted.collect());
        };
        if let Err(error) = std::thread::Builder::new().name("trash".into()).spawn(work) {
            tracing::warn!(%error, "sessions' folders are deleted at the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Folders in folders, made from the bottom up: no path to the bottom could be written down.
    fn nest(at: &Path, depth: usize) {
        let (mut inner, spare) = (at.with_extension("a"), at.with_extension("b"));
        fs::create_dir(&inner).unwrap();
        let mut outer = spare;
        for _ in 1..depth {
            fs::create_dir(&outer).unwrap();
            fs::write(outer.join("file"), "x").unwrap();
            fs::rename(&inner, outer.join("folder")).unwrap();
            std::mem::swap(&mut inner, &mut outer);
        }
        fs::rename(&inner, at).unwrap();
    }

    #[test]
    fn three_thousand_folders_in_each_other_are_deleted() {
        let root = tempfile::tempdir().unwrap();
        let (home, trash) = (root.path().join("home"), Trash::open(root.path()).unwrap());
        nest(&home, 3_000);
        let name = trash.take(&home).unwrap().unwrap();
        assert!(!home.exists());
        trash.delete(&name).unwrap();
        assert!(trash.names().is_empty());
        assert_eq!(trash.take(&home).unwrap(), None);
    }

    #[test]
    fn what_links_lead_to_stays_and_what_is_locked_goes() {
        let root = tempfile::tempdir().unwrap();
        let (outside, home) = (root.path().join("outside"), root.path().join("home"));
        fs::create_dir_all(home.join("locked/inner")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        symlink(&outside, home.join("link")).unwrap();
        fs::set_permissions(home.join("locked/inner"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(home.join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
        let trash = Trash::open(root.path()).unwrap();
        let name = trash.take(&home).unwrap().unwrap();
        trash.delete(&name).unwrap();
        assert!(trash.names().is_empty() && outside.join("precious").exists());
    }
}
