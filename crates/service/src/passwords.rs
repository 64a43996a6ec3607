//! Password hashing: argon2id, off the async runtime, so many at a time and no more.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use chrono::TimeDelta;
use tidegate_model::Secret;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Error, Result, throttle::Attempt};

/// OWASP's choice: 19 MiB, two passes, one lane; about 26 ms of a core.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
/// A stored hash that asks for more than this is refused, not computed.
const MOST_MEMORY_KIB: u32 = 256 * 1_024;

#[derive(Debug)]
pub(crate) struct Passwords {
    workers: Arc<Semaphore>,
    /// Places to wait in. A full queue refuses at once: whoever waited longer would have given up anyway, and nobody
    /// may make everybody wait.
    queue: Semaphore,
    /// The part of the queue for those who never logged in from where they are: strangers cannot fill all of it.
    strangers: Semaphore,
    /// The part for API keys: whoever makes many of them keeps nobody from logging in.
    keys: Semaphore,
}

/// Hashes that may wait or run: at two workers the last one waits less than a second.
const QUEUE: usize = 64;
/// Of these, strangers' attempts.
const STRANGERS: usize = 48;
/// And those of API keys.
const KEYS: usize = 8;

fn argon2() -> Result<Argon2<'static>> {
    let params =
        Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|error| Error::internal(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

impl Passwords {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: Arc::new(Semaphore::new(workers.max(1))),
            queue: Semaphore::new(QUEUE),
            strangers: Semaphore::new(STRANGERS),
            keys: Semaphore::new(KEYS),
        }
    }

    /// The PHC string of a new password.
    pub(crate) async fn hash(&self, password: Secret<String>) -> Result<String> {
        self.work(move || {
            let salt = crate::secrets::random::<16>()?;
            argon2()?
                .hash_password_with_salt(password.expose().as_bytes(), &salt)
                .map(|hash| hash.to_string())
                .map_err(|error| Error::internal(error.to_string()))
        })
        .await
    }

    /// Whether the password fits, as one attempt of somebody: refused where there were too many failures, and its own
    /// failure counted before the next one's turn.
    pub(crate) async fn verify(
        &self,
        password: Secret<String>,
        stored: Option<String>,
        attempt: Attempt,
    ) -> Result<bool> {
        let _part = if attempt.is_familiar() { None } else { Some(place(&self.strangers)?) };
        self.work(move || {
            attempt.allowed()?;
            let fits = fits(&password, stored.as_deref())?;
            if fits {
                attempt.succeeded();
            } else {
                attempt.failed();
            }
            Ok(fits)
        })
        .await
    }

    /// Hashes for an API key.
    pub(crate) async fn work_for_key<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _part = place(&self.keys)?;
        self.work(job).await
    }

    /// Does `job`, which hashes, when it is its turn.
    async fn work<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let _place = place(&self.queue)?;
        let permit = Arc::clone(&self.workers).acquire_owned().await.map_err(Error::internal)?;
        tokio::task::spawn_blocking(move || {
            let done = job();
            drop(permit);
            done
        })
        .await
        .map_err(Error::internal)?
    }
}

fn place(queue: &Semaphore) -> Result<SemaphorePermit<'_>> {
    queue.try_acquire().map_err(|_| Error::RateLimited(TimeDelta::seconds(1)))
}

/// Whether the password fits. Without a stored hash the same work is done in vain, so that time tells nothing.
fn fits(password: &Secret<String>, stored: Option<&str>) -> Result<bool> {
    let Some(stored) = stored else {
        let computed = argon2()?.hash_password_with_salt(password.expose().as_bytes(), &[0; 16]);
        return computed.map(|_| false).map_err(|error| Error::internal(error.to_string()));
    };
    let Ok(hash) = PasswordHash::new(stored) else { return Ok(false) };
    let affordable = Params::try_from(&hash)
        .is_ok_and(|params| params.m_cost() <= MOST_MEMORY_KIB && params.t_cost() <= 16);
    Ok(affordable && argon2()?.verify_password(password.expose().as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let passwords = Passwords::new(1);
        let hash = passwords.hash(secret("tidewater gate")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(fits(&secret("tidewater gate"), Some(&hash)).unwrap());
        assert!(!fits(&secret("tidewater gates"), Some(&hash)).unwrap());
        assert!(!fits(&secret("tidewater gate"), None).unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let passwords = Passwords::new(1);
        let _all = passwords.queue.try_acquire_many(u32::try_from(QUEUE).unwrap()).unwrap();
        assert!(matches!(passwords.hash(secret("tidewater gate")).await, Err(Error::RateLimited(_))));
    }

    #[tokio::test]
    async fn keys_leave_room_for_logins() {
        let passwords = Passwords::new(1);
        let _all = passwords.keys.try_acquire_many(u32::try_from(KEYS).unwrap()).unwrap();
        assert!(matches!(passwords.work_for_key(|| Ok(())).await, Err(Error::RateLimited(_))));
        passwords.hash(secret("tidewater gate")).await.unwrap();
    }

    #[test]
    fn a_stored_hash_with_absurd_parameters_is_refused() {
        let absurd =
            "$argon2id$v=19$m=4194304,t=100,p=1$c2FsdHNhbHRzYWx0$8SyfTuS5xrwXBgVZBvHrVbrKRNkLdcvFPEGvGRfdmOM";
        assert!(!fits(&secret("x"), Some(absurd)).unwrap());
    }
}
