//! Secrets that are made once and kept in files: the master key and the passwords of database roles.
//! Never printed: every type here has a redacted `Debug` and no `Display`.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::Context;
use crate::{Error, Result};

/// Bytes of a master key.
pub const MASTER_KEY_BYTES: usize = 32;
/// Random bytes of a generated password; its text has twice as many characters.
const PASSWORD_BYTES: usize = 24;

/// The key that all other keys are derived from.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; MASTER_KEY_BYTES]);

impl MasterKey {
    /// The key's bytes, to derive other keys from.
    pub fn expose(&self) -> &[u8; MASTER_KEY_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MasterKey([redacted])")
    }
}

/// A password in plain text.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password's text: letters `a` to `f` and digits, safe in SQL literals and URLs as it is.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Password([redacted])")
    }
}

/// The master key of `path`, made now if there is none: 32 random bytes, mode 0600, on disk before this returns.
///
/// Of two processes that start on an empty folder one makes the key and both get the same one.
/// Fails when the file has another size or may be read by anybody but its owner.
pub fn master_key(path: &Path) -> Result<MasterKey> {
    match read_master_key(path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        outcome => return outcome,
    }
    create_once(path, &random::<MASTER_KEY_BYTES>(path)?)?;
    read_master_key(path)
}

/// The master key of `path`; unlike [`master_key`] a missing file is an error.
pub fn read_master_key(path: &Path) -> Result<MasterKey> {
    let bytes = read_private(path)?;
    let length = bytes.len();
    let key = bytes.try_into().map_err(|_| Error::Secret {
        path: path.to_owned(),
        problem: format!("has {length} bytes instead of {MASTER_KEY_BYTES}; restore it from a backup"),
    })?;
    Ok(MasterKey(key))
}

/// The password of `path`, made now if there is none: 192 random bits in hexadecimal, mode 0600.
pub fn password(path: &Path) -> Result<Password> {
    match read_password(path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        outcome => return outcome,
    }
    let text: String = random::<PASSWORD_BYTES>(path)?
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(hex_digit)
        .collect();
    create_once(path, text.as_bytes())?;
    read_password(path)
}

/// The password of `path`; unlike [`password`] a missing file is an error.
pub fn read_password(path: &Path) -> Result<Password> {
    let bytes = read_private(path)?;
    // Anything else would have to be escaped in a URL, in a literal and in psql's password file.
    if bytes.len() != 2 * PASSWORD_BYTES || !bytes.iter().all(u8::is_ascii_hexdigit) {
        let problem =
            format!("does not hold {} hexadecimal digits; restore it from a backup", 2 * PASSWORD_BYTES);
        return Err(Error::Secret { path: path.to_owned(), problem });
    }
    Ok(Password(bytes.iter().map(|byte| char::from(*byte)).collect()))
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

fn random<const N: usize>(path: &Path) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(std::io::Error::other)
        .context("get random bytes from the system for", path)?;
    Ok(bytes)
}

fn read_private(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).context("read the secret file", path)?;
    let metadata = file.metadata().context("read the secret file", path)?;
    let refuse = |problem: String| Err(Error::Secret { path: path.to_owned(), problem });
    if !metadata.is_file() {
        return refuse("is not a regular file; put the secret's own file there".to_owned());
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return refuse(format!("has mode {mode:04o}; run `chmod 600 {}`", path.display()));
    }
    // far more than any secret here, so that a wrong file is refused for its size without being read whole
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes).context("read the secret file", path)?;
    Ok(bytes)
}

/// Writes `content` to `path` unless something is there: whoever comes first wins, and nobody ever reads half a file.
fn create_once(path: &Path, content: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    let draft = write_draft(folder, path, content)?;
    // link, unlike rename, refuses to replace a file that another process finished meanwhile
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).context("remove the draft", &draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).context("create the secret file", path)
        }
        _ => sync_folder(folder),
    }
}

/// Writes `content` to `path` in place of what is there, private and whole.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let draft = write_draft(folder_of(path), path, content)?;
    fs::rename(&draft, path).context("write the secret file", path)?;
    sync_folder(folder_of(path))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_draft(folder: &Path, path: &Path, content: &[u8]) -> Result<PathBuf> {
    let suffix = u64::from_ne_bytes(random(path)?);
    let draft = folder.join(format!(".draft-{suffix:016x}"));
    let action = "write the secret file";
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).context(action, path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        // a full disk must not leave drafts behind
        fs::remove_file(&draft).context("remove the draft", &draft)?;
    }
    written.context(action, path)?;
    Ok(draft)
}

/// Makes the names in `folder` survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).context("sync the folder", folder)
}
