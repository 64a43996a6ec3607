//! Reports on their way to the control plane. They wait while there is no connection, are sent again when one broke
//! before the other side had read them, and are bounded in bytes: a full outbox makes whoever reports wait.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_model::Clock;
use tidegate_protocol::FromAgent;
use tokio::sync::Notify;

use crate::SessionKey;

/// Bytes waiting; then reports wait outside.
const WAITING: usize = 4 * 1024 * 1024;
/// Bytes sent and not known to be read; then the oldest are taken for read, journal and records still know them.
const UNCONFIRMED: usize = 1024 * 1024;

/// A report.
#[derive(Debug, Clone)]
struct Report {
    frame: String,
    /// The session whose end it tells.
    ended: Option<SessionKey>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Report>,
    waiting_bytes: usize,
    sent: VecDeque<Report>,
    sent_bytes: usize,
    /// Number of the newest report ever sent.
    number: u64,
}

/// The outbox of one agent.
pub(crate) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
    clock: Arc<dyn Clock>,
}

impl Outbox {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), emptied: Notify::new(), clock }
    }

    /// Queues a report; waits while the outbox is full.
    pub(crate) async fn push(&self, message: FromAgent, ended: Option<SessionKey>) {
        let report = Report { frame: message.encode(self.clock.now()), ended };
        loop {
            let emptied = self.emptied.notified();
            {
                let mut state = self.lock();
                if state.waiting_bytes < WAITING {
                    state.add(report);
                    break;
                }
            }
            emptied.await;
        }
        self.filled.notify_one();
    }

    /// Queues an answer that the other side asks for again if it never comes; dropped when the outbox is full.
    pub(crate) fn push_now(&self, message: &FromAgent) {
        let mut state = self.lock();
        if state.waiting_bytes < WAITING {
            state.add(Report { frame: message.encode(self.clock.now()), ended: None });
            drop(state);
            self.filled.notify_one();
        }
    }

    /// The frames to send next, about `bytes` of them, and the number of the last; waits while there are none.
    pub(crate) async fn take(&self, bytes: usize) -> (Vec<String>, u64) {
        loop {
            let filled = self.filled.notified();
            if let Some(batch) = self.try_take(bytes) {
                self.emptied.notify_waiters();
                return batch;
            }
            filled.await;
        }
    }

    fn try_take(&self, bytes: usize) -> Option<(Vec<String>, u64)> {
        let mut state = self.lock();
        let (mut frames, mut taken) = (Vec::new(), 0);
        while taken < bytes {
            let Some(report) = state.waiting.pop_front() else { break };
            taken += report.frame.len();
            state.waiting_bytes -= report.frame.len();
            state.sent_bytes += report.frame.len();
            state.number += 1;
            frames.push(report.frame.clone());
            state.sent.push_back(report);
        }
        while state.sent_bytes > UNCONFIRMED {
            let Some(report) = state.sent.pop_front() else { break };
            state.sent_bytes -= report.frame.len();
        }
        (!frames.is_empty()).then_some((frames, state.number))
    }

    /// Everything up to this number was read by the other side. Answers the sessions whose end it now knows.
    pub(crate) fn confirm(&self, number: u64) -> Vec<SessionKey> {
        let mut state = self.lock();
        let mut ended = Vec::new();
        while state.number.saturating_sub(number) < state.sent.len() as u64 {
            let Some(report) = state.sent.pop_front() else { break };
            state.sent_bytes -= report.frame.len();
            ended.extend(report.ended);
        }
        ended
    }

    /// The connection broke: what was not confirmed is sent again, first.
    pub(crate) fn send_again(&self) {
        let mut state = self.lock();
        while let Some(report) = state.sent.pop_back() {
            state.waiting_bytes += report.frame.len();
            state.waiting.push_front(report);
        }
        state.sent_bytes = 0;
        drop(state);
        self.filled.notify_one();
    }

    /// Whether everything was sent and read.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.sent.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, report: Report) {
        self.waiting_bytes += report.frame.len();
        self.waiting.push_back(report);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::SystemClock;
    use tidegate_protocol::AckMessage;

    use super::*;

    fn outbox() -> Outbox {
        Outbox::new(Arc::new(SystemClock::new()))
    }

    fn ack(id: &str) -> FromAgent {
        AckMessage { command_id: id.into() }.into()
    }

    #[tokio::test]
    async fn what_was_not_confirmed_is_sent_again_in_order() {
        let outbox = outbox();
        let key = SessionKey::new("s", 1).unwrap();
        outbox.push(ack("cmd-1"), Some(key.clone())).await;
        let (first, number) = outbox.take(1_000_000).await;
        outbox.push(ack("cmd-2"), None).await;
        let (second, _) = outbox.take(1_000_000).await;
        outbox.push(ack("cmd-3"), None).await;
        assert_eq!((first.len(), outbox.confirm(number)), (1, vec![key]));
        outbox.send_again();
        let (again, last) = outbox.take(1_000_000).await;
        assert_eq!((again[0].as_str(), again.len()), (second[0].as_str(), 2));
        assert!(outbox.confirm(last).is_empty() && outbox.is_settled());
    }

    #[tokio::test]
    async fn a_full_outbox_makes_reports_wait_and_loses_none() {
        let outbox = Arc::new(outbox());
        let long = "x".repeat(1_000_000);
        let writer = {
            let (outbox, long) = (Arc::clone(&outbox), long.clone());
            tokio::spawn(async move {
                for _ in 0..20 {
                    outbox.push(ack(&long), None).await;
                }
            })
        };
        let mut frames = 0;
        while frames < 20 {
            let (taken, number) = outbox.take(1).await;
            outbox.confirm(number);
            frames += taken.len();
            assert!(outbox.lock().waiting_bytes <= WAITING + 2_000_000);
        }
        writer.await.unwrap();
    }
}
