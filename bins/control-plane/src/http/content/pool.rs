//! Connections to sessions' web ports that are kept open for the next request: one pool a serving thread. A connection is
//! of one session's start and of one viewer, so that what ends for one of them ends for nobody else.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use actix_web::rt;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tidegate_hub::{TunnelEnding, TunnelHandle, plain};
use tidegate_model::{SessionId, StreamKind, StreamMode};
use tidegate_service::{OpenedStream, ViewingEnd};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::http::{
    Context, Problem,
    sessions::viewer::{self, Wanted},
};

/// What a request's body is on its way.
pub(super) type Body = Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = std::io::Error>>>;

/// How long a connection waits for its next request. Short enough that ten seconds after a browser was closed nothing of it
/// is left.
const IDLE: Duration = Duration::from_secs(8);
/// Connections of one viewer of one session on one thread: as browsers have them, and some.
const MOST: usize = 24;
/// Bytes of an answer's head.
const HEAD: usize = 64 * 1024;
/// Headers of an answer.
const HEADERS: usize = 128;

/// Whose connections these are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) session: SessionId,
    pub(super) generation: i64,
    /// The viewer's credential or grant.
    pub(super) viewer: String,
    /// What they may do, and what ends it: a connection is watched over by what it was opened with.
    pub(super) mode: StreamMode,
    pub(super) ended: ViewingEnd,
}

impl Key {
    /// Connections for streams as this one.
    pub(super) fn new(opened: &OpenedStream, viewer: String) -> Self {
        Self {
            session: opened.session,
            generation: opened.generation,
            viewer,
            mode: opened.mode,
            ended: opened.ended,
        }
    }
}

/// Connections that wait for their next request.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pool(Rc<Shelves>);

#[derive(Debug, Default)]
struct Shelves {
    waiting: RefCell<HashMap<Key, Waiting>>,
    /// Whether a task closes what waited too long: one for all, while something waits.
    swept: Cell<bool>,
}

#[derive(Debug, Default)]
struct Waiting {
    idle: Vec<Idle>,
    open: usize,
}

#[derive(Debug)]
struct Idle {
    connection: SendRequest<Body>,
    tunnel: TunnelHandle,
    since: Instant,
}

/// A connection that is lent; it goes back by [`Lent::keep`], and is closed when it is dropped.
pub(super) struct Lent {
    pub(super) connection: SendRequest<Body>,
    pub(super) tunnel: TunnelHandle,
    place: Place,
    /// While it is lent, its tunnel ends when whoever asked has left.
    left: DropGuard,
    /// Whether it has carried a request before: then its session may have closed it meanwhile.
    pub(super) used: bool,
}

/// One of a viewer's [`MOST`] connections.
struct Place {
    pool: Pool,
    key: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pool = self.pool.0.waiting.borrow_mut();
        if let Some(waiting) = pool.get_mut(&self.key) {
            waiting.open -= 1;
            if waiting.open == 0 && waiting.idle.is_empty() {
                pool.remove(&self.key);
            }
        }
    }
}

impl Pool {
    /// A connection that waits, or a new one, for whoever leaves when `gone` is ready.
    pub(super) async fn lend(
        &self,
        context: &Context,
        opened: &OpenedStream,
        key: Key,
        gone: impl Future<Output = ()> + 'static,
    ) -> Result<Lent, Problem> {
        let place = self.place(&key)?;
        let (connection, tunnel, used) = if let Some(Idle { connection, tunnel, .. }) = self.idle(&key) {
            (connection, tunnel, true)
        } else {
            let (connection, tunnel) = connect(context, opened).await?;
            (connection, tunnel, false)
        };
        let (over, cut) = (CancellationToken::new(), tunnel.clone());
        let left = over.clone().drop_guard();
        rt::spawn(context.tasks.track_future(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = gone => cut.cut(TunnelEnding::ViewerLeft),
            }
        }));
        Ok(Lent { connection, tunnel, place, left, used })
    }

    fn place(&self, key: &Key) -> Result<Place, Problem> {
        let mut pool = self.0.waiting.borrow_mut();
        let waiting = pool.entry(key.clone()).or_default();
        if waiting.open >= MOST {
            return Err(Problem::busy(format!(
                "this page has {MOST} requests to the session open already, wait for one of them"
            )));
        }
        waiting.open += 1;
        Ok(Place { pool: self.clone(), key: key.clone() })
    }

    fn idle(&self, key: &Key) -> Option<Idle> {
        let mut pool = self.0.waiting.borrow_mut();
        let idle = &mut pool.get_mut(key)?.idle;
        while let Some(next) = idle.pop() {
            if next.since.elapsed() < IDLE && !next.connection.is_closed() && !next.tunnel.has_ended() {
                return Some(next);
            }
        }
        None
    }

    /// Sees to it that what waits is closed in time.
    fn tend(&self) {
        if self.0.swept.replace(true) {
            return;
        }
        let pool = self.clone();
        rt::spawn(async move {
            let mut next = Some(Instant::now() + IDLE);
            while let Some(due) = next {
                sleep_until(due).await;
                next = pool.sweep();
            }
            pool.0.swept.set(false);
        });
    }

    /// Closes what waited too long, of those who do not come again, too; when the next one will have.
    fn sweep(&self) -> Option<Instant> {
        let mut pool = self.0.waiting.borrow_mut();
        for waiting in pool.values_mut() {
            waiting.idle.retain(|idle| idle.since.elapsed() < IDLE && !idle.connection.is_closed());
        }
        pool.retain(|_, waiting| waiting.open > 0 || !waiting.idle.is_empty());
        pool.values().flat_map(|waiting| &waiting.idle).map(|idle| idle.since + IDLE).min()
    }
}

impl Lent {
    /// Gives it back for the next request.
    pub(super) fn keep(self) {
        let Self { connection, tunnel, place, left, .. } = self;
        drop(left);
        if connection.is_closed() || tunnel.has_ended() {
            return;
        }
        let pool = place.pool.clone();
        let idle = Idle { connection, tunnel, since: Instant::now() };
        if let Some(waiting) = pool.0.waiting.borrow_mut().get_mut(&place.key) {
            waiting.idle.push(idle);
        }
        drop(place);
        pool.tend();
    }
}

/// Dials the session's web port and speaks HTTP through the tunnel.
async fn connect(
    context: &Context,
    opened: &OpenedStream,
) -> Result<(SendRequest<Body>, TunnelHandle), Problem> {
    // What a viewer may do is decided request by request: the tunnel itself is the control plane's own.
    let dialled = OpenedStream { mode: StreamMode::Control, ..opened.clone() };
    let end = viewer::tunnel(context, &dialled, Wanted::Stream(StreamKind::Http)).await?;
    let tunnel = end.handle();
    let (bytes, moves) = plain(end);
    viewer::guard(context, opened.viewing(), tunnel.clone(), moves);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD).max_headers(HEADERS);
    let (connection, driver) = builder
        .handshake(TokioIo::new(bytes))
        .await
        .map_err(|error| Problem::bad_gateway("the session's application does not speak HTTP", error))?;
    let driver: LocalBoxFuture<'static, ()> = Box::pin(async move {
        // How it ended, whoever waits for an answer hears.
        let _ = driver.with_upgrades().await;
    });
    rt::spawn(driver);
    Ok((connection, tunnel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn however_many_come_back_one_task_waits_for_all_of_them() {
        let pool = Pool::default();
        for _ in 0..1000 {
            pool.tend();
        }
        assert_eq!(Rc::strong_count(&pool.0), 2, "the pool's and the task's");
        assert_eq!(pool.sweep(), None, "nothing waits: the task ends");
    }
}
