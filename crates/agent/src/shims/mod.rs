//! The shims of an agent, seen from outside: where they listen, how they are started, found, followed and, where one is
//! dead, what it left is cleaned up. What runs below a shim is the platform's to say.

mod connection;
pub(crate) mod hold;
mod name;
pub(crate) mod tree;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::StreamExt;
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use connection::FIRST_FRAME;

use crate::{
    Error, Exit, SessionKey, SessionStream, StreamFrame, StreamRequest,
    files::make_dir,
    shim::{
        READY, ShimSpec, files as remains,
        wire::{Report, Request},
    },
};

/// How long a shim may take until it listens.
pub(crate) const START: Duration = Duration::from_secs(20);
/// What a shim may take over a session's grace until the end is written down: it kills, drains the terminal and writes.
const MARGIN: Duration = Duration::from_secs(35);
/// How long what is killed may take to be gone.
const KILLED: Duration = Duration::from_secs(10);
/// Longest path of a Unix socket, without its closing NUL.
const SOCKET_PATH: usize = 107;
/// How often a hold is tried for, every 10 ms.
const GIVEN_BACK: u32 = 100;
/// The search path of everything that is started.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// The shims of one agent.
#[derive(Debug)]
pub(crate) struct Shims {
    sessions: PathBuf,
    sockets: PathBuf,
    program: PathBuf,
    /// Tells agents of one machine apart, the same after each start.
    pub(crate) name: String,
}

impl Shims {
    /// Makes their folders. `program` is the agent's own, for its hidden subcommands.
    pub(crate) fn open(data: &Path, sockets: Option<&Path>, program: &Path) -> Result<Self, Error> {
        make_dir(data, 0o711)?;
        let sessions = data.join("sessions");
        let sockets = sockets.map_or_else(|| data.join("run"), Path::to_owned);
        for folder in [&data.join("private"), &sessions, &sockets] {
            make_dir(folder, 0o700)?;
        }
        Ok(Self { sessions, sockets, program: program.to_owned(), name: name::of(data)? })
    }

    /// The agent's own program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// What a session leaves is kept here.
    pub(crate) fn folder(&self, key: &SessionKey) -> PathBuf {
        self.sessions.join(&key.session_id)
    }

    /// Where a session's shim listens.
    pub(crate) fn socket(&self, key: &SessionKey) -> Result<PathBuf, Error> {
        let path = self.sockets.join(format!("{key}.sock"));
        if path.as_os_str().len() > SOCKET_PATH {
            return Err(Error::Setting(format!(
                "the socket path {} has more than {SOCKET_PATH} bytes: set a shorter runtime folder",
                path.display()
            )));
        }
        Ok(path)
    }

    /// The file that the shim of a session holds.
    fn hold(&self, key: &SessionKey) -> PathBuf {
        hold::path(&self.folder(key), key)
    }

    /// Whether a shim was ever started. Without a log there never was one, and nothing to look for.
    pub(crate) fn was_begun(&self, key: &SessionKey) -> Result<bool, Error> {
        Ok(self.hold(key).exists() || self.socket(key)?.exists())
    }

    /// How a session ended, where its shim wrote it down.
    pub(crate) fn exit(&self, key: &SessionKey) -> Option<Exit> {
        remains::read_exit(&self.folder(key), key.generation).ok().flatten()
    }

