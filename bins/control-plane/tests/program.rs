//! The program itself: how it ends when it is told to.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tidegate_model::{OrgRole, SystemClock};
use tidegate_protocol::ToAgent;
use tidegate_test_support::{
    MASTER_KEY, SocketAgent, SocketOptions, TestDb, eventually, free_port, new_key_of,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A running program on a database of its own, which is patient with requests.
struct Program {
    child: Child,
    address: String,
    _folder: TempDir,
    _db: Arc<TestDb>,
}

impl Program {
    async fn start() -> Self {
        Self::on(Arc::new(TestDb::new().await)).await
    }

    /// One of several on the same database and master key.
    async fn on(db: Arc<TestDb>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("master.key");
        fs::write(&key, MASTER_KEY).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let toml = format!(
            "listen = \"{address}\"\nworkers = 1\n[database]\nurl = \"{}\"\n\
             acquire_timeout_seconds = 30\nlock_timeout_seconds = 30\nstatement_timeout_seconds = 60\n[secrets]\nmaster_key_file = \"{}\"\n\
             [limits]\nshutdown_seconds = 600\nbody_seconds = 600\n",
            db.app_url().expose(),
            key.display()
        );
        let config = folder.path().join("control-plane.toml");
        fs::write(&config, toml).unwrap();
        // As most machines start programs: with a soft limit of open files far below the hard one.
        let child = Command::new("sh")
            .args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tidegate-control-plane")])
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let program = Self { child, address, _folder: folder, _db: db };
        eventually("it serves", async || TcpStream::connect(&program.address).await.is_ok()).await;
        program
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()), signal).unwrap();
    }

    /// A request whose body is on its way for ever.
    async fn endless_request(&self) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server asks for the body: it is in the middle of the request.
        let mut asked = [0; 12];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100");
        stream
    }

    /// Status and body of one request that changes something.
    async fn call(&self, path: &str, token: &str, body: &str) -> (u16, String) {
        self.ask("POST", path, token, body).await
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// A WebSocket, with the credential that is wanted there.
    async fn socket(&self, path: &str, header: &'static str, value: &str) -> Socket {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        request.headers_mut().insert(header, value.parse().unwrap());
        connect_async(request).await.unwrap().0
    }

    async fn ended(&mut self, within: Duration) -> Option<i32> {
        timeout(within, self.child.wait()).await.ok().and_then(|status| status.unwrap().code())
    }
}

#[tokio::test]
async fn the_first_signal_waits_for_requests_and_the_second_does_not() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut program = Program::start().await;
        let _request = program.endless_request().await;
        program.signal(signal);
        eventually("it takes no new connection", async || {
            TcpStream::connect(&program.address).await.is_err()
        })
        .await;
        assert_eq!(program.ended(Duration::from_millis(500)).await, None, "it waits for the request");
        program.signal(signal);
        assert_eq!(program.ended(Duration::from_secs(5)).await, Some(1), "{signal}");
        let mut said = String::new();
        program.child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        assert!(said.contains("second signal, not waiting any longer"), "{said}");
    }
}

#[tokio::test]
async fn it_opens_as_many_files_as_the_machine_lets_it() {
    let program = Program::start().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", program.child.id().unwrap())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = [3, 4].map(|at| line.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap());
    assert_eq!(soft, hard.min(1 << 20), "{line}");
}

#[tokio::test]
async fn one_signal_is_enough_where_nothing_is_under_way() {
    let mut program = Program::start().await;
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended(Duration::from_secs(30)).await, Some(0));
}

