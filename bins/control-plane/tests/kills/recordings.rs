//! A control plane that is killed while it records a terminal: another one goes on with it once the lease is over, without a
//! gap and without doubling. Two programs, a nats-server of their own, and a real agent that finds the one that lives.

use std::sync::atomic::AtomicBool;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidegate_engines::nats::{Nats, Options};
use tidegate_model::{Payload, SystemClock};
use tidegate_service::{
    BrokerOptions, Caller, Decision, Error, MessagesRead, MessagesWanted, Operator, Services,
};
use tidegate_test_support::{
    BOOTSTRAP_KEY, TestDb, eventually_some,
    nats::{Authority, trust},
};
use tokio::io::copy_bidirectional;

use super::*;

/// Two control planes, and what they share.
struct Pair {
    db: TestDb,
    folder: TempDir,
    addresses: [String; 2],
    /// The use cases in this process.
    services: Services,
    _nats: (Nats, TempDir),
}

impl Pair {
    async fn new() -> Self {
        let (db, folder) = (TestDb::new().await, tempfile::tempdir().unwrap());
        let authority = Authority::generate();
        let mode = Permissions::from_mode(0o711);
        let streams = tempfile::Builder::new().prefix("tg-nats-").permissions(mode).tempdir().unwrap();
        let nats = Nats::start(Options::for_tests(streams.path(), trust(&authority))).await.unwrap();
        let services = db.services_at(Arc::new(SystemClock::new()));
        services.broker.adopt(authority).await.unwrap();
        services.broker.open(BrokerOptions::new([nats.url()])).await.unwrap();
        db.org_with_admin("acme").await;
        let path = |name: &str| folder.path().join(name);
        write_secret(&path("master.key"), &MASTER_KEY);
        write_secret(&path("bootstrap.key"), BOOTSTRAP_KEY.as_bytes());
        let addresses = [free_address(), free_address()];
        for (number, address) in addresses.iter().enumerate() {
            let data = path(&format!("data-{number}"));
            fs::create_dir(&data).unwrap();
            let toml = format!(
                "listen = \"{address}\"\nworkers = 1\ndata_dir = \"{}\"\n[database]\nurl = \"{}\"\n\
                 acquire_timeout_seconds = 30\nlock_timeout_seconds = 60\nstatement_timeout_seconds = 60\n\
                 [secrets]\nmaster_key_file = \"{}\"\nagent_bootstrap_key_file = \"{}\"\n[nats]\nurl = \"{}\"\n",
                data.display(),
                db.app_url().expose(),
                path("master.key").display(),
                path("bootstrap.key").display(),
                nats.url(),
            );
            fs::write(path(&format!("{number}.toml")), toml).unwrap();
        }
        Self { db, folder, addresses, services, _nats: (nats, streams) }
    }

    async fn start(&self, number: usize) -> Program {
        let config = self.folder.path().join(format!("{number}.toml"));
        Program::start(&config, &self.addresses[number]).await
    }

