//! The disk that holds the streams, where it is this machine's: promises are no space, so that whoever stores looks at it.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tidegate_model::FieldErrors;

use crate::{Error, Result};

/// How long what was seen is good for.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// Looks at the free space of a folder, at most once a second.
#[derive(Debug)]
pub(crate) struct Guard {
    folder: PathBuf,
    least: u64,
    seen: Mutex<Option<(Instant, u64)>>,
}

impl Guard {
    pub(crate) fn new(folder: PathBuf, least: u64) -> Self {
        Self { folder, least, seen: Mutex::default() }
    }

    /// Refuses where too little is free. A disk that cannot be looked at refuses nothing: NATS says what it cannot store.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(free) = self.free() else { return Ok(()) };
        if free >= self.least {
            return Ok(());
        }
        let mut figures = FieldErrors::new();
        figures.add("freeBytes", free);
        figures.add("leastFreeBytes", self.least);
        let message = format!(
            "the disk of the pipes has {free} bytes free, and {} are to stay free: an operator has to make room",
            self.least
        );
        Err(Error::StorageFull { message, figures })
    }

    /// The bytes that are to stay free.
    pub(crate) const fn least(&self) -> u64 {
        self.least
    }

    /// The bytes that are free there.
    pub(crate) fn free(&self) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((at, free)) if at.elapsed() < GOOD_FOR => Some(free),
            _ => {
                let found = rustix::fs::statvfs(&self.folder).ok()?;
                let free = found.f_bavail.saturating_mul(found.f_frsize);
                *seen = Some((Instant::now(), free));
                Some(free)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_refuses_with_the_numbers_and_one_with_room_does_not() {
        let folder = std::env::temp_dir();
        assert!(Guard::new(folder.clone(), 1).check().is_ok());
        match Guard::new(folder, u64::MAX).check().unwrap_err() {
            Error::StorageFull { message, figures } => {
                assert!(message.contains(&u64::MAX.to_string()), "{message}");
                let named: Vec<&str> = figures.iter().map(|(name, _)| name).collect();
                assert_eq!(named, ["freeBytes", "leastFreeBytes"]);
            }
            other => panic!("{other:?}"),
        }
        assert!(Guard::new("/nowhere/at/all".into(), u64::MAX).check().is_ok());
    }
}
