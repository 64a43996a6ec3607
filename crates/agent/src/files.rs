//! Small files that must survive a power cut, and folders that only the agent may enter.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// Makes a folder with exactly these rights, or gives them to the one that is there.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(Error::file("make", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("set rights of", path))
}

/// Replaces a file as a whole, mode 0600, on disk when this returns.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes).map_err(Error::file("write", path))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_parent(path)
}

/// Makes the name of a new or renamed file survive a power cut.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Writes a value as JSON with [`write_private`].
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::from).map_err(Error::file("write", path))?;
    write_private(path, &bytes)
}

/// Reads a value written by [`write_json`]; `None` when there is none or it is damaged.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)
            .inspect_err(|_| tracing::warn!(path = %path.display(), "damaged file is ignored"))
            .ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Reads a one-line secret; `None` when there is none.
pub(crate) fn read_line(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}