    /// What a balancer does: whoever connects reaches the first that lives.
    async fn balancer(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, all) = (listener.local_addr().unwrap().to_string(), self.addresses.clone());
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    for address in all {
                        if let Ok(mut to) = TcpStream::connect(address).await {
                            // Either side may be killed.
                            drop(copy_bidirectional(&mut from, &mut to).await);
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    /// All that is recorded, in the order of the pipe: what the terminal printed, and what is said between.
    async fn recorded(&self, owner: &Caller) -> (Vec<u8>, Vec<Value>) {
        let (mut bytes, mut told, mut after) = (Vec::new(), Vec::new(), 0);
        loop {
            let wanted = MessagesWanted { read: MessagesRead::After(after), limit: Some(100), wait: None };
            let read = self.services.messages.read(owner.org().unwrap(), "build", "stdout", wanted).await;
            let page = match read {
                // The source is made with the first recording.
                Err(Error::NotFound(_) | Error::NotReady(_)) => return (bytes, told),
                outcome => outcome.unwrap(),
            };
            for message in page.messages {
                match message.envelope.payload {
                    Payload::Bytes(more) => bytes.extend_from_slice(&more),
                    Payload::Text(text) => told.push(serde_json::from_str(&text).unwrap()),
                }
            }
            match page.last {
                Some(last) => after = last,
                None => return (bytes, told),
            }
        }
    }

    async fn lease(&self) -> String {
        self.db.look("SELECT COALESCE(max(lease_holder::text), '') FROM terminal_sources").await
    }
}

/// A real agent, which takes its sessions with it when the test ends.
struct Agent {
    process: std::process::Child,
    _folder: TempDir,
}

impl Agent {
    async fn start(pair: &Pair, server: &str) -> Self {
        // Short, because sockets lie in it; passable, because sessions are users of their own.
        let mode = Permissions::from_mode(0o711);
        let folder = tempfile::Builder::new().prefix("tga").permissions(mode).tempdir_in("/tmp").unwrap();
        let process = std::process::Command::new(Self::program())
            .args(["--server", &format!("http://{server}"), "--agent-id", "real", "--stop-sessions-on-exit"])
            .arg("--data-dir")
            .arg(folder.path().join("agent"))
            .arg("--runtime-dir")
            .arg(folder.path().join("s"))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TIDEGATE_AGENT_BOOTSTRAP_KEY", BOOTSTRAP_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { process, _folder: folder };
        let (operator, handle) = (Operator::console(), "real".parse().unwrap());
        eventually("the agent asks to be let in", async || {
            pair.services.agents.decide(&operator, &handle, Decision::Approve, false).await.is_ok()
        })
        .await;
        agent
    }

    /// It lies beside the program under test. `cargo test --workspace` has built it; otherwise this does.
    fn program() -> std::path::PathBuf {
        static BUILT: AtomicBool = AtomicBool::new(false);
        let folder = Path::new(env!("CARGO_BIN_EXE_tidegate-control-plane")).parent().unwrap();
        let path = folder.join("tidegate-agent");
        if !path.exists() && !BUILT.swap(true, Ordering::SeqCst) {
            let mut build = std::process::Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--package", "tidegate-agent-bin", "--target-dir"]);
            build.arg(folder.parent().unwrap());
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "the agent was not built");
        }
        path
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let id = i32::try_from(self.process.id()).unwrap();
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        drop(self.process.wait());
    }
}

/// Checks that these are the lines that a script prints from the first on, and gives how many there are.
fn lines_of(recorded: &[u8]) -> usize {
    let text = String::from_utf8_lossy(recorded);
    let lines: Vec<&str> = text.split("\r\n").collect();
    for (number, line) in lines.iter().enumerate() {
        let whole = format!("line {}", number + 1);
        let cut = number + 1 == lines.len();
        assert!(*line == whole || (cut && whole.starts_with(line.trim_end_matches('\r'))), "{text:?}");
    }
    lines.len() - 1
}

#[tokio::test]
async fn a_recording_goes_on_at_another_control_plane_when_its_own_is_killed() {
    let pair = Pair::new().await;
    let (first, second) = (pair.start(0).await, pair.start(1).await);
    let balancer = pair.balancer().await;
    let _agent = Agent::start(&pair, &balancer).await;
    let owner = pair.db.user_in("acme", OrgRole::User).await;
    let token = pair.services.logins.login(owner.login(), None).await.unwrap().token;
    let caller = pair.services.logins.authenticate(&token, None).await.unwrap();
    let call = async |method: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let kind = "Content-Type: application/json\r\n";
        ask(&balancer, &token, (method, path), kind, body.as_bytes()).await
    };
    let noted = tempfile::tempdir().unwrap();
    // Sessions are users of their own.
    fs::set_permissions(noted.path(), Permissions::from_mode(0o777)).unwrap();
    let noted = noted.path().join("noted");
    let script = format!(
        "i=0; while :; do i=$((i+1)); echo line $i; echo $i > {0}.new; mv {0}.new {0}; sleep 0.05; done",
        noted.display()
    );
    let printed = || -> usize { fs::read_to_string(&noted).unwrap_or_default().trim().parse().unwrap_or(0) };
    let session = eventually_some("a session is started", async || {
        let body = json!({"template": "command", "command": ["sh", "-c", script]});
        let (status, made) = call("POST", "/api/v1/sessions", body).await?;
        (status == 202).then(|| made["session"]["id"].as_str().unwrap().to_owned())
    })
    .await;
    let path = format!("/api/v1/sessions/{session}");
    let body = json!({"handle": "build"});
    let put = call("PUT", &format!("{path}/terminal-source"), body).await.unwrap();
    assert_eq!(put.0, 200, "{put:?}");
    let lines = async || lines_of(&Box::pin(pair.recorded(&caller)).await.0);
    eventually("the first one records", async || lines().await > 50).await;

    // Killed while it stores: its lease is not given back, and what it stored last stands in no row.
    let holder = pair.lease().await;
    first.kill().await;
    let (stored, at) = (lines().await, printed());
    assert_eq!(pair.lease().await, holder, "nobody let it go");
    eventually("it prints on", async || printed() > at + 50).await;
    eventually("the second one goes on", async || lines().await > at + 50).await;
    assert_ne!(pair.lease().await, holder, "another one has it");
    assert!(lines().await > stored);

    // And back, with the first one started anew.
    let first = pair.start(0).await;
    second.kill().await;
    let at = printed();
    eventually("the first one goes on", async || lines().await > at + 50).await;
    let ended = call("POST", &format!("{path}/terminate"), Value::Null).await.unwrap();
    assert_eq!(ended.0, 202, "{ended:?}");
    let told = eventually_some("the end is marked", async || {
        let (_, told) = Box::pin(pair.recorded(&caller)).await;
        told.iter().any(|said| said.get("end").is_some()).then_some(told)
    })
    .await;
    assert!(lines().await + 1 >= printed(), "all that it noted, but for a line that it was ended before");
    let kinds: Vec<&str> =
        told.iter().flat_map(|said| said.as_object().unwrap().keys()).map(String::as_str).collect();
    assert_eq!(kinds, ["begin", "end"], "no gap, and nothing twice: {told:?}");
    first.kill().await;
}
