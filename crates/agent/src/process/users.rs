//! Who a session runs as, and where it is at home.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::unistd::{Uid, chown};
use serde::{Deserialize, Serialize};

use super::trash::Trash;
use crate::{
    Error,
    files::{make_dir, read_json, write_json},
    platform::SessionSpec,
};

/// The user ids sessions run as; nobody else on the machine may have them.
const UIDS: std::ops::Range<u32> = 210_000..260_000;

/// A prompt for users that the machine has no names for.
const BASHRC: &str = "PS1='$LOGNAME@\\h:\\w\\$ '\n[ -x /usr/bin/dircolors ] && eval \"$(dircolors -b)\" && alias ls='ls --color=auto'\n";
const PROFILE: &str = "[ -n \"$BASH_VERSION\" ] && [ -f ~/.bashrc ] && . ~/.bashrc\n";

#[derive(Debug, Serialize, Deserialize)]
struct Table {
    next: u32,
    uids: BTreeMap<String, u32>,
}

/// User ids and homes of this agent's sessions.
#[derive(Debug)]
pub(super) struct Users {
    homes: PathBuf,
    uids: Uids,
    trash: Trash,
}

/// Who has which user id, on disk.
#[derive(Debug, Clone)]
struct Uids {
    file: PathBuf,
    /// `None` when the agent is not root: sessions run as whoever it is.
    table: Option<Arc<Mutex<Table>>>,
}

impl Uids {
    /// Changes the table, and writes it if the change says so.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, u32>) -> bool) {
        let Some(table) = &self.table else { return };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut table.uids)
            && let Err(error) = write_json(&self.file, &*table)
        {
            // It is written with the next change; until then ids are taken longer than they need be.
            tracing::warn!(error = error.chain(), "the table of user ids was not written");
        }
    }

    /// Frees the ids that were kept for these homes.
    fn free(&self, deleted: &[String]) {
        self.change(|uids| {
            let before = uids.len();
            uids.retain(|of, _| !deleted.iter().any(|name| *of == discarded(name)));
            uids.len() != before
        });
    }
}

impl Users {
    /// Opens the table under the data folder.
    pub(super) fn open(data: &Path, private: &Path) -> Result<Self, Error> {
        let homes = data.join("homes");
        make_dir(&homes, 0o711)?;
        let file = private.join("uids.json");
        let table = if Uid::effective().is_root() {
            may_be_entered(data)?;
            let table = read_json(&file)?.unwrap_or(Table { next: UIDS.start, uids: BTreeMap::new() });
            Some(Arc::new(Mutex::new(table)))
        } else {
            None
        };
        let users = Self { trash: Trash::open(&homes)?, homes, uids: Uids { file, table } };
        users.resume();
        Ok(users)
    }

    /// Deletes what an earlier life did not get to, and frees the ids of what it did.
    fn resume(&self) {
        let left = self.trash.names();
        let homes = self.homes.join("ephemeral");
        let needed = |of: &str| match of.split_once(':') {
            Some(("deleted", name)) => left.iter().any(|left| left == name),
            Some(("session", id)) => fs::symlink_metadata(homes.join(id)).is_ok(),
            _ => true,
        };
        self.uids.change(|uids| {
            let before = uids.len();
            uids.retain(|of, _| needed(of));
            uids.len() != before
        });
        self.delete(left);
    }

    /// The user id of a session, one per owner with a persistent home, else one of its own.
    pub(super) fn uid_for(&self, spec: &SessionSpec) -> Result<Option<u32>, Error> {
        let Some(table) = &self.uids.table else { return Ok(None) };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name_of(spec);
        if let Some(uid) = table.uids.get(&name) {
            return Ok(Some(*uid));
        }
        let taken: std::collections::HashSet<u32> = table.uids.values().copied().collect();
        let start = if UIDS.contains(&table.next) { table.next } else { UIDS.start };
        // Freed ids are given out again as late as possible: something may still lie around that belongs to them.
        let uid = (start..UIDS.end)
            .chain(UIDS.start..start)
            .find(|uid| !taken.contains(uid))
            .ok_or_else(|| Error::Refused("all 50000 user ids for sessions are in use".into()))?;
        table.next = uid + 1;
        table.uids.insert(name, uid);
        write_json(&self.uids.file, &*table)?;
        Ok(Some(uid))
    }

