//! One agent a data folder: two would clean up after each other's sessions and answer each other's commands.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use tokio::time::sleep;

use crate::Error;

/// How often the lock is tried for, every 50 ms: what an agent that has just been killed was starting at that moment may
/// hold a copy of it a little longer.
const TRIES: u32 = 20;

/// The lock on a data folder; given back by the kernel when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

impl Lock {
    /// Takes it, or says who has it.
    pub(crate) async fn take(data: &Path) -> Result<Self, Error> {
        let path = data.join("private/agent.lock");
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("open", &path))?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => {
                    let name_it = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                    name_it.map_err(Error::file("write", &path))?;
                    return Ok(Self(file));
                }
                Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(50)).await,
                Err(TryLockError::Error(error)) => return Err(Error::file("lock", &path)(error)),
            }
        }
        let holder = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let holder =
            holder.map_or_else(|| "another agent".to_owned(), |pid| format!("another agent, process {pid}"));
        Err(Error::Setting(format!(
            "{} is in use by {holder}: stop that one or choose another data folder",
            data.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_agent_is_told_who_has_the_folder_until_that_one_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("private")).unwrap();
        let first = Lock::take(folder.path()).await.unwrap();
        let refused = Lock::take(folder.path()).await.unwrap_err().to_string();
        let wanted = format!("in use by another agent, process {}:", std::process::id());
        assert!(refused.contains(&wanted), "{refused}");
        drop(first);
        Lock::take(folder.path()).await.unwrap();
    }
}
