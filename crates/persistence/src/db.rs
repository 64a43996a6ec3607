//! The pool, and the doors to the four kinds of transaction.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use deadpool::managed::QueueMode;
use diesel::QueryResult;
use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{Object, Pool},
    },
};
use futures_util::{FutureExt, future::join3};
use tidegate_model::{OrgId, Secret, UserId};

use crate::{
    Actor, AgentScope, AgentTx, Error, Operator, OrgScope, OrgTx, PlatformTx, Result, SystemScope, UserScope,
    UserTx,
    audit::Author,
    auth::{self, KeyLookups, LoginLookups, PipeLookups},
    connector::Connector,
    organization::{self, Locked},
    pulse::Pulse,
    quota::{self, Bound},
    tx::{Lease, OrgContext},
};

/// How to reach PostgreSQL.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `postgres://tidegate_app:…@host/tidegate?sslmode=verify-full`; the plain login role, not the owner of the tables.
    pub url: Secret<String>,
    /// Connections at most. Default 16.
    pub max_connections: usize,
    /// Longest wait for a free connection before the answer is 503, and until somebody who waits for the database asks
    /// whether it still answers. Default 2 s.
    pub acquire_timeout_seconds: u64,
    /// Longest statement. Default 15 s.
    pub statement_timeout_seconds: u64,
    /// Longest wait for a lock. Default 5 s.
    pub lock_timeout_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: Secret::new(String::new()),
            max_connections: 16,
            acquire_timeout_seconds: 2,
            statement_timeout_seconds: 15,
            lock_timeout_seconds: 5,
        }
    }
}

/// A pool of connections of the login role, which may read nothing by itself. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: Pool<AsyncPgConnection>,
    patience: Duration,
    pulse: Arc<Pulse>,
    /// Keys that are looked up at one time.
    pub(crate) keys: Arc<KeyLookups>,
    /// Logins that are looked up at one time.
    pub(crate) logins: Arc<LoginLookups>,
    /// Pipes that are written to at one time.
    pub(crate) pipes: Arc<PipeLookups>,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.pool.status();
        f.debug_struct("Db")
            .field("size", &status.size)
            .field("available", &status.available)
            .finish_non_exhaustive()
    }
}

