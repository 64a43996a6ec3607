//! Asking until there is an answer: what a careful client does while the platform is being killed.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidegate_client::{Client, Error, PipeError};
use tokio::time::{Instant, sleep};

/// How long one request is repeated.
const PATIENCE: Duration = Duration::from_mins(4);
const PAUSE: Duration = Duration::from_millis(100);

/// A client that counts what it went through.
#[derive(Debug)]
pub(crate) struct Asker {
    client: Client,
    asked: AtomicU64,
    repeated: AtomicU64,
    refusals: Mutex<Vec<String>>,
}

impl Asker {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, asked: AtomicU64::new(0), repeated: AtomicU64::new(0), refusals: Mutex::default() }
    }

    /// Requests answered, and how often one had to be asked again.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.asked.load(Ordering::Relaxed), self.repeated.load(Ordering::Relaxed))
    }

    /// Answers that blame the caller, who did nothing wrong: an outage must be a 503.
    pub(crate) fn refusals(&self) -> Vec<String> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks until there is an answer. `None` when it was refused or never answered; both are written down.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        call: impl AsyncFn(&Client) -> Result<T, Error>,
    ) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match call(&self.client).await {
                Ok(answer) => {
                    self.asked.fetch_add(1, Ordering::Relaxed);
                    return Some(answer);
                }
                Err(error) => error,
            };
            let wait = error.api().and_then(|refusal| refusal.retry_after);
            let late = Instant::now() > deadline;
            if late || !(error.is_passing() || wait.is_some()) {
                self.note(format!("{what}: {}{error}", if late { "gave up at last: " } else { "" }));
                return None;
            }
            self.repeated.fetch_add(1, Ordering::Relaxed);
            sleep(wait.unwrap_or(PAUSE).min(Duration::from_secs(2))).await;
        }
    }

    /// The same over NATS, where a refusal of the control plane, too, may pass.
    pub(crate) async fn ask_over_nats<T>(
        &self,
        what: &str,
        mut call: impl AsyncFnMut(&Client) -> Result<T, PipeError>,
    ) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match call(&self.client).await {
                Ok(answer) => {
                    self.asked.fetch_add(1, Ordering::Relaxed);
                    return Some(answer);
                }
                Err(error) => error,
            };
            let wait = error.of_api().and_then(Error::api).and_then(|refusal| refusal.retry_after);
            let late = Instant::now() > deadline;
            if late || !(error.is_passing() || wait.is_some()) {
                self.note(format!("{what}: {}{error}", if late { "gave up at last: " } else { "" }));
                return None;
            }
            self.repeated.fetch_add(1, Ordering::Relaxed);
            sleep(wait.unwrap_or(PAUSE).min(Duration::from_secs(2))).await;
        }
    }

    /// Asks once, for those who decide themselves what becomes of a lost answer.
    pub(crate) async fn once<T>(&self, call: impl AsyncFn(&Client) -> Result<T, Error>) -> Result<T, Error> {
        call(&self.client).await
    }

    fn note(&self, refusal: String) {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).push(refusal);
    }
}
