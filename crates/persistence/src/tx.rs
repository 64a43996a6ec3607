//! The four transactions. Each knows what it may see; none can be made without its scope.

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection, pooled_connection::deadpool::Object};
use tidegate_model::{OrgId, UserId};

use crate::{Error, Result, audit::Author};

/// A connection with an open transaction. Dropped before its end, it is closed instead of going back to the pool:
/// the server rolls back, and nobody inherits half a transaction.
pub(crate) struct Lease(Option<Object<AsyncPgConnection>>);

impl Lease {
    pub(crate) fn new(connection: Object<AsyncPgConnection>) -> Self {
        Self(Some(connection))
    }

    /// The connection; gone only after `finish`, which consumes the transaction.
    pub(crate) fn conn(&mut self) -> Result<&mut AsyncPgConnection> {
        self.0.as_deref_mut().ok_or_else(|| Error::unavailable("the transaction has ended"))
    }

    /// Commits on `Ok`, rolls back on `Err`; the connection goes back to the pool only when that worked.
    pub(crate) async fn finish<T, E: From<Error>>(mut self, outcome: Result<T, E>) -> Result<T, E> {
        let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.conn().map_err(E::from)?.batch_execute(end).await;
        match (outcome, ended) {
            (outcome, Ok(())) => {
                // Whole again: back to the pool.
                drop(self.0.take());
                outcome
            }
            (Ok(_), Err(error)) => Err(Error::from(error).into()),
            // What failed first is what the caller must hear of.
            (Err(first), Err(_)) => Err(first),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

/// Which organization a transaction is of, and who opened it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrgContext {
    pub(crate) org_id: OrgId,
    /// None where the platform itself opened it.
    pub(crate) user_id: Option<UserId>,
}

/// A transaction inside one organization.
pub struct OrgTx {
    pub(crate) lease: Lease,
    pub(crate) context: OrgContext,
    pub(crate) author: Author,
    /// Whether an operator entered it from outside: what is written down of it stands in the platform's log, too.
    pub(crate) entered: bool,
}

impl OrgTx {
    pub(crate) fn new(lease: Lease, context: OrgContext, author: Author) -> Self {
        Self { lease, context, author, entered: false }
    }

    /// The organization.
    pub fn org_id(&self) -> OrgId {
        self.context.org_id
    }

    /// Who opened it; an error where the platform itself did, which owns nothing in an organization.
    pub(crate) fn user_id(&self) -> Result<UserId> {
        self.context.user_id.ok_or_else(|| Error::Internal("the platform itself is no user".into()))
    }
}

/// A transaction of one user, across organizations.
pub struct UserTx {
    pub(crate) lease: Lease,
    pub(crate) user_id: UserId,
    pub(crate) author: Author,
}

/// A transaction of some agents.
pub struct AgentTx {
    pub(crate) lease: Lease,
}

/// A transaction of an operator.
pub struct PlatformTx {
    pub(crate) lease: Lease,
    pub(crate) author: Author,
}

macro_rules! conn {
    ($($tx:ty),+) => { $(
        impl $tx {
            pub(crate) fn conn(&mut self) -> Result<&mut AsyncPgConnection> { self.lease.conn() }
        }
        impl std::fmt::Debug for $tx {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(stringify!($tx)) }
        }
    )+ };
}
conn!(OrgTx, UserTx, AgentTx, PlatformTx);
