//! What is answered while PostgreSQL hangs or is gone, and that nobody has to do anything when it is back.

use std::{
    fs::Permissions,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_control_plane::{Config, Error, run};
use tidegate_engines::postgres::{Access, Options};
use tidegate_test_support::{FrozenPostgres, connect, eventually, postmaster};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    support::{Answer, ask},
    walls::{OPEN, fill, operations},
};

/// The longest wait for an answer that says that the database does not answer.
const LONGEST: Duration = Duration::from_secs(3);

/// The program with its private PostgreSQL, and somebody who is logged in.
struct Program {
    folder: TempDir,
    address: SocketAddr,
    token: String,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

impl Program {
    async fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("tg-out-")
            // The database's user passes through it when the tests run as root.
            .permissions(Permissions::from_mode(0o711))
            .tempdir_in("/tmp")
            .unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let toml = format!("listen = '{address}'\nworkers = 1\n[database]\nacquire_timeout_seconds = 1");
        let mut config = Config::from_parts(&toml, &[]).unwrap();
        config.data_dir = Some(folder.path().join("data"));
        config.run_dir = Some(folder.path().join("run"));
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(config, shutdown.clone()));
        let mut program = Self { folder, address, token: String::new(), shutdown, running };
        eventually("it serves", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
        let password = "tidewater gate";
        let setup = json!({"password": password, "passwordConfirm": password, "email": "a@example.com"});
        assert_eq!(program.call("POST", "/api/v1/auth/setup", setup).await.0.status, 200);
        let login = json!({"username": "admin", "password": password});
        let (tokens, _) = program.call("POST", "/api/v1/auth/login", login).await;
        tokens.body["token"].as_str().unwrap().clone_into(&mut program.token);
        program
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (Answer, Duration) {
        let started = Instant::now();
        let headers =
            [("Authorization", format!("Bearer {}", self.token)), ("X-Agent-API-Key", "ab".repeat(32))];
        let answer = ask(self.address, method, path, &headers, body.to_string().as_bytes()).await;
        (answer, started.elapsed())
    }

    fn data(&self) -> PathBuf {
        let data = self.folder.path().join("data/postgres");
        assert!(data.join("postmaster.pid").exists(), "the cluster is in {}", data.display());
        data
    }

    async fn recovers(&self) {
        eventually("it serves again", async || {
            self.call("GET", "/api/v1/users/me", Value::Null).await.0.status == 200
        })
        .await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// Every operation that wants a credential.
fn guarded() -> Vec<(String, String)> {
    let open = |method: &str, path: &str| OPEN.iter().any(|(known, _)| *known == format!("{method} {path}"));
    operations().into_iter().filter(|(method, path)| !open(method, path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_503_everywhere_within_three_seconds() {
    let program = Program::start().await;
    let frozen = FrozenPostgres::freeze(&program.data());
    // Few at a time: connections of the pool are met that are open, and none that are.
    for some in guarded().chunks(30) {
        let asked = some.iter().map(async |(method, path)| {
            let body = body_of(path);
            // A webhook has no credential that could be asked for before its path is read.
            let id = if path.ends_with("/webhook") { "1" } else { "01890000-0000-7000-8000-000000000000" };
            let path = fill(path, id) + agent_id(path);
            let (answer, took) = program.call(method, &path, body).await;
            assert_eq!(answer.status, 503, "{method} {path}: {answer:?}");
            answer.refused(503, "E_UNAVAILABLE");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            assert!(took < LONGEST, "{method} {path} took {took:?}");
        });
        join_all(asked).await;
    }
    drop(frozen);
    program.recovers().await;
    program.stop().await;
}

/// What agents have to say before their key is asked for.
fn body_of(path: &str) -> Value {
    match path.rsplit('/').next() {
        Some("register") => json!({"agentId": "vm-1", "platform": "vm"}),
        Some("heartbeat") => json!({"status": "online", "activeSessions": 0}),
        _ => json!({}),
    }
}

/// What an agent's dial has to say, before its key is asked for.
fn agent_id(path: &str) -> &'static str {
    if path.ends_with("/agents/connect") { "?agent_id=vm-1" } else { "" }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_under_way_when_the_database_hangs_is_503_and_done_when_it_goes_on() {
    let program = Program::start().await;
    let options = Options::new(program.folder.path().join("data"), program.folder.path().join("run"));
    let superuser = connect(&Access::to_running(&options).unwrap().superuser_url("tidegate")).await;
    // Held, so that the change is in the middle of its transaction when everything stops.
    superuser.batch_execute("BEGIN; SELECT 1 FROM organizations FOR UPDATE").await.unwrap();
    let body = json!({"displayName": "Changed meanwhile"});
    let change = program.call("PATCH", "/api/v1/organizations/main", body);
    let freeze = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        eventually("the change waits", async || {
            superuser.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
        FrozenPostgres::freeze(&program.data())
    };
    let ((answer, took), frozen) = tokio::join!(change, freeze);
    answer.refused(503, "E_UNAVAILABLE");
    // The database may have answered once before it hung.
    assert!(took < LONGEST + LONGEST, "{took:?}");
    drop(frozen);
    superuser.batch_execute("COMMIT").await.unwrap();
    eventually("the change was not left in the middle", async || {
        let (now, _) = program.call("GET", "/api/v1/organizations/main", Value::Null).await;
        now.body["displayName"] == "Changed meanwhile"
    })
    .await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_is_503_until_it_is_back_by_itself() {
    let program = Program::start().await;
    let before = postmaster(&program.data());
    nix::sys::signal::kill(before, nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut seen = Vec::new();
    eventually("it was away and is back", async || {
        let (answer, took) = program.call("GET", "/api/v1/users/me", Value::Null).await;
        assert!(took < LONGEST, "{took:?}");
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        seen.push(answer.status);
        answer.status == 200 && postmaster_of(&program).is_some_and(|now| now != before)
    })
    .await;
    program.recovers().await;
    program.stop().await;
}

fn postmaster_of(program: &Program) -> Option<nix::unistd::Pid> {
    program.folder.path().join("data/postgres/postmaster.pid").exists().then(|| postmaster(&program.data()))
}
