//! Folders, agents and platforms of tests; whatever a test starts ends with it.

use std::{
    future::Future,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tidegate_agent::{
    Exited, Options, Platform, ProcessOptions, ProcessPlatform, Program, SessionKey, SessionSpec,
    SessionStream, StreamFrame, run,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate-agent");

/// Nothing here takes longer, however busy the machine is.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap_or_else(|_| panic!("waited 30 s for {what}"))
}

/// A data folder that sessions' users may pass through. Its sessions end with it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("tga").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where a session's shim listens.
    pub(crate) fn socket(&self, key: &SessionKey) -> PathBuf {
        self.path().join("run").join(format!("{key}.sock"))
    }

    pub(crate) fn platform(&self) -> Arc<ProcessPlatform> {
        let options = ProcessOptions {
            data_dir: self.path().to_owned(),
            runtime_dir: None,
            cgroup_root: None,
            program: PathBuf::from(PROGRAM),
            grace: Duration::from_secs(2),
            first_reader: Duration::from_secs(10),
        };
        Arc::new(ProcessPlatform::open(options).unwrap())
    }
}

impl Drop for Folder {
    /// A test that failed must not leave anything behind: shims first, then what has its home here.
    fn drop(&mut self) {
        let home = [b"HOME=", self.path().as_os_str().as_encoded_bytes()].concat();
        let at_home = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(&home))
        };
        for pid in shims(self.path()).into_iter().chain(processes().into_iter().filter(at_home)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The shims whose log lies in this folder.
pub(crate) fn shims(folder: &Path) -> Vec<i32> {
    processes()
        .into_iter()
        .filter(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let log = std::fs::read_link(format!("/proc/{pid}/fd/2")).unwrap_or_default();
            command.windows(12).any(|window| window == b"session-shim") && log.starts_with(folder)
        })
        .collect()
}

/// Every process of the machine.
pub(crate) fn processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Living processes of which an argument is exactly this.
pub(crate) fn with_argument(argument: &str) -> Vec<i32> {
    processes()
        .into_iter()
        .filter(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())
        })
        .collect()
}

/// A session of a shell script.
pub(crate) fn script(id: &str, generation: i64, text: &str) -> SessionSpec {
    SessionSpec {
        key: SessionKey::new(id, generation).unwrap(),
        user: "alice".into(),
        owner: "org-1/alice".into(),
        program: Program::Command(["sh", "-c", text].map(str::to_owned).to_vec()),
        image: None,
        port: None,
        hibernation: tidegate_model::Hibernation::Stop,
        persistent_home: false,
        environment: std::collections::BTreeMap::new(),
        cpu_millis: Some(1_000),
        memory_bytes: Some(256 << 20),
    }
}

/// Reads a stream until its bytes hold `text`.
pub(crate) async fn read_until(stream: &mut SessionStream, text: &str) -> String {
    let mut seen = Vec::new();
    soon(text, async {
        while !ends_with_text(&seen, text) {
            match stream.output.next().await {
                Some(Ok(StreamFrame::Bytes(bytes))) => seen.extend_from_slice(&bytes),
                Some(Ok(StreamFrame::Text(_))) => {}
                other => panic!("{other:?} before {text:?}, after {:?}", String::from_utf8_lossy(&seen)),
            }
        }
    })
    .await;
    String::from_utf8_lossy(&seen).into_owned()
}

/// Whether the newest bytes hold a text; the older ones were looked at before.
pub(crate) fn ends_with_text(seen: &[u8], text: &str) -> bool {
    let newest = &seen[seen.len().saturating_sub(128 * 1024)..];
    String::from_utf8_lossy(newest).contains(text)
}

/// Reads a stream to its end: bytes, and the text frames beside them.
pub(crate) async fn read_all(stream: &mut SessionStream) -> (Vec<u8>, Vec<String>) {
    let (mut bytes, mut texts) = (Vec::new(), Vec::new());
    soon("the end of a stream", async {
        while let Some(frame) = stream.output.next().await {
            match frame.unwrap() {
                StreamFrame::Bytes(more) => bytes.extend_from_slice(&more),
                StreamFrame::Text(text) => texts.push(text),
            }
        }
    })
    .await;
    (bytes, texts)
}

/// Types into a stream.
pub(crate) async fn type_in(stream: &mut SessionStream, text: &str) {
    stream.input.send(StreamFrame::Bytes(text.to_owned().into())).await.unwrap();
}

/// Waits until a condition holds that nothing announces.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    soon(what, async {
        while !holds() {
            look.tick().await;
        }
    })
    .await;
}

/// An agent inside the test.
pub(crate) struct Agent {
    shutdown: CancellationToken,
    task: JoinHandle<Result<Exited, tidegate_agent::Error>>,
}

impl Agent {
    /// Starts an agent that already has its key.
    pub(crate) fn start(folder: &Folder, server: &str) -> Self {
        let private = folder.path().join("private");
        std::fs::create_dir_all(&private).unwrap();
        std::fs::write(private.join("agent.key"), "ab".repeat(32)).unwrap();
        Self::start_with(folder, server, |_| {})
    }

    pub(crate) fn start_with(folder: &Folder, server: &str, change: impl FnOnce(&mut Options)) -> Self {
        let mut options =
            Options::new(server.parse().unwrap(), "agent-1".parse().unwrap(), folder.path().to_owned());
        options.farewell = Duration::from_secs(1);
        options.reconnect_min = Duration::from_millis(10);
        options.reconnect_max = Duration::from_millis(50);
        change(&mut options);
        let platform: Arc<dyn Platform> = folder.platform();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(options, platform, shutdown.clone()));
        Self { shutdown, task }
    }

    /// Tells it to go and waits until it has.
    pub(crate) async fn stop(self) -> Exited {
        self.shutdown.cancel();
        self.exited().await
    }

    /// Waits until it refuses to run, and why.
    pub(crate) async fn refused(self) -> String {
        soon("the agent to refuse", self.task).await.unwrap().unwrap_err().chain()
    }

    /// Waits until it goes by itself.
    pub(crate) async fn exited(self) -> Exited {
        soon("the agent to exit", self.task).await.unwrap().unwrap()
    }
}
