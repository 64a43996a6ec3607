//! Questions of many who ask at one time, asked of the database in one statement.
//!
//! Nobody is told what was read before they asked: a statement takes along who waits when it is sent. Whoever asks alone is
//! asked for at once; while statements are under way, the next questions gather. What is never kept here: an answer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

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
    waiting: VecDeque<(Q, Asker<A>)>,
    under_way: usize,
}

type Asker<A> = oneshot::Sender<Result<A>>;

impl<Q, A> Together<Q, A>
where
    Q: Clone + Send + Sync + 'static,
    A: Send + 'static,
{
    pub(crate) fn new(ask: Ask<Q, A>) -> Self {
        Self { ask, line: Mutex::new(Line { waiting: VecDeque::new(), under_way: 0 }) }
    }

    /// The answer to a question, as of a moment after it was asked. Whoever stops waiting disturbs nobody.
    pub(crate) async fn ask(self: &Arc<Self>, db: &Db, question: Q) -> Result<A> {
        let (asker, answer) = oneshot::channel();
        let begins = {
            let mut line = self.line();
            if line.waiting.len() >= WAITING {
                return Err(Error::unavailable("too many wait for the database"));
            }
            line.waiting.push_back((question, asker));
            let begins = line.under_way < UNDER_WAY;
            line.under_way += usize::from(begins);
            begins
        };
        if begins {
            // In a task of its own: a statement is not cut when one of those it is asked for leaves.
            tokio::spawn(Carrier { together: Arc::clone(self), db: db.clone(), retired: false }.carry());
        }
        answer.await.unwrap_or_else(|_| Err(Error::unavailable("who asked the database has ended")))
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
            && let Some((question, asker)) = line.waiting.pop_front()
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
