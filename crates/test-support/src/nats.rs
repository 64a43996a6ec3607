//! The one nats-server of a test process, and accounts in it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

pub use async_nats::{Client, HeaderMap};
use async_nats::{ConnectError, ConnectOptions, Event};
use tempfile::TempDir;
use tidegate_broker::{AccountAuthority, Limits, OrgAccount, OrgBroker, Permissions as Rights, System};
/// What tests sign in to NATS with.
pub use tidegate_broker::{Authority, Seed, UserKey};
use tidegate_engines::nats::{Nats, Options, Trust};
use tidegate_model::{Clock, SystemClock};
use uuid::Uuid;

/// A nats-server for tests, and whom it trusts.
#[derive(Debug)]
pub struct TestNats {
    /// Where it listens.
    pub url: String,
    /// Whom it trusts.
    pub authority: Arc<Authority>,
}

static SHARED: OnceLock<TestNats> = OnceLock::new();

impl TestNats {
    /// The server of this process; started by the first test that asks. It ends with the process.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| {
            let authority = Arc::new(Authority::generate());
            let (sender, ready) = mpsc::channel();
            let trusted = Arc::clone(&authority);
            thread::Builder::new()
                .name("tidegate-test-nats".into())
                .spawn(move || keep(&trusted, &sender))
                .unwrap();
            let url = ready.recv().expect("nats-server for the tests starts, see above");
            Self { url, authority }
        })
    }

    /// How to reach it.
    pub fn options(&self) -> tidegate_broker::Options {
        tidegate_broker::Options::new([self.url.clone()])
    }

    /// A connection to the system account.
    pub async fn system(&self) -> System {
        System::connect(&self.options(), Arc::clone(&self.authority), clock())
            .await
            .expect("the system account")
    }

    /// A new organization with an account that the server knows.
    pub async fn organization(&self) -> TestOrgAccount {
        self.organization_with(Limits::default()).await
    }

    /// A new organization with an account of these limits that the server knows.
    pub async fn organization_with(&self, limits: Limits) -> TestOrgAccount {
        let organization = Uuid::new_v4();
        let account = OrgAccount { organization, authority: AccountAuthority::generate() };
        let claims = account.authority.claims(organization, limits);
        let token = self.authority.sign_account(&claims, clock().now()).unwrap();
        self.system().await.push(&token).await.unwrap();
        let broker = OrgBroker::connect(&self.options(), account.clone(), clock()).await.unwrap();
        TestOrgAccount { account, broker, url: self.url.clone() }
    }
}

/// An organization's account on the test server.
#[derive(Debug)]
pub struct TestOrgAccount {
    /// Its keys.
    pub account: OrgAccount,
    /// A connection of ours.
    pub broker: OrgBroker,
    url: String,
}

impl TestOrgAccount {
    /// A real client with these rights and its own inbox prefix, as a user's program would connect.
    pub async fn client(&self, rights: &Rights, inbox_prefix: &str) -> Client {
        self.client_with(rights, inbox_prefix, drop).await
    }

    /// Like [`TestOrgAccount::client`], and tells what happens to the connection.
    pub async fn client_with(
        &self,
        rights: &Rights,
        inbox_prefix: &str,
        tell: impl Fn(Event) + Send + Sync + 'static,
    ) -> Client {
        let key = UserKey::generate();
        self.client_as_with(&key, rights, inbox_prefix, tell).await.expect("the user connects")
    }

    /// Like [`TestOrgAccount::client`], with a key that can be revoked, and with the refusal of the server.
    pub async fn client_as(
        &self,
        key: &UserKey,
        rights: &Rights,
        inbox_prefix: &str,
    ) -> Result<Client, ConnectError> {
        self.client_as_with(key, rights, inbox_prefix, drop).await
    }

    /// Like [`TestOrgAccount::client_as`], and tells what happens to the connection.
    pub async fn client_as_with(
        &self,
        key: &UserKey,
        rights: &Rights,
        inbox_prefix: &str,
        tell: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Client, ConnectError> {
        let now = clock().now();
        let lifetime = chrono::TimeDelta::minutes(5);
        let token = self.account.authority.mint(key.public(), "test", rights, now, lifetime).unwrap();
        let options = with_credentials(token.as_str(), key, inbox_prefix).event_callback(move |event| {
            tell(event);
            std::future::ready(())
        });
        options.connect(&self.url).await
    }
}

/// Connects with a token and its seed, as a user's program would.
pub async fn connect(
    url: &str,
    token: &str,
    key: &UserKey,
    inbox_prefix: &str,
) -> Result<Client, ConnectError> {
    with_credentials(token, key, inbox_prefix).connect(url).await
}

fn with_credentials(token: &str, key: &UserKey, inbox_prefix: &str) -> ConnectOptions {
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        key.seed().unwrap().expose()
    );
    ConnectOptions::with_credentials(&credentials).unwrap().custom_inbox_prefix(inbox_prefix)
}

/// What the engine has to know of an authority.
pub fn trust(authority: &Authority) -> Trust {
    let tidegate_broker::Trust { operator, system_account, system_token } =
        authority.trust(clock().now()).unwrap();
    Trust { operator, system_account, system_token }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// Runs on a thread of its own until the process ends.
fn keep(authority: &Authority, ready: &mpsc::Sender<String>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = folder();
        let nats = Nats::start(Options::for_tests(folder.path(), trust(authority)))
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let janitor = clean_up_after_this_process(folder.path());
        ready.send(nats.url()).unwrap();
        std::future::pending::<()>().await;
        drop((nats, janitor, folder));
    });
}

fn folder() -> TempDir {
    // The server's user passes through it when the tests run as root.
    tempfile::Builder::new().prefix("tg-nats-").permissions(Permissions::from_mode(0o711)).tempdir().unwrap()
}

/// Nothing runs at the end of a test process: the server ends by itself, and a shell that notices removes its folder.
fn clean_up_after_this_process(folder: &Path) -> Child {
    let script = r#"cat; n=0; read -r pid <"$1/data/nats/nats-server.pid"
        while kill -0 "$pid" 2>/dev/null && [ $n -lt 200 ]; do sleep 0.1; n=$((n+1)); done
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
