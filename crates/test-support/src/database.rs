//! A database per test, cloned from a template that was migrated once.

use std::{
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use tidegate_model::{Clock, DefaultQuota, QuotaLimits, Secret};
use tidegate_persistence::{Db, Options as DbOptions, migrate, roles};
use tidegate_service::{Options, Services};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::{Cluster, ManualClock};

/// The key that agents register with in tests.
pub const BOOTSTRAP_KEY: &str = "b007b007b007b007b007b007b007b007b007b007b007b007b007b007b007b007";
/// The master key of tests.
pub const MASTER_KEY: [u8; 32] = [7; 32];
/// The password of both logins, in clusters that hold nothing but tests.
const PASSWORD: &str = "for-tests-alone";
/// Who prepares the cluster takes this lock ("tidetest" in ASCII).
const LOCK: i64 = 0x7469_6465_7465_7374;

static TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// A migrated database of one test, reached as the plain login role. Dropped with the test where that is possible.
#[derive(Debug)]
pub struct TestDb {
    cluster: &'static Cluster,
    name: String,
    db: Db,
    clock: Arc<ManualClock>,
    services: Services,
}

impl TestDb {
    /// A migrated database with nothing in it.
    pub async fn new() -> Self {
        let cluster = Cluster::shared();
        let template = TEMPLATE.get_or_init(|| prepare(cluster)).await;
        Self::make(cluster, &format!("TEMPLATE {template}")).await
    }

    /// A database without a schema, as on the very first start.
    pub async fn empty() -> Self {
        let cluster = Cluster::shared();
        TEMPLATE.get_or_init(|| prepare(cluster)).await;
        Self::make(cluster, "").await
    }

    async fn make(cluster: &'static Cluster, template: &str) -> Self {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {name} OWNER {} {template}", roles::MIGRATOR);
        cluster.superuser("postgres").await.batch_execute(&create).await.unwrap();
        let options = DbOptions {
            url: Secret::new(cluster.url(roles::APP, PASSWORD, &name)),
            max_connections: 8,
            // A busy machine is slow, and no test waits for these to pass.
            acquire_timeout_seconds: 30,
            statement_timeout_seconds: 60,
            lock_timeout_seconds: 30,
        };
        let db = Db::new(&options).unwrap();
        let clock = Arc::new(ManualClock::new());
        let services = services(&db, Self::options(), Arc::clone(&clock) as Arc<dyn Clock>);
        Self { cluster, name, db, clock, services }
    }

    /// The settings of [`TestDb::services`]: the defaults, [`BOOTSTRAP_KEY`], no limit on attempts and
    /// no quota but those that a test sets.
    pub fn options() -> Options {
        Options {
            agent_bootstrap_key: Some(Secret::new(BOOTSTRAP_KEY.to_owned())),
            failures_per_source: 1_000_000,
            failures_per_subject: 1_000_000,
            logins_per_minute: 1_000_000,
            device_codes_per_source: 1_000_000,
            wrong_user_codes: 1_000_000,
            default_quota: DefaultQuota(QuotaLimits::UNLIMITED),
            sign_ins_per_source: 1_000_000,
            registrations_per_source: 1_000_000,
            pending_agents: 1_000_000,
            ..Options::default()
        }
    }

    /// The pool of the plain login role.
    pub fn db(&self) -> Db {
        self.db.clone()
    }

    /// The use cases, on [`TestDb::manual_clock`].
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// The use cases with other settings, on the same clock.
    pub fn services_with(&self, options: Options) -> Services {
        services(&self.db, options, Arc::clone(&self.clock) as Arc<dyn Clock>)
    }

    /// The use cases with other settings and another clock.
    pub fn services_with_clock(&self, options: Options, clock: Arc<dyn Clock>) -> Services {
        services(&self.db, options, clock)
    }

    /// The use cases with another clock.
    pub fn services_at(&self, clock: Arc<dyn Clock>) -> Services {
        services(&self.db, Self::options(), clock)
    }

    /// The clock of [`TestDb::services`].
    pub fn manual_clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plain login role's URL.
    pub fn app_url(&self) -> Secret<String> {
        Secret::new(self.cluster.url(roles::APP, PASSWORD, &self.name))
    }

    /// The URL of the schema's owner.
    pub fn migrator_url(&self) -> Secret<String> {
        Secret::new(self.cluster.url(roles::MIGRATOR, PASSWORD, &self.name))
    }

    /// A connection that sees every row, to look behind the curtain.
    pub async fn superuser(&self) -> Client {
        self.cluster.superuser(&self.name).await
    }

    /// A bare connection of the plain login role.
    pub async fn app(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(self.app_url().expose(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        client
    }

    /// The first column of a query's only row, as the superuser sees it.
    pub async fn look<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> T {
        self.superuser()
            .await
            .query_one(sql, &[])
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
            .get(0)
    }

    /// Runs statements as the superuser.
    pub async fn execute(&self, sql: &str) {
        self.superuser().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Kills every backend of the login role in this database, and says how many there were.
    pub async fn kill_connections(&self) -> i64 {
        let sql = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
                   WHERE datname = current_database() AND usename = $1";
        self.superuser().await.query_one(sql, &[&roles::APP]).await.unwrap().get(0)
    }

    /// Takes the database away until [`Outage::end`]: no new connection, and the old ones are killed.
    pub async fn outage(&self) -> Outage<'_> {
        // From another database: nobody may connect to this one any more, not even the superuser.
        let client = self.cluster.superuser("postgres").await;
        client.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name)).await.unwrap();
        let sql = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE datname = $1";
        client.query_one(sql, &[&self.name]).await.unwrap();
        Outage { test: self, client }
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (cluster, name) = (self.cluster, self.name.clone());
        // Whoever is last loses the race with the end of the process; then the cluster goes as a whole.
        cluster.runtime().spawn(async move {
            let drop_it = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            drop(cluster.superuser("postgres").await.batch_execute(&drop_it).await);
        });
    }
}

/// A database that nobody can connect to.
pub struct Outage<'a> {
    test: &'a TestDb,
    client: Client,
}