    /// Makes the home of a session, or finds it.
    pub(super) fn home_for(&self, spec: &SessionSpec, uid: Option<u32>) -> Result<PathBuf, Error> {
        let home = if spec.persistent_home {
            let home = self.homes.join(&spec.owner);
            if let Some(parent) = home.parent() {
                make_dir(parent, 0o711)?;
            }
            home
        } else {
            let folder = self.homes.join("ephemeral");
            make_dir(&folder, 0o711)?;
            folder.join(&spec.key.session_id)
        };
        match fs::symlink_metadata(&home) {
            Ok(found) if found.is_dir() && uid.is_none_or(|uid| uid == found.uid()) => Ok(home),
            Ok(_) => {
                Err(Error::Refused(format!("{} is not this user's home, look who made it", home.display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                furnish(&home, uid)?;
                Ok(home)
            }
            Err(error) => Err(Error::file("look at", home)(error)),
        }
    }

    /// Takes a persistent home away and has it deleted; one that is not there is what was asked for. Its user keeps the id:
    /// something may lie around elsewhere that belongs to them, and the next home is theirs again.
    pub(super) fn delete_home(&self, owner: &str) -> Result<(), Error> {
        let home = self.homes.join(owner);
        let name = self.trash.take(&home).map_err(Error::file("move away", home))?;
        self.delete(name.into_iter().collect());
        Ok(())
    }

    /// Takes a session's own home away and has it deleted. Its user id is given to nobody else before that is done:
    /// something in it may still belong to it.
    pub(super) fn release(&self, session_id: &str) {
        let home = self.homes.join("ephemeral").join(session_id);
        let name = match self.trash.take(&home) {
            Ok(name) => name,
            Err(error) => {
                tracing::warn!(path = %home.display(), %error, "a session's home stays");
                return;
            }
        };
        let (own, deleted) = (format!("session:{session_id}"), name.as_deref().map(discarded));
        self.uids.change(|uids| {
            let Some(uid) = uids.remove(&own) else { return false };
            uids.extend(deleted.map(|deleted| (deleted, uid)));
            true
        });
        self.delete(name.into_iter().collect());
    }

    fn delete(&self, names: Vec<String>) {
        let uids = self.uids.clone();
        self.trash.delete_beside(names, move |deleted| uids.free(&deleted));
    }
}

/// What a user id is kept for while its home is being deleted.
fn discarded(name: &str) -> String {
    format!("deleted:{name}")
}

fn name_of(spec: &SessionSpec) -> String {
    if spec.persistent_home {
        format!("home:{}", spec.owner)
    } else {
        format!("session:{}", spec.key.session_id)
    }
}

/// Builds a home beside its place and moves it there whole: a crash leaves no home that belongs to root.
fn furnish(home: &Path, uid: Option<u32>) -> Result<(), Error> {
    let new = home.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    make_dir(&new, 0o700)?;
    let own = |path: &Path| {
        uid.map_or(Ok(()), |uid| chown(path, Some(uid.into()), Some(uid.into())))
            .map_err(|errno| Error::file("give away", path)(errno.into()))
    };
    for (name, text) in [(".bashrc", BASHRC), (".profile", PROFILE)] {
        let path = new.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
        own(&path)?;
    }
    own(&new)?;
    fs::rename(&new, home).map_err(Error::file("make", home))
}

/// Sessions are users of their own: every folder above their homes must let them through.
fn may_be_entered(data: &Path) -> Result<(), Error> {
    let data = data.canonicalize().map_err(Error::file("find", data))?;
    for folder in data.ancestors() {
        let found = fs::metadata(folder).map_err(Error::file("look at", folder))?;
        if found.permissions().mode() & 0o001 == 0 {
            return Err(Error::Setting(format!(
                "the data folder lies under {}, which sessions' users may not enter: choose another one, or chmod o+x it",
                folder.display()
            )));
        }
    }
    Ok(())
}
