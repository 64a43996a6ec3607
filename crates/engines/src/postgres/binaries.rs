//! Finds the programs of an installed PostgreSQL. Never downloads or installs anything: it says how to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, Result};

/// The oldest major version this project runs on.
pub const OLDEST_MAJOR: u32 = 15;
/// Programs that make a folder a PostgreSQL server's.
const PROGRAMS: [&str; 3] = ["postgres", "initdb", "psql"];
/// Folders that hold one subfolder per major version, with the programs in its `bin`.
const VERSIONED: [&str; 4] =
    ["/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt", "/usr/local/opt"];
/// Folders that hold the programs themselves.
const PLAIN: [&str; 6] = [
    "/usr/bin",
    "/usr/local/bin",
    "/usr/local/pgsql/bin",
    "/usr/libexec/postgresql",
    "/opt/homebrew/bin",
    "/Applications/Postgres.app/Contents/Versions/latest/bin",
];

/// One installed PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The folder with `postgres`, `initdb` and `psql`.
    pub folder: PathBuf,
    /// The major version, for instance 15.
    pub major: u32,
}

impl Binaries {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Finds PostgreSQL 15 or newer; with `major`, exactly that version, as an existing cluster needs it.
///
/// `folders` replaces the search of the host: `PATH`, `pg_config --bindir`, then the usual folders, newest first.
pub fn find(folders: Option<&[PathBuf]>, major: Option<u32>) -> Result<Binaries> {
    let candidates = folders.map_or_else(host_folders, <[PathBuf]>::to_vec);
    let mut seen = BTreeSet::new();
    let mut too_old = Vec::new();
    for folder in &candidates {
        if !seen.insert(folder.clone()) {
            continue;
        }
        match version_in(folder) {
            Some(found) if major.map_or(found >= OLDEST_MAJOR, |wanted| found == wanted) => {
                return Ok(Binaries { folder: folder.clone(), major: found });
            }
            Some(found) => too_old.push(format!("{} (version {found})", folder.display())),
            None => {}
        }
    }
    Err(missing(&candidates, &too_old, major))
}

fn missing(candidates: &[PathBuf], unfit: &[String], major: Option<u32>) -> Error {
    let wanted = major.map_or_else(
        || format!("PostgreSQL {OLDEST_MAJOR} or newer"),
        |major| format!("PostgreSQL {major}, which made the existing cluster,"),
    );
    let searched = if unfit.is_empty() {
        let names: Vec<_> = candidates.iter().map(|folder| folder.display().to_string()).collect();
        names.join(", ")
    } else {
        unfit.join(", ")
    };
    Error::Missing { wanted, searched, install: install_command(major) }
}

fn host_folders() -> Vec<PathBuf> {
    // looking up programs is what PATH is for; it is not a setting of ours
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    folders.extend(pg_config_folder());
    folders.extend(versioned_folders());
    folders.extend(PLAIN.iter().map(PathBuf::from));
    let mut seen = BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders
}

fn pg_config_folder() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// `/usr/lib/postgresql/17/bin`, `/usr/pgsql-17/bin`, `…/opt/postgresql@17/bin`: newest first.
fn versioned_folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for parent in VERSIONED.iter().chain(&["/usr"]) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let version = name.strip_prefix("pgsql-").or(name.strip_prefix("postgresql@")).unwrap_or(name);
            if let Ok(major) = version.parse::<u32>() {
                found.push((major, entry.path().join("bin")));
            }
        }
    }
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, folder)| folder).collect()
}

fn version_in(folder: &Path) -> Option<u32> {
    if !PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    major_of(std::str::from_utf8(&output.stdout).ok()?)
}

/// `postgres (PostgreSQL) 17beta1 (Debian …)` is 17.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

fn install_command(major: Option<u32>) -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    install_line(&release, cfg!(target_os = "macos"), major)
}

fn install_line(os_release: &str, macos: bool, major: Option<u32>) -> String {
    let suffix = |separator: &str| major.map(|major| format!("{separator}{major}")).unwrap_or_default();
    if macos {
        return format!("brew install postgresql@{}", major.unwrap_or(17));
    }
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let ids = format!("{} {}", value("ID"), value("ID_LIKE"));
    for id in ids.split_whitespace() {
        match id {
            "debian" | "ubuntu" => return format!("apt-get install -y postgresql{}", suffix("-")),
            "fedora" | "rhel" | "centos" | "amzn" => {
                return format!("dnf install -y postgresql{0}-server postgresql{0}", suffix(""));
            }
            "suse" | "opensuse" | "sles" => {
                return format!("zypper install -y postgresql{}-server", suffix(""));
            }
            "arch" => return "pacman -S --noconfirm postgresql".to_owned(),
            "alpine" => return format!("apk add postgresql{0} postgresql{0}-client", major.unwrap_or(17)),
            _ => {}
        }
    }
    "your package manager (package postgresql or postgresql-server)".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_releases_betas_and_packages_are_read() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_of("postgres (EnterpriseDB) unknown"), None);
    }

    #[test]
    fn each_platform_has_its_install_line() {
        let line = |release: &str| install_line(release, false, None);
        assert_eq!(line("ID=debian\n"), "apt-get install -y postgresql");
        assert_eq!(line("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), "apt-get install -y postgresql");
        assert_eq!(
            line("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"),
            "dnf install -y postgresql-server postgresql"
        );
        assert_eq!(line("ID=alpine\n"), "apk add postgresql17 postgresql17-client");
        assert_eq!(install_line("", true, None), "brew install postgresql@17");
        assert_eq!(install_line("ID=debian\n", false, Some(16)), "apt-get install -y postgresql-16");
    }
}