impl std::fmt::Debug for Outage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outage").field("database", &self.test.name).finish()
    }
}

impl Outage<'_> {
    /// Gives the database back.
    pub async fn end(self) {
        let allow = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.test.name);
        self.client.batch_execute(&allow).await.unwrap();
    }
}

fn services(db: &Db, options: Options, clock: Arc<dyn Clock>) -> Services {
    Services::new(db.clone(), &Secret::new(MASTER_KEY), options, clock).unwrap()
}

/// Sets roles and template up, once per cluster and schema, whoever of the suite's processes comes first.
async fn prepare(cluster: &Cluster) -> String {
    let mut hasher = DefaultHasher::new();
    migrate::fingerprint().unwrap().hash(&mut hasher);
    let name = format!("tidegate_template_{:016x}", hasher.finish());
    let client = cluster.superuser("postgres").await;
    // The lock goes with the client.
    client.batch_execute(&format!("SELECT pg_advisory_lock({LOCK})")).await.unwrap();
    let mut setup = roles::SQL.to_owned();
    for role in [roles::APP, roles::MIGRATOR] {
        write!(setup, "ALTER ROLE {role} PASSWORD '{PASSWORD}';").unwrap();
    }
    client.batch_execute(&setup).await.unwrap();
    let found = client.query("SELECT 1 FROM pg_database WHERE datname = $1", &[&name]).await.unwrap();
    if found.is_empty() {
        // Under another name until it is whole.
        let draft = format!("{name}_draft");
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)")).await.unwrap();
        client.batch_execute(&format!("CREATE DATABASE {draft} OWNER {}", roles::MIGRATOR)).await.unwrap();
        let url = Secret::new(cluster.url(roles::MIGRATOR, PASSWORD, &draft));
        migrate::run(&url).await.unwrap_or_else(|error| panic!("the migrations run: {error}"));
        client.batch_execute(&format!("ALTER DATABASE {draft} RENAME TO {name}")).await.unwrap();
    }
    name
}
