//! The server's log file: opened for the server, kept within a bound, its end quoted in errors.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::{Result, programs};

/// How much of the log an error quotes, in bytes.
const QUOTED: usize = 2000;

/// The log file and its bound.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    path: PathBuf,
    limit: u64,
}

impl Log {
    pub(crate) fn new(path: PathBuf, limit: u64) -> Self {
        Self { path, limit }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the log for a server to write to, and says where its part begins.
    pub(crate) fn open(&self) -> Result<(File, u64)> {
        self.keep_bound()?;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
        let file = file.context("open the log", &self.path)?;
        let length = file.metadata().context("open the log", &self.path)?.len();
        Ok((file, length))
    }

    /// Moves a log past its bound to `….log.1`, in place of the one before. The server holds the file open, so its
    /// content is copied and the file emptied; appending, it goes on at the new end.
    pub(crate) fn keep_bound(&self) -> Result<()> {
        let length = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if length > self.limit {
            fs::copy(&self.path, self.path.with_extension("log.1")).context("copy the log", &self.path)?;
            let file = OpenOptions::new().write(true).truncate(true).open(&self.path);
            file.context("empty the log", &self.path)?;
        }
        Ok(())
    }

    /// The end of what was logged from `start` on.
    pub(crate) fn tail_since(&self, start: u64) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            let quoted = u64::try_from(QUOTED).unwrap_or(u64::MAX);
            file.seek(SeekFrom::Start(start.max(length.saturating_sub(quoted))))?;
            let mut bytes = Vec::new();
            file.take(quoted).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        programs::tail(String::from_utf8_lossy(&bytes).trim_end(), QUOTED).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_past_its_bound_is_set_aside_and_the_writer_goes_on_at_the_new_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path().join("postgres.log"), 10);
        let (mut file, start) = log.open().unwrap();
        assert_eq!(start, 0);
        file.write_all(b"a long first line\n").unwrap();
        log.keep_bound().unwrap();
        file.write_all(b"short\n").unwrap();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "short\n");
        assert_eq!(fs::read_to_string(folder.path().join("postgres.log.1")).unwrap(), "a long first line\n");
        assert_eq!(log.tail_since(0), "short");
    }
}