    /// The processes of a session, found without its shim.
    fn strays(&self, key: &SessionKey, cgroups: &[PathBuf]) -> Vec<i32> {
        let mut pids: Vec<i32> = cgroups.iter().flat_map(|cgroup| tree::members(cgroup)).collect();
        pids.extend(tree::marked(&self.name, &key.session_id, key.generation));
        // A shim that neither listens nor ends: it must not start anything later.
        pids.extend(hold::holders(&self.hold(key)));
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills what a dead shim left behind, until nothing is left. What the kernel does not let go of in time is named in
    /// the error.
    pub(crate) async fn kill_strays(&self, key: &SessionKey, cgroups: &[PathBuf]) -> Result<(), Error> {
        tree::forbid_forks(cgroups.iter().map(PathBuf::as_path));
        let until = Instant::now() + KILLED;
        loop {
            let strays = self.strays(key, cgroups);
            if strays.is_empty() {
                break;
            }
            if Instant::now() > until {
                return Err(Error::Refused(tree::remaining(&strays)));
            }
            tree::kill_cgroups(cgroups.iter().map(PathBuf::as_path));
            tree::signal_all(&strays, Signal::SIGKILL);
            sleep(Duration::from_millis(10)).await;
        }
        if let Ok(socket) = self.socket(key) {
            let _ = std::fs::remove_file(socket);
        }
        Ok(())
    }

    /// The same where nobody waits for it: what stays is said in the log.
    pub(crate) async fn clear_strays(&self, key: &SessionKey, cgroups: &[PathBuf]) {
        if let Err(error) = self.kill_strays(key, cgroups).await {
            tracing::error!(session = %key, error = error.chain(), "something of a session goes on");
        }
    }

    /// Connects to a session's shim and says what is wanted. One that lives and does not listen is only just starting
    /// (the agent that started it may be dead) or ending: that is waited for.
    async fn reach(
        &self,
        key: &SessionKey,
        request: &Request,
    ) -> Result<Option<connection::Connection>, Error> {
        let (socket, hold) = (self.socket(key)?, self.hold(key));
        let patience = Instant::now() + START;
        loop {
            // In this order: a shim that is gone by the second look has left its exit.
            if let Ok(connection) = connection::connect(&socket, request).await {
                return Ok(Some(connection));
            }
            if !hold::is_taken(&hold) || Instant::now() > patience {
                return Ok(None);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether a shim answers that its session runs. One that takes the question and is silent lives and is stopped, or
    /// has no processor: its session is there.
    pub(crate) async fn runs(&self, key: &SessionKey) -> Result<bool, Error> {
        let Some(mut connection) = self.reach(key, &Request::Watch).await? else { return Ok(false) };
        if let Ok(said) = timeout(FIRST_FRAME, connection.0.next()).await {
            return Ok(matches!(connection::report(said), Some(Report::Running)));
        }
        tracing::warn!(session = %key, "the session's shim is silent: it counts as running");
        Ok(true)
    }

    /// Waits for a session's end; nothing where no shim tells it.
    pub(crate) async fn watch(&self, key: &SessionKey) -> Option<Exit> {
        let connection = self.reach(key, &Request::Watch).await.ok()??;
        end_of(connection).await
    }

    /// Asks a shim to end its session, and waits for it; nothing where no shim does so in time.
    pub(crate) async fn stop(&self, key: &SessionKey, grace: Duration) -> Option<Exit> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(5_000);
        let mut connection = self.reach(key, &Request::Stop { grace_ms }).await.ok()??;
        // It answers at once, whatever the end then takes.
        let answers = timeout(FIRST_FRAME, connection.0.next()).await;
        let ended = async {
            match connection::report(answers.ok()?)? {
                Report::Running => timeout(grace + MARGIN, end_of(connection)).await.ok()?,
                Report::Ended(exit) => Some(exit),
            }
        };
        let exit = ended.await;
        if exit.is_none() {
            tracing::warn!(session = %key, "the session's shim did not end it: it is ended from outside");
        }
        exit
    }

    /// Starts a shim; it listens when this returns. `cgroups` are those that its session will be in.
    pub(crate) async fn spawn(&self, spec: &ShimSpec, cgroups: &[PathBuf]) -> Result<(), Error> {
        let log = self.take_hold(&spec.key).await?;
        log.set_len(0).map_err(Error::file("empty", spec.folder.clone()))?;
        let mut child = Command::new(&self.program)
            .arg("session-shim")
            // The agent's own environment may hold its keys: nothing of it goes on.
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its log, and its hold on the session: from here on it is the shim's alone.
            .stderr(log)
            .spawn()
            .map_err(Error::system("start the session's shim"))?;
        let said = timeout(START, hand_over(&mut child, spec)).await;
        let answer = match said {
            Ok(Ok(line)) if line.trim() == READY => Ok(()),
            Ok(Ok(line)) if line.trim().is_empty() => {
                Err(Error::Refused("the session's shim ended at once".into()))
            }
            Ok(Ok(line)) => Err(Error::Refused(line.trim().to_owned())),
            Ok(Err(error)) => Err(Error::system("speak to the session's shim")(error)),
            Err(_) => Err(Error::Refused("the session's shim did not start in time".into())),
        };
        if answer.is_err() {
            let _ = child.start_kill();
        }
        // tokio reaps a dropped child when it ends; it is never killed with the agent.
        drop(child);
        if answer.is_err() {
            self.clear_strays(&spec.key, cgroups).await;
        }
        answer
    }

    /// Takes the hold on a start. A shim that has just been killed gives it back a moment after it is gone.
    async fn take_hold(&self, key: &SessionKey) -> Result<File, Error> {
        for _ in 0..GIVEN_BACK {
            if let Some(log) = hold::take(&self.hold(key))? {
                return Ok(log);
            }
            sleep(Duration::from_millis(10)).await;
        }
        Err(Error::Refused("another shim holds the session".into()))
    }

    /// Opens the terminal or the log of a session, of one that ended too, as long as its output is kept.
    pub(crate) async fn open_stream(
        &self,
        key: &SessionKey,
        request: StreamRequest,
    ) -> Result<SessionStream, Error> {
        let wish = match request {
            StreamRequest::Terminal(mode) => Request::Terminal { mode },
            StreamRequest::Logs { after, follow } => Request::Logs { after, follow },
            StreamRequest::Stream | StreamRequest::Port(_) => {
                return Err(Error::Refused("a shim carries terminals and logs alone".into()));
            }
        };
        match connection::attach(&self.socket(key)?, &wish).await {
            Ok(stream) if matches!(wish, Request::Logs { .. }) => {
                Ok(connection::whole(stream, self.hold(key)))
            }
            Ok(stream) => Ok(stream),
            // It has ended, perhaps at this moment: what it left tells the rest.
            Err(_) => connection::replay(&self.folder(key), key, request).await,
        }
    }
}

/// Follows a shim's reports to the end.
async fn end_of(mut connection: connection::Connection) -> Option<Exit> {
    loop {
        match connection::report(connection.0.next().await)? {
            Report::Running => {}
            Report::Ended(exit) => return Some(exit),
        }
    }
}

async fn hand_over(child: &mut Child, spec: &ShimSpec) -> std::io::Result<String> {
    let text = serde_json::to_vec(spec)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).await?;
    }
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).await?;
    }
    Ok(line)
}

/// A text frame, read as such.
pub(crate) fn text_of(frame: &StreamFrame) -> Option<&str> {
    match frame {
        StreamFrame::Text(text) => Some(text),
        StreamFrame::Bytes(_) => None,
    }
}
