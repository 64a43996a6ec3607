//! Who the programs of an engine run as, and with what around them. No engine runs as root, so root steps down.
//! Never a shell's environment: children get a clean one, so that no secret of ours ends up in theirs.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};
use tokio::process::Command;

use crate::error::Context;
use crate::{Error, Result};

/// An engine, as messages name it.
#[derive(Debug)]
pub(crate) struct Engine {
    /// What people call it.
    pub(crate) name: &'static str,
    /// Users it may run as, tried in this order when root names none.
    pub(crate) users: [&'static str; 2],
}

/// Variables a child keeps: where to find programs and libraries, nothing else.
const KEPT: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"];

/// The user that an engine runs as.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) user: String,
    uid: Uid,
    gid: Gid,
    /// Whether we are somebody else (root) and have to step down to it.
    steps_down: bool,
}

impl Identity {
    /// Decides who runs the engine: the owner of its existing folder, the named user, or the host's usual one.
    pub(crate) fn resolve(engine: &Engine, run_as: Option<&str>, folder: &Path) -> Result<Self> {
        let me = Uid::effective();
        if me.is_root() {
            return Self::below_root(engine, run_as, folder);
        }
        let own = User::from_uid(me).ok().flatten();
        let name = own.map_or_else(|| format!("uid {me}"), |user| user.name);
        match run_as {
            Some(wanted) if wanted != name => Err(Error::Setting(format!(
                "{} cannot run as {wanted} when started by {name}; start as root or leave run_as out",
                engine.name
            ))),
            _ => Ok(Self { user: name, uid: me, gid: Gid::effective(), steps_down: false }),
        }
    }

    fn below_root(engine: &Engine, run_as: Option<&str>, folder: &Path) -> Result<Self> {
        let Engine { name: engine_name, users } = engine;
        let user = match (run_as, fs::metadata(folder).ok()) {
            (Some(name), _) => lookup(engine, name)?,
            (None, Some(metadata)) if metadata.uid() != 0 => {
                User::from_uid(Uid::from_raw(metadata.uid())).ok().flatten()
            }
            _ => users.iter().find_map(|name| User::from_name(name).ok().flatten()),
        };
        let Some(user) = user else {
            return Err(Error::Setting(format!(
                "{engine_name} refuses to run as root and no user {} exists; set run_as",
                users.join(" or ")
            )));
        };
        if user.uid.is_root() {
            return Err(Error::Setting(format!(
                "{engine_name} refuses to run as root; set run_as to another user"
            )));
        }
        Ok(Self { user: user.name, uid: user.uid, gid: user.gid, steps_down: true })
    }

    /// A command that runs as this user, in `/`, with a clean environment and a process group of its own, so that
    /// the terminal's Ctrl-C reaches it through us alone.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = clean_command(program);
        command.process_group(0);
        if self.steps_down {
            // std empties the supplementary groups when root sets a uid
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
        command
    }

    /// Gives a file or folder to this user.
    pub(crate) fn give(&self, path: &Path) -> Result<()> {
        if self.steps_down {
            chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
                .context("change the owner of", path)?;
        }
        Ok(())
    }

    /// Refuses a path that this user cannot walk to, before a program says so less clearly.
    pub(crate) fn can_reach(&self, path: &Path) -> Result<()> {
        if !self.steps_down {
            return Ok(());
        }
        for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            let metadata = fs::metadata(folder).context("look at", folder)?;
            let enter = match (metadata.uid() == self.uid.as_raw(), metadata.gid() == self.gid.as_raw()) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            if metadata.mode() & enter == 0 {
                return Err(Error::Closed { folder: folder.to_owned(), user: self.user.clone() });
            }
        }
        Ok(())
    }

    /// Whether a file belongs to this user or to us.
    pub(crate) fn may_own(&self, owner: u32) -> bool {
        owner == self.uid.as_raw() || owner == Uid::effective().as_raw()
    }
}

fn lookup(engine: &Engine, name: &str) -> Result<Option<User>> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(Some(user)),
        _ => Err(Error::Setting(format!(
            "there is no user {name} to run {} as; create it or change run_as",
            engine.name
        ))),
    }
}

/// A command of our own user with a clean environment.
pub(crate) fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(PathBuf::from("/")).env("LC_ALL", "C");
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
