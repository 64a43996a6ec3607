//! Password hashing: argon2id, off the async runtime, so many at a time and no more, in threads that give way to everything
//! else. Hashes that were brought from elsewhere may be bcrypt; what they ask for is bounded, too.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use chrono::TimeDelta;
use rustix::process::setpriority_process;
use tidegate_model::Secret;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::{Error, Result, throttle::Attempt};

/// OWASP's choice: 19 MiB, two passes, one lane; about 26 ms of a core.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
/// A stored hash that asks for more than this is refused, not computed.
const MOST_MEMORY_KIB: u32 = 256 * 1_024;
const MOST_PASSES: u32 = 16;
const MOST_LANES: u32 = 16;
/// The same of bcrypt, whose work doubles with each step: about a second.
const MOST_COST: u32 = 14;

/// How far threads that hash stand back: against one that works they get a tenth of a core.
const NICE: i32 = 10;

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
    /// The part for passwords that somebody gives somebody else.
    others: Semaphore,
}

/// Hashes that may wait or run: with one worker, the last one waits less than two seconds.
const QUEUE: usize = 64;
/// Of these, strangers' attempts.
const STRANGERS: usize = 48;
/// And those of API keys.
const KEYS: usize = 8;
/// And those of passwords for others.
const OTHERS: usize = 8;

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
            others: Semaphore::new(OTHERS),
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

    /// The same of a password that the caller gives somebody else: whoever makes many users keeps nobody from logging in.
    pub(crate) async fn hash_for_another(&self, password: Secret<String>) -> Result<String> {
        let _part = place(&self.others)?;
        self.hash(password).await
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
        let (told, done) = oneshot::channel();
        // A thread of its own, whose priority is nobody else's: to make one costs a thousandth of a hash.
        let thread = std::thread::Builder::new().name("tidegate-hash".into());
        let started = thread.spawn(move || {
            give_way();
            let outcome = job();
            drop(permit);
            // Whoever has left does not want to know.
            drop(told.send(outcome));
        });
        started.map_err(Error::internal)?;
        done.await.map_err(Error::internal)?
    }
}

/// Lets everything that waits for a core go before this thread: a login takes longer then, and nobody else does.
fn give_way() {
    if let Err(error) = setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread that hashes competes with requests");
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
    match Stored::read(stored) {
        Ok(Stored::Argon2(hash)) => {
            Ok(argon2()?.verify_password(password.expose().as_bytes(), &*hash).is_ok())
        }
        Ok(Stored::Bcrypt) => Ok(bcrypt::verify(password.expose(), stored).unwrap_or(false)),
        Err(_) => Ok(false),
    }
}

/// A stored hash that may be computed.
enum Stored {
    Argon2(Box<PasswordHash>),
    Bcrypt,
}

impl Stored {
    fn read(stored: &str) -> Result<Self, &'static str> {
        if stored.starts_with("$2") {
            let hash: bcrypt::HashParts = stored.parse().map_err(|_| "is no hash of bcrypt")?;
            let affordable = hash.get_cost() <= MOST_COST;
            return affordable.then_some(Self::Bcrypt).ok_or("asks for more than cost 14");
        }
        let hash = PasswordHash::new(stored).map_err(|_| "must be a hash of argon2id or bcrypt")?;
        if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
            return Err("must be a hash of argon2id or bcrypt");
        }
        let params = Params::try_from(&hash).map_err(|_| "has parameters that cannot be read")?;
        let affordable = params.m_cost() <= MOST_MEMORY_KIB
            && params.t_cost() <= MOST_PASSES
            && params.p_cost() <= MOST_LANES;
        affordable
            .then(|| Self::Argon2(Box::new(hash)))
            .ok_or("asks for more than 256 MiB, 16 passes or 16 lanes")
    }
}

/// Whether a hash that was brought from elsewhere may be kept: one that asks for absurd amounts of memory or time, or
/// is of another kind, may not.
pub(crate) fn check_imported(stored: &str) -> Result<(), &'static str> {
    Stored::read(stored).map(drop)
}

