//! A control plane and an agent of one test, in a folder of their own. Whatever they start ends with the test.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command as Plain, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::interval,
};

/// How long a start may take on a busy machine.
const CALM: Duration = Duration::from_mins(2);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where programs are, nats-server wherever the test finds it.
fn path() -> std::ffi::OsString {
    let mut path = std::ffi::OsString::from(PATH);
    if let Some(own) = std::env::var_os("PATH") {
        path.push(":");
        path.push(own);
    }
    path
}

/// The other programs lie beside the one under test. `cargo test --workspace` has built them; otherwise this does.
fn program(name: &str, package: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    let path = folder.join(name);
    if !path.exists() {
        let mut build = Plain::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", package, "--target-dir"]).arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "{package} was not built");
    }
    path
}

/// One program that is killed and started again.
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    pub(crate) fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(&self.path)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Whether it accepts connections at `address`; false when it ended instead.
    async fn listens(&mut self, address: SocketAddr) -> bool {
        let began = Instant::now();
        let mut look = interval(Duration::from_millis(50));
        loop {
            look.tick().await;
            if TcpStream::connect(address).await.is_ok() {
                return true;
            }
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            assert!(began.elapsed() < CALM, "it does not listen: {}", self.said());
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }
}

pub(crate) struct Stand {
    pub(crate) agent: Program,
    pub(crate) control_plane: Program,
    pub(crate) url: String,
    folder: TempDir,
}

impl Stand {
    /// Both programs running, the agent let in, and `admin` logged in.
    pub(crate) async fn start() -> Self {
        let mut stand = Self::without_agent().await;
        stand.let_agent_in().await;
        stand
    }

    /// The control plane running, and `admin` logged in.
    pub(crate) async fn without_agent() -> Self {
        // Short, because sockets lie in it; passable, because the database and the sessions are users of their own.
        let folder = tempfile::Builder::new().prefix("tgl").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let root = folder.path().to_owned();
        let address = free_address();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let config = text(root.join("control-plane.toml"));
        let data = text(root.join("data"));
        let settings = format!("data_dir = \"{data}\"\nrun_dir = \"{}\"\n", text(root.join("run")));
        fs::write(&config, format!("listen = \"{address}\"\n{settings}")).unwrap();
        let url = format!("http://{address}");
        let new = |name: &str, path: PathBuf, arguments: Vec<String>| Program {
            path,
            arguments,
            log: root.join(format!("{name}.log")),
            child: None,
        };
        let path = program("tidegate-control-plane", "tidegate-control-plane");
        let control_plane = new("tidegate-control-plane", path, vec!["--config".into(), config.clone()]);
        let key = text(root.join("data/secrets/agent-bootstrap-key"));
        let agent =
            ["--server", &url, "--agent-id", "live-agent", "--bootstrap-key-file", &key, "--data-dir"];
        let mut agent: Vec<String> = agent.map(str::to_owned).to_vec();
        agent.extend([text(root.join("agent")), "--runtime-dir".into(), text(root.join("s"))]);
        // However few cores the machine of the test has.
        agent.extend(["--cpu", "64", "--memory", "64Gi"].map(str::to_owned));
        // Found, or built, by those who let it in.
        let agent = new("tidegate-agent", PathBuf::new(), agent);
        let mut stand = Self { agent, control_plane, url, folder };
        stand.set_up(&config).await;
        stand
    }

    async fn set_up(&mut self, config: &str) {
        let admin = program("tidegate-admin", "tidegate-admin");
        let password = self.folder.path().join("password");
        let password = password.to_str().unwrap();
        self.control_plane.start();
        let address = self.url.trim_start_matches("http://").parse().unwrap();
        assert!(self.control_plane.listens(address).await, "it ended: {}", self.control_plane.said());
        let words = ["--config", config, "bootstrap", "--password-file", password];
        self.succeeds(&admin, &words).await;
        let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        self.succeeds(tidegate, &["login", "--username", "admin", "--password-file", password]).await;
    }

    async fn let_agent_in(&mut self) {
        let admin = program("tidegate-admin", "tidegate-admin");
        let tidegate = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        let config = self.folder.path().join("control-plane.toml");
        let config = config.to_str().unwrap();
        self.agent.path = program("tidegate-agent", "tidegate-agent-bin");
        // Who answers has written the key that the agent reads at its start.
        self.agent.start();
        self.succeeds(&admin, &["--config", config, "agents", "approve", "live-agent"]).await;
        // The first session goes to an agent that is there.
        self.succeeds(tidegate, &["run", "command", "--", "true"]).await;
    }