impl Db {
    /// Sets the pool up; connections are made when they are needed.
    pub fn new(options: &Options) -> Result<Self> {
        let settings = format!(
            "SET statement_timeout = '{}s'; SET lock_timeout = '{}s'; SET idle_in_transaction_session_timeout = '60s'",
            options.statement_timeout_seconds, options.lock_timeout_seconds
        );
        let mut config = ManagerConfig::default();
        // A dead connection is found by `BEGIN`, which is tried again on another one: see `Db::begin`.
        config.recycling_method = RecyclingMethod::Fast;
        let connector = Connector::new(&options.url)?;
        let pulse = Arc::new(Pulse::new(connector.clone()));
        config.custom_setup = Box::new(move |_| {
            let (settings, connector) = (settings.clone(), connector.clone());
            async move {
                let mut connection = connector.connect().await?;
                connection
                    .batch_execute(&settings)
                    .await
                    .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
                Ok(connection)
            }
            .boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(options.url.expose(), config);
        let pool = Pool::builder(manager)
            .max_size(options.max_connections)
            // The last one that was used: its backend has everything at hand, and those that are not needed sleep.
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|error| Error::Internal(Box::new(error)))?;
        Ok(Self {
            pool,
            patience: Duration::from_secs(options.acquire_timeout_seconds),
            pulse,
            keys: Arc::new(auth::key_lookups()),
            logins: Arc::new(auth::login_lookups()),
            pipes: Arc::new(auth::pipe_lookups()),
        })
    }

    /// Runs `work` in a transaction of an organization: commits on `Ok`, rolls back on `Err`.
    pub async fn in_org<T, E: From<Error>>(
        &self,
        scope: &OrgScope,
        work: impl AsyncFnOnce(&mut OrgTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tx = org_tx(self.begin(&org_setup(scope)).await?, scope);
        let outcome = work(&mut tx).await;
        tx.lease.finish(outcome).await
    }

    /// The same for statements that are asked again and again: each connection keeps their plans.
    pub async fn in_org_hot<T, E: From<Error>>(
        &self,
        scope: &OrgScope,
        work: impl AsyncFnOnce(&mut OrgTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let setup = format!("{}, {KEPT_PLANS}", org_setup(scope));
        let mut tx = org_tx(self.begin(&setup).await?, scope);
        let outcome = work(&mut tx).await;
        tx.lease.finish(outcome).await
    }

    /// Runs `work` in a transaction of an organization that begins with the first two locks of the lock order, the
    /// organization's and the caller's membership: begun and locked in one round trip. The console is no member, and takes
    /// the organization's lock alone.
    pub async fn in_org_locked<T, E: From<Error>>(
        &self,
        scope: &OrgScope,
        work: impl AsyncFnOnce(&mut OrgTx, Result<Locked>) -> Result<T, E>,
    ) -> Result<T, E> {
        if scope.user.console {
            let mut tx = org_tx(self.begin(&org_setup(scope)).await?, scope);
            let locked = organization::lock_entered(&mut tx).await;
            let outcome = work(&mut tx, locked).await;
            return tx.lease.finish(outcome).await;
        }
        let setup = format!("{}, {KEPT_PLANS}", org_setup(scope));
        let opening = Some(Opening { user_id: scope.user_id(), org_id: scope.org_id(), bounds: None });
        let (lease, opened) = self.begin_and(&setup, opening).await?;
        let locked = opened.map_or(Err(Error::NotFound), |opened| opened.locked);
        let mut tx = org_tx(lease, scope);
        let outcome = work(&mut tx, locked).await;
        tx.lease.finish(outcome).await
    }

    /// The same for the start of a session of the caller's own: what bounds it, counted after the locks were granted,
    /// comes in the same round trip. `default_bounds` says whether a member without a quota is bounded.
    pub async fn in_org_bounded<T, E: From<Error>>(
        &self,
        scope: &OrgScope,
        default_bounds: bool,
        work: impl AsyncFnOnce(&mut OrgTx, Result<(Locked, Vec<Bound>)>) -> Result<T, E>,
    ) -> Result<T, E> {
        let context = org_context(scope);
        let setup = format!("{}, {KEPT_PLANS}", org_setup(scope));
        let opening =
            Some(Opening { user_id: scope.user_id(), org_id: scope.org_id(), bounds: Some(default_bounds) });
        let (lease, opened) = self.begin_and(&setup, opening).await?;
        let opened = opened.map_or(Err(Error::NotFound), |Opened { locked, bounds }| Ok((locked?, bounds?)));
        let mut tx = OrgTx::new(lease, context, scope.user.author());
        let outcome = work(&mut tx, opened).await;
        tx.lease.finish(outcome).await
    }

    /// Runs `work` in a transaction of an organization that an operator enters from outside: it begins as the platform's,
    /// where `enter` finds the organization, and goes on inside. What is done there stands in both logs or in none.
    pub async fn in_org_of_others<T, E: From<Error>>(
        &self,
        operator: &Operator,
        enter: impl AsyncFnOnce(&mut PlatformTx) -> Result<OrgScope, E>,
        work: impl AsyncFnOnce(&mut OrgTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let lease = self.begin(&platform_setup()).await?;
        let mut outside = PlatformTx { lease, author: operator.author.clone() };
        let entered = enter(&mut outside).await;
        let PlatformTx { mut lease, .. } = outside;
        let scope = match entered {
            Ok(scope) => scope,
            Err(error) => return lease.finish(Err(error)).await,
        };
        if let Err(error) = lease.conn()?.batch_execute(&org_role(&scope)).await {
            return lease.finish(Err(Error::from(error).into())).await;
        }
        let mut tx = OrgTx::new(lease, org_context(&scope), scope.user.author());
        tx.entered = true;
        let outcome = work(&mut tx).await;
        tx.lease.finish(outcome).await
    }

    /// Runs `work` in a transaction of an organization that nobody asked for: the platform itself acts, and says so in
    /// the log.
    pub async fn in_org_as_system<T, E: From<Error>>(
        &self,
        scope: &SystemScope,
        work: impl AsyncFnOnce(&mut OrgTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let begin = begin_as("tidegate_org", "app.org_id", &scope.org_id.to_string());
        // Said, so that nothing is left of whoever the connection served before.
        let lease = self.begin(&format!("{begin}, set_config('app.user_id', '', true)")).await?;
        let context = OrgContext { org_id: scope.org_id, user_id: None };
        let mut tx = OrgTx::new(lease, context, Author::of(Actor::System));
        let outcome = work(&mut tx).await;
        tx.lease.finish(outcome).await
    }

    /// Runs `work` in a transaction of a user, across organizations.
    pub async fn in_user<T, E: From<Error>>(
        &self,
        scope: &UserScope,
        work: impl AsyncFnOnce(&mut UserTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let setup = begin_as("tidegate_user", "app.user_id", &scope.user_id.to_string());
        let mut tx =
            UserTx { lease: self.begin(&setup).await?, user_id: scope.user_id, author: scope.author() };
        let outcome = work(&mut tx).await;
        tx.lease.finish(outcome).await
    }

    /// Runs `work` in a transaction of some agents.
    pub async fn in_agents<T, E: From<Error>>(
        &self,
        scope: &AgentScope,
        work: impl AsyncFnOnce(&mut AgentTx) -> Result<T, E>,
    ) -> Result<T, E> {
        self.agents(agents_setup(scope), work).await
    }

    /// Runs `work` in a transaction of some agents whose end is not waited for until it is on the disk. Only for stamps
    /// that make themselves good: a power cut, or a killed PostgreSQL, may take the last fraction of a second back, as if
    /// nothing had been said, unless a later transaction was acknowledged. Nothing is lost when a control plane is killed.
    pub async fn in_agents_unflushed<T, E: From<Error>>(
        &self,
        scope: &AgentScope,
        work: impl AsyncFnOnce(&mut AgentTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let setup = format!("{}, set_config('synchronous_commit', 'off', true)", agents_setup(scope));
        self.agents(setup, work).await
    }

    async fn agents<T, E: From<Error>>(
        &self,
        setup: String,
        work: impl AsyncFnOnce(&mut AgentTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tx = AgentTx { lease: self.begin(&setup).await? };
        let outcome = work(&mut tx).await;
        tx.lease.finish(outcome).await
    }

    /// Runs `work` in a transaction of an operator.
    pub async fn in_platform<T, E: From<Error>>(
        &self,
        operator: &Operator,
        work: impl AsyncFnOnce(&mut PlatformTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let lease = self.begin(&platform_setup()).await?;
        let mut tx = PlatformTx { lease, author: operator.author.clone() };
        let outcome = work(&mut tx).await;
        tx.lease.finish(outcome).await
    }

    /// The same for statements that are asked again and again: each connection keeps their plans.
    pub async fn in_platform_hot<T, E: From<Error>>(
        &self,
        operator: &Operator,
        work: impl AsyncFnOnce(&mut PlatformTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let lease = self.begin(&format!("{}, {KEPT_PLANS}", platform_setup())).await?;
        let mut tx = PlatformTx { lease, author: operator.author.clone() };
        let outcome = work(&mut tx).await;
        tx.lease.finish(outcome).await
    }

    /// What the database thinks the time is; also the cheapest proof that it answers.
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        let mut connection = self.connection().await?;
        crate::system::database_now(&mut connection).await
    }

    /// Whether the database answers `within` this time: asked by whoever has waited for longer than [`Db::patience`]. A
    /// server that hangs takes what is sent to it as ever, and says nothing.
    pub async fn answers(&self, within: Duration) -> bool {
        self.pulse.answers(within).await
    }

    /// How long one waits without a doubt.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// A connection outside of any transaction and scope, for the lookups that make scopes.
    pub(crate) async fn connection(&self) -> Result<Object<AsyncPgConnection>> {
        // Waiting for a connection may be given up at any point: nothing has been sent yet.
        match tokio::time::timeout(self.patience, self.pool.get()).await {
            Ok(connection) => connection.map_err(Error::unavailable),
            Err(elapsed) => Err(Error::unavailable(elapsed)),
        }
    }

    /// Opens a transaction with its role and tenant in one round trip.
    async fn begin(&self, setup: &str) -> Result<Lease> {
        Ok(self.begin_and(setup, None).await?.0)
    }

    /// Opens a transaction and, where an organization is named, sends its first locks without waiting for the begin.
    /// A pooled connection that died since its last use is found here, where nothing has happened yet, and replaced.
    async fn begin_and(&self, setup: &str, opening: Option<Opening>) -> Result<(Lease, Option<Opened>)> {
        let mut last = None;
        for _ in 0..=self.pool.status().max_size {
            // From here on a lease: whoever stops waiting leaves no connection behind that has begun something.
            let mut lease = Lease::new(self.connection().await?);
            let (begun, locked) = begin_on(lease.conn()?, setup, opening).await;
            match begun {
                Ok(()) => return Ok((lease, locked)),
                Err(error) => {
                    // Out of the pool with it: it is not known what state it is in.
                    drop(lease);
                    match Error::from(error) {
                        unavailable @ Error::Unavailable(_) => last = Some(unavailable),
                        other => return Err(other),
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::unavailable("no connection could be opened")))
    }
}

/// What is sent with the begin of an organization's transaction.
#[derive(Clone, Copy)]
struct Opening {
    org_id: OrgId,
    user_id: UserId,
    /// The caller's bounds too, and whether the default is one.
    bounds: Option<bool>,
}

/// What came back for it.
struct Opened {
    locked: Result<Locked>,
    bounds: Result<Vec<Bound>>,
}

async fn begin_on(
    conn: &AsyncPgConnection,
    setup: &str,
    opening: Option<Opening>,
) -> (QueryResult<()>, Option<Opened>) {
    let mut own = conn;
    let Some(Opening { org_id, user_id, bounds }) = opening else {
        return (own.batch_execute(setup).await, None);
    };
    // Polled in this order, sent in this order: what is used is counted when the locks are granted. Joined, and not given
    // up at the first error: an answer nobody waits for would be the next statement's.
    let lock = organization::lock(conn, org_id, user_id);
    let bounds = async {
        match bounds {
            Some(default_bounds) => quota::bounds_on(conn, user_id, default_bounds).await,
            None => Ok(Vec::new()),
        }
    };
    let (begun, locked, bounds) = join3(own.batch_execute(setup), lock, bounds).await;
    (begun, Some(Opened { locked, bounds }))
}

/// The hot statements keep one plan a connection, whatever is bound: planning them anew costs more than carrying them out,
/// and the indexes leave one good plan for each. Lists and deletions in bites are planned for what they are given.
const KEPT_PLANS: &str = "set_config('plan_cache_mode', 'force_generic_plan', true)";

fn platform_setup() -> String {
    begin_as("tidegate_platform", "app.org_id", "")
}

fn agents_setup(scope: &AgentScope) -> String {
    let ids: Vec<String> = scope.agents.iter().map(ToString::to_string).collect();
    let begin = begin_as("tidegate_hub", "app.agent_ids", &format!("{{{}}}", ids.join(",")));
    format!("{begin}, {KEPT_PLANS}")
}

fn org_setup(scope: &OrgScope) -> String {
    format!("BEGIN; {}", org_role(scope))
}

fn org_role(scope: &OrgScope) -> String {
    let role = role_as("tidegate_org", "app.org_id", &scope.org_id.to_string());
    let user = org_context(scope).user_id.map(|user| user.to_string()).unwrap_or_default();
    format!("{role}, set_config('app.user_id', '{user}', true)")
}

/// The console is no user: what asks whose the transaction is, gets none.
fn org_context(scope: &OrgScope) -> OrgContext {
    let user_id = (!scope.user.console).then_some(scope.user.user_id);
    OrgContext { org_id: scope.org_id, user_id }
}

/// Whoever comes from the console has entered from outside, whatever transaction they asked for.
fn org_tx(lease: Lease, scope: &OrgScope) -> OrgTx {
    let mut tx = OrgTx::new(lease, org_context(scope), scope.user.author());
    tx.entered = scope.user.console;
    tx
}

/// Role and tenant of a transaction. The value is an id or a list of ids of ours, never text from outside.
fn begin_as(role: &str, setting: &str, value: &str) -> String {
    format!("BEGIN; {}", role_as(role, setting, value))
}

fn role_as(role: &str, setting: &str, value: &str) -> String {
    format!("SELECT set_config('role', '{role}', true), set_config('{setting}', '{value}', true)")
}
