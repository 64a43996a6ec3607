//! Questions of many who ask at one time, asked of the database in one statement.
//!
//! Nobody is told what was read before they asked: a statement takes along who waits when it is sent. Whoever asks alone is
//! asked for at once; while statements are under way, the next questions gather. Nobody waits longer for their statement to
//! begin than they would for a connection. What is never kept here: an answer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::BoxFuture;
use tokio::{sync::oneshot, time::timeout};

use crate::{Db, Error, Result};

/// Questions of one statement at most.
const BATCH: usize = 128;
/// Statements under way at most: while one is answered, the other one is on its way.
const UNDER_WAY: usize = 2;
/// Questions that wait at most. Past it the answer is 503 at once: the database has been away for long, and those who wait
/// have given up.
const WAITING: usize = 8_192;

/// Asks many questions in one statement; the answers come in their order.
type Ask<Q, A> = fn(Db, Vec<Q>) -> BoxFuture<'static, Result<Vec<A>>>;

/// Where questions of one kind meet.
pub(crate) struct Together<Q, A> {
    ask: Ask<Q, A>,
    line: Mutex<Line<Q, A>>,
}

struct Line<Q, A> {
    /// In the order of their numbers.
    waiting: VecDeque<Waiter<Q, A>>,
    under_way: usize,
    /// The number of whoever asks next.
    next: u64,
}

struct Waiter<Q, A> {
    number: u64,
    question: Q,
    asker: Asker<A>,
}

type Asker<A> = oneshot::Sender<Result<A>>;

impl<Q, A> Together<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    pub(crate) fn new(ask: Ask<Q, A>) -> Self {
        Self { ask, line: Mutex::new(Line { waiting: VecDeque::new(), under_way: 0, next: 0 }) }
    }

    /// The answer to a question, as of a moment after it was asked. Whoever stops waiting disturbs nobody.
    pub(crate) async fn ask(self: &Arc<Self>, db: &Db, question: Q) -> Result<A> {
        let (asker, mut answer) = oneshot::channel();
        let (number, begins) = {
            let mut line = self.line();
            if line.waiting.len() >= WAITING {
                return Err(Error::unavailable("too many wait for the database"));
            }
            let number = line.next;
            line.next += 1;
            line.waiting.push_back(Waiter { number, question, asker });
            let begins = line.under_way < UNDER_WAY;
            line.under_way += usize::from(begins);
            (number, begins)
        };
        if begins {
            // In a task of its own: a statement is not cut when one of those it is asked for leaves.
            tokio::spawn(Carrier { together: Arc::clone(self), db: db.clone(), retired: false }.carry());
        }
        let told = match timeout(db.patience(), &mut answer).await {
            Ok(told) => told,
            Err(elapsed) if self.leave(number) => return Err(Error::unavailable(elapsed)),
            // Its statement has begun, and has bounds of its own.
            Err(_) => answer.await,
        };
        told.unwrap_or_else(|_| Err(Error::unavailable("who asked the database has ended")))
    }

    /// Leaves the line; false for whose question is being asked already.
    fn leave(&self, number: u64) -> bool {
        let mut line = self.line();
        let place = line.waiting.binary_search_by_key(&number, |waiter| waiter.number);
        place.is_ok_and(|place| line.waiting.remove(place).is_some())
    }

    fn line(&self) -> MutexGuard<'_, Line<Q, A>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks, one statement after the other, until nobody waits.
struct Carrier<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    together: Arc<Together<Q, A>>,
    db: Db,
    /// Whether it is counted no more.
    retired: bool,
}

impl<Q, A> Carrier<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    async fn carry(mut self) {
        while let Some((questions, askers)) = self.next() {
            match self.asked(questions.clone()).await {
                // What one of them names cannot be read: that is nothing to the others.
                Err(error) if questions.len() > 1 && !matches!(error, Error::Unavailable(_)) => {
                    for (question, asker) in questions.into_iter().zip(askers) {
                        tell(self.asked(vec![question]).await, vec![asker]);
                    }
                }
                answers => tell(answers, askers),
            }
        }
    }

    async fn asked(&self, questions: Vec<Q>) -> Result<Vec<A>> {
        (self.together.ask)(self.db.clone(), questions).await
    }

    /// Those who wait, as many as one statement takes. Where nobody does, whoever asks next begins anew.
    fn next(&mut self) -> Option<(Vec<Q>, Vec<Asker<A>>)> {
        let mut line = self.together.line();
        let (mut questions, mut askers) = (Vec::new(), Vec::new());
        while questions.len() < BATCH
            && let Some(Waiter { question, asker, .. }) = line.waiting.pop_front()
        {
            // Nobody asks for those who have left.
            if !asker.is_closed() {
                questions.push(question);
                askers.push(asker);
            }
        }
        if questions.is_empty() {
            line.under_way -= 1;
            self.retired = true;
            return None;
        }
        Some((questions, askers))
    }
}

impl<Q, A> Drop for Carrier<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    /// Cut half-way, because its runtime ends: where nobody else asks, those who wait are told so.
    fn drop(&mut self) {
        if self.retired {
            return;
        }
        let left = {
            let mut line = self.together.line();
            line.under_way -= 1;
            if line.under_way == 0 { std::mem::take(&mut line.waiting) } else { VecDeque::new() }
        };
        drop(left);
    }
}

/// Each gets their answer; that the database does not answer, all of them.
fn tell<A>(answers: Result<Vec<A>>, askers: Vec<Asker<A>>) {
    // Whoever has left needs no answer: that one is dropped.
    match answers {
        Ok(answers) => {
            for (asker, answer) in askers.into_iter().zip(answers) {
                drop(asker.send(Ok(answer)));
            }
        }
        Err(error) => {
            let shared = Arc::new(error);
            for asker in askers {
                drop(asker.send(Err(shared_with(&shared))));
            }
        }
    }
}

/// The same failure, for one of those it struck.
fn shared_with(error: &Arc<Error>) -> Error {
    let source = Box::new(Shared(Arc::clone(error)));
    match **error {
        Error::Unavailable(_) => Error::Unavailable(source),
        _ => Error::Internal(source),
    }
}

#[derive(Debug)]
struct Shared(Arc<Error>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a statement for many failed")
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
    use tidegate_model::Secret;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_while_nobody_answers_waits_no_longer_than_for_a_connection() {
        let url = Secret::new("postgres://nobody@127.0.0.1:1/nothing".to_owned());
        let options = crate::Options { url, acquire_timeout_seconds: 1, ..crate::Options::default() };
        let db = Db::new(&options).unwrap();
        let away = Arc::new(Together::<u8, ()>::new(|_, _| pending().boxed()));
        let asked: FuturesUnordered<_> = (0..20 * BATCH).map(|_| away.ask(&db, 0)).collect();
        // All but those that are being asked for: their statements never end here.
        let left = asked.take((20 - UNDER_WAY) * BATCH);
        let told = left.for_each(async |answer| {
            assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
        });
        timeout(Duration::from_mins(1), told).await.unwrap();
        assert!(away.line().waiting.is_empty(), "who has left has no place in the line");
    }
}