    /// Calls a program until it succeeds.
    async fn succeeds(&self, program: &Path, words: &[&str]) {
        let began = Instant::now();
        let mut look = interval(Duration::from_millis(200));
        loop {
            look.tick().await;
            let mut command = Command::new(program);
            command.args(words).env_clear().env("PATH", path()).stdin(Stdio::null()).kill_on_drop(true);
            command.env("TIDEGATE_URL", &self.url).env("XDG_CONFIG_HOME", self.home());
            let output = command.output().await.unwrap();
            if output.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(began.elapsed() < CALM, "{words:?}: {said}");
        }
    }

    /// The program under test, as `admin`.
    pub(crate) fn tidegate(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(words).env_clear().env("PATH", PATH).stdin(Stdio::null()).kill_on_drop(true);
        command.env("TIDEGATE_URL", &self.url).env("XDG_CONFIG_HOME", self.home());
        command
    }

    /// A file of the test's own.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Where the login is kept.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A member of the organization, who is logged in in a home of their own.
    pub(crate) async fn member(&self, name: &str) -> PathBuf {
        let home = self.folder.path().join(name);
        fs::create_dir(&home).unwrap();
        let password = home.join("password");
        fs::write(&password, "a quay of their own").unwrap();
        let password = password.to_str().unwrap();
        let email = format!("{name}@example.org");
        let made = ["users", "create", name, "--email", &email, "--password-file", password];
        let (_, said, code) = self.run(&self.home(), &made).await;
        assert_eq!(code, Some(0), "{said}");
        let (_, said, code) =
            self.run(&home, &["login", "--username", name, "--password-file", password]).await;
        assert_eq!(code, Some(0), "{said}");
        home
    }

    /// Runs the program under test without a terminal; gives what it wrote, what it said, and its exit code.
    pub(crate) async fn run(&self, home: &Path, words: &[&str]) -> (Vec<u8>, String, Option<i32>) {
        let mut command = self.command(home, words);
        let output = command.output().await.unwrap();
        (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
    }

    /// The program under test, to be started without a terminal.
    pub(crate) fn command(&self, home: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(words).env_clear().env("PATH", path()).stdin(Stdio::null()).kill_on_drop(true);
        command.env("TIDEGATE_URL", &self.url).env("XDG_CONFIG_HOME", home);
        command
    }

    /// A place for files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The shims and the programs of the agent's sessions.
    fn processes_of_sessions(&self) -> Vec<String> {
        let agent = self.folder.path().join("agent");
        let home = [b"HOME=", agent.as_os_str().as_encoded_bytes()].concat();
        let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let ours = |process: &PathBuf| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            fs::read_link(process.join("fd/2")).is_ok_and(|log| log.starts_with(&agent))
                || environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(&home))
        };
        entries.filter(ours).filter_map(|process| Some(process.file_name()?.to_str()?.to_owned())).collect()
    }
}

/// A port below those that the kernel gives to outgoing connections: nobody else takes it meanwhile but another test, and
/// those each look at another place first.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 8_000).unwrap();
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

fn send(signal: &str, pid: &str) {
    let _ = Plain::new("kill").args([signal, pid]).stderr(Stdio::null()).status();
}

/// Sends a signal and waits for the end of the process, however it comes.
fn ends(pid: &str, signal: &str, limit: Duration) {
    let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) else { return };
    // Opened before the signal: a number may be a stranger's later, this is not.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    send(signal, &pid.as_raw_nonzero().to_string());
    let limit = Timespec::try_from(limit).unwrap();
    let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit));
}

/// Whether a process is this cluster's: the file that names it outlives it, and its number may be a stranger's by now.
fn is_of(postmaster: &str, cluster: &Path) -> bool {
    let command = fs::read(format!("/proc/{postmaster}/cmdline")).unwrap_or_default();
    !postmaster.is_empty()
        && command.split(|byte| *byte == 0).any(|part| part == cluster.as_os_str().as_encoded_bytes())
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.child.take() {
            let _ = agent.start_kill();
        }
        for pid in self.processes_of_sessions() {
            send("-KILL", &pid);
        }
        // The control plane ends its database; where it is dead itself, that is done here.
        let cluster = self.folder.path().join("data/postgres");
        let database = fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
        let postmaster = database.lines().next().unwrap_or_default();
        if let Some(control_plane) = self.control_plane.child.take() {
            ends(&control_plane.id().unwrap_or_default().to_string(), "-TERM", Duration::from_secs(20));
        }
        if is_of(postmaster, &cluster) {
            ends(postmaster, "-QUIT", Duration::from_secs(10));
        }
    }
}