#[tokio::test]
async fn two_programs_on_one_database_give_exactly_what_the_quota_allows() {
    let db = Arc::new(TestDb::new().await);
    let org = db.org_with_admin("acme").await;
    let user = db.user_in("acme", OrgRole::User).await;
    let agent = db.online_agent("vm-1", 1_000).await;
    // Both programs go by the real time, and nobody sends heartbeats.
    db.execute("UPDATE agents SET last_heartbeat = now() + interval '1 hour'").await;
    let programs = [Program::on(Arc::clone(&db)).await, Program::on(Arc::clone(&db)).await];
    let login =
        serde_json::json!({"username": user.username, "password": user.password.expose()}).to_string();
    let (status, body) = programs[0].call("/api/v1/auth/login", "", &login).await;
    assert_eq!(status, 200, "{body}");
    let token =
        serde_json::from_str::<serde_json::Value>(&body).unwrap()["token"].as_str().unwrap().to_owned();
    let creates = (0..32)
        .map(|number| programs[number % 2].call("/api/v1/sessions", &token, r#"{"template": "shell"}"#));
    let answers = futures_util::future::join_all(creates).await;
    let made = answers.iter().filter(|(status, _)| *status == 202).count();
    let held =
        answers.iter().filter(|(status, body)| *status == 403 && body.contains("E_QUOTA_EXCEEDED")).count();
    assert_eq!((made, held), (5, 27), "{answers:?}");
    assert_eq!(db.look::<i64>("SELECT count(*) FROM sessions").await, 5);
    drop((org, agent));
}

#[tokio::test]
async fn what_one_program_is_asked_to_end_another_cuts_within_a_second() {
    let db = Arc::new(TestDb::new().await);
    let org = db.org_with_admin("acme").await;
    let user = db.user_in("acme", OrgRole::User).await;
    // The programs go by the real time.
    let services = db.services_at(Arc::new(SystemClock::new()));
    let key = new_key_of(&services, "vm-1", 10).await;
    let [here, there] = [Program::on(Arc::clone(&db)).await, Program::on(Arc::clone(&db)).await];
    let url = format!("ws://{}", here.address);
    let options = SocketOptions { url, handle: "vm-1".into(), key: key.clone(), hello: true };
    let agent = SocketAgent::connect(options).await.unwrap();
    let login =
        serde_json::json!({"username": user.username, "password": user.password.expose()}).to_string();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let (_, login) = there.call("/api/v1/auth/login", "", &login).await;
    let token = json(&login)["token"].as_str().unwrap().to_owned();
    // Made by the one, run by an agent of the other.
    let mut made = (0, String::new());
    eventually("the agent has a place", async || {
        made = there.call("/api/v1/sessions", &token, r#"{"template": "shell"}"#).await;
        made.0 == 202
    })
    .await;
    let path = format!("/api/v1/sessions/{}", json(&made.1)["session"]["id"].as_str().unwrap());
    let mut slowest = Duration::ZERO;
    eventually("it runs", async || {
        let since = Instant::now();
        let (_, session) = there.ask("GET", &path, &token, "").await;
        slowest = slowest.max(since.elapsed());
        json(&session)["state"] == "running"
    })
    .await;
    let (terminal, bearer) = (format!("{path}/terminal"), format!("Bearer {token}"));
    let dialled = async || {
        let asked = |message: &ToAgent| match message {
            ToAgent::TunnelOpen(open) => Some(open.tunnel_id.as_str().to_owned()),
            _ => None,
        };
        let id = agent.told("a tunnel is asked for", asked).await;
        let path = format!("/api/v1/agents/tunnels/{id}?agent_id=vm-1");
        here.socket(&path, "X-Agent-API-Key", key.expose()).await
    };
    let (mut viewer, mut tunnel) = tokio::join!(here.socket(&terminal, "Authorization", &bearer), dialled());
    viewer.send(Message::binary("before")).await.unwrap();
    assert_eq!(tunnel.next().await.unwrap().unwrap(), Message::binary("before"));
    let since = Instant::now();
    let (status, said) = there.call(&format!("{path}/disconnect"), &token, "{}").await;
    assert_eq!(status, 204, "{said}");
    slowest = slowest.max(since.elapsed());
    let cut = async {
        loop {
            if let Message::Close(close) = viewer.next().await.unwrap().unwrap() {
                return close.map(|close| u16::from(close.code));
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(30), cut).await.unwrap(), Some(1_008));
    let (took, within) = (since.elapsed(), Duration::from_secs(1) + 2 * slowest);
    assert!(took < within, "{took:?} of {within:?}");
    let ends = async { while let Some(Ok(_)) = tunnel.next().await {} };
    timeout(Duration::from_secs(30), ends).await.unwrap();
    let (_, session) = here.ask("GET", &path, &token, "").await;
    assert_eq!(json(&session)["state"], "running", "the session goes on");
    drop((org, services));
}