/// Whether a hash is not as this version makes them: it is replaced when its password is next brought.
pub(crate) fn is_outdated(stored: &str) -> bool {
    let ours = format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1$");
    !stored.starts_with(&ours)
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

    /// bcrypt of `tidewater gate` at cost 4, as other systems write it.
    const BROUGHT: &str = "$2b$04$";

    #[tokio::test]
    async fn a_hash_of_bcrypt_fits_its_password_and_is_outdated() {
        let hash = bcrypt::hash("tidewater gate", 4).unwrap();
        assert!(hash.starts_with(BROUGHT), "{hash}");
        for version in ["$2a$", "$2b$", "$2y$"] {
            let hash = format!("{version}{}", &hash[4..]);
            assert_eq!(check_imported(&hash), Ok(()), "{hash}");
            assert!(is_outdated(&hash));
            assert!(fits(&secret("tidewater gate"), Some(&hash)).unwrap(), "{hash}");
            assert!(!fits(&secret("tidewater gates"), Some(&hash)).unwrap(), "{hash}");
        }
        let ours = Passwords::new(1).hash(secret("tidewater gate")).await.unwrap();
        assert!(!is_outdated(&ours) && check_imported(&ours).is_ok());
    }

    #[test]
    fn an_absurd_hash_is_neither_taken_nor_computed() {
        let tail = "c2FsdHNhbHRzYWx0$8SyfTuS5xrwXBgVZBvHrVbrKRNkLdcvFPEGvGRfdmOM";
        let since = std::time::Instant::now();
        for absurd in [
            "$2b$15$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW".to_owned(),
            "$2b$31$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW".to_owned(),
            "$2b$12$short".to_owned(),
            "$2".to_owned(),
            format!("$argon2id$v=19$m=4194304,t=1,p=1${tail}"),
            format!("$argon2id$v=19$m=19456,t=4000000,p=1${tail}"),
            format!("$argon2id$v=19$m=131072,t=1,p=4096${tail}"),
            format!("$argon2i$v=19$m=19456,t=2,p=1${tail}"),
            "$argon2id$v=19$m=19456,t=2,p=1$".to_owned(),
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0".to_owned(),
            "tidewater gate".to_owned(),
        ] {
            assert!(check_imported(&absurd).is_err(), "{absurd}");
            assert!(!fits(&secret("tidewater gate"), Some(&absurd)).unwrap(), "{absurd}");
        }
        assert!(since.elapsed() < std::time::Duration::from_millis(200), "{:?}", since.elapsed());
    }

    #[tokio::test]
    async fn a_thread_that_hashes_gives_way_and_no_other_does() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let (before, passwords) = (own(), Passwords::new(1));
        assert_eq!(passwords.work(move || Ok(own())).await.unwrap(), NICE.max(before));
        assert_eq!(own(), before);
    }

    #[tokio::test]
    async fn a_job_that_panics_is_an_error_and_gives_its_place_back() {
        let passwords = Passwords::new(1);
        let panicked = passwords.work(|| -> Result<()> { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(Error::Internal(_))), "{panicked:?}");
        passwords.work(|| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let passwords = Passwords::new(1);
        let _all = passwords.queue.try_acquire_many(u32::try_from(QUEUE).unwrap()).unwrap();
        assert!(matches!(passwords.hash(secret("tidewater gate")).await, Err(Error::RateLimited(_))));
    }

    #[tokio::test]
    async fn passwords_for_others_leave_room_for_logins() {
        let passwords = Passwords::new(1);
        let _all = passwords.others.try_acquire_many(u32::try_from(OTHERS).unwrap()).unwrap();
        let refused = passwords.hash_for_another(secret("tidewater gate")).await;
        assert!(matches!(refused, Err(Error::RateLimited(_))));
        passwords.hash(secret("tidewater gate")).await.unwrap();
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
