//! Whether the database answers at all: asked by those who have waited for it for long. A server that hangs takes
//! connections and requests as ever, so that neither a pool nor a socket tells.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::{Instant, timeout};

use crate::connector::Connector;

/// How long an answer is good for, so that those who wait cannot load the database.
const GOOD_FOR: Duration = Duration::from_millis(500);

/// One question at a time, over a connection of its own: that all of the pool are in use says nothing.
pub(crate) struct Pulse {
    connector: Connector,
    asked: Mutex<Option<Asked>>,
}

struct Asked {
    at: Instant,
    answer: Shared<BoxFuture<'static, bool>>,
}

impl Pulse {
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector, asked: Mutex::default() }
    }

    /// Whether it answers `within` this time.
    pub(crate) async fn answers(&self, within: Duration) -> bool {
        let asked = self.ask();
        timeout(within, asked).await.unwrap_or(false)
    }

    /// The question that is under way or was answered a moment ago, else a new one.
    fn ask(&self) -> Shared<BoxFuture<'static, bool>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Asked { at, answer }) = &*asked
            && (answer.peek().is_none() || at.elapsed() < GOOD_FOR)
        {
            return answer.clone();
        }
        let connector = self.connector.clone();
        // In a task of its own: nobody who stops waiting leaves it in the middle of something.
        let asking = tokio::spawn(async move { connector.connect().await.is_ok() });
        let answer = asking.map(|answer| answer.unwrap_or(false)).boxed().shared();
        *asked = Some(Asked { at: Instant::now(), answer: answer.clone() });
        answer
    }
}
