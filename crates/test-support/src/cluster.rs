//! The one PostgreSQL of a run: the suite's, when [`URL_VARIABLE`] names it, else a private one of this process.

use std::{
    fs::Permissions,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
};

use tempfile::TempDir;
use tidegate_engines::postgres::{Options, Postgres};
use tokio::runtime::Handle;
use tokio_postgres::{Client, Config, NoTls, config::Host};

/// Names a superuser's URL of a cluster that is there for tests alone: `with-database` sets it.
pub const URL_VARIABLE: &str = "TIDEGATE_TEST_DATABASE_URL";

/// The cluster that every test of this process uses.
#[derive(Debug)]
pub struct Cluster {
    superuser: Config,
    /// Outlives every test's runtime.
    runtime: Handle,
}

static SHARED: OnceLock<Cluster> = OnceLock::new();

impl Cluster {
    /// The cluster; starts it when this is the first test that asks.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| {
            #[expect(clippy::disallowed_methods, reason = "tests have no binary that could read it for them")]
            let given = std::env::var(URL_VARIABLE).ok();
            let (sender, ready) = mpsc::channel();
            thread::Builder::new()
                .name("tidegate-test-cluster".into())
                .spawn(move || keep(given, &sender))
                .unwrap();
            let (url, runtime) = ready.recv().expect("PostgreSQL for the tests starts, see above");
            Self { superuser: url.parse().expect("a superuser's URL"), runtime }
        })
    }

    /// A connection of the superuser, whom row-level security does not bind. It ends with the client.
    pub async fn superuser(&self, database: &str) -> Client {
        let mut config = self.superuser.clone();
        config.dbname(database);
        let (client, connection) = config.connect(NoTls).await.expect("the superuser connects");
        // Ends when the client is dropped; how is of no interest.
        tokio::spawn(async move { drop(connection.await) });
        client
    }

    /// The URL of a role in a database.
    pub fn url(&self, role: &str, password: &str, database: &str) -> String {
        let host = match self.superuser.get_hosts().first() {
            Some(Host::Unix(folder)) => escape(&folder.to_string_lossy()),
            Some(Host::Tcp(name)) => name.clone(),
            None => "localhost".to_owned(),
        };
        let port = self.superuser.get_ports().first().copied().unwrap_or(5_432);
        format!("postgres://{role}:{password}@{host}:{port}/{database}")
    }

    /// The superuser's URL in a database, for programs that want one.
    pub fn superuser_url(&self, database: &str) -> String {
        let password = self.superuser.get_password().unwrap_or_default();
        let user = self.superuser.get_user().unwrap_or("postgres");
        self.url(user, &String::from_utf8_lossy(password), database)
    }

    /// Work that may outlive the test that asks for it.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// A bare connection to any address. It ends with the client.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the address answers");
    tokio::spawn(async move { drop(connection.await) });
    client
}

fn escape(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Runs on a thread of its own until the process ends.
fn keep(given: Option<String>, ready: &mpsc::Sender<(String, Handle)>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let kept = if let Some(url) = given {
            ready.send((url, Handle::current())).unwrap();
            None
        } else {
            let cluster = PrivateCluster::start().await;
            let janitor = clean_up_after_this_process(cluster.folder.path());
            ready.send((cluster.superuser_url(), Handle::current())).unwrap();
            Some((cluster, janitor))
        };
        std::future::pending::<()>().await;
        drop(kept);
    });
}

/// Nothing runs at the end of a test process: the server ends by itself, and a shell that notices removes its folder.
fn clean_up_after_this_process(folder: &Path) -> Child {
    let script = r#"cat; n=0
        while [ -e "$1/data/postgres/postmaster.pid" ] && [ $n -lt 200 ]; do sleep 0.1; n=$((n+1)); done
        rm -rf -- "$1""#;
    Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C is for the tests; this still has something to do then.
        .process_group(0)
        .spawn()
        .unwrap()
}

/// A cluster that is stopped, and its folder removed, by whoever started it.
#[derive(Debug)]
pub struct PrivateCluster {
    postgres: Postgres,
    folder: TempDir,
}

impl PrivateCluster {
    /// Makes and starts a cluster in a folder of its own.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tg-test-")
            // The database's user passes through it when the tests run as root.
            .permissions(Permissions::from_mode(0o711))
            // A socket's path is short, whatever TMPDIR says.
            .tempdir_in("/tmp")
            .unwrap();
        let options = Options { max_connections: 300, ..Options::for_tests(folder.path()) };
        let postgres = Postgres::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        Self { postgres, folder }
    }

    /// The superuser's URL.
    pub fn superuser_url(&self) -> String {
        self.postgres.superuser_url("postgres")
    }

    /// Stops the server and removes its folder.
    pub async fn stop(self) {
        self.postgres.stop().await.unwrap_or_else(|error| panic!("{error}"));
        self.folder.close().unwrap();
    }
}
