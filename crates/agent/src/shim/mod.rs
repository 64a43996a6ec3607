//! `session-shim`: one small process per session. It owns the PTY and everything the session starts, outlives the
//! agent, and answers it over a Unix socket that the session's user cannot reach. It never talks to the network.

mod ending;
pub(crate) mod files;
mod output;
mod ring;
mod screen;
mod server;
mod terminal;
pub(crate) mod wire;

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use nix::{sys::prctl, unistd};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use crate::{Error, exec::ExecSpec, platform::SessionKey, shims::hold};
use output::Output;
use terminal::Terminal;

/// What a shim is told on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ShimSpec {
    /// Which start of which session.
    pub(crate) key: SessionKey,
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// Where it leaves what outlives it.
    pub(crate) folder: PathBuf,
    /// The agent's program, for `session-exec`.
    pub(crate) program: PathBuf,
    /// What `session-exec` does.
    pub(crate) exec: ExecSpec,
    /// The program's environment, whole.
    pub(crate) environment: BTreeMap<String, String>,
    /// How long the first reader is waited for once the ring is full, in milliseconds.
    pub(crate) hold_ms: u64,
}

/// What a shim says on its standard output once it listens.
pub(crate) const READY: &str = "ready";

/// Runs `session-shim`: reads what to do from standard input and stays until the session ended and everybody knows.
pub fn session_shim() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The agent reads one line: ready, or why not.
            let _ = writeln!(io::stdout(), "{}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(Error::system("read what to run"))?;
    let spec: ShimSpec = serde_json::from_str(&text)
        .map_err(|_| Error::Refused("session-shim is started by the agent, not by hand".into()))?;
    if !hold::is_own().map_err(Error::system("hold the session"))? {
        return Err(Error::Refused("another shim holds the session".into()));
    }
    // A session of its own: neither the agent's end nor a Ctrl-C at its terminal reaches this process.
    unistd::setsid().map_err(Error::system("leave the agent's session"))?;
    // Its session is a scheduling group of its own (autogroup), as heavy as everything that carries all sessions: one
    // that prints without end would delay the others' keystrokes.
    let _ = std::fs::write("/proc/self/autogroup", "10");
    prctl::set_child_subreaper(true).map_err(Error::system("adopt the session's orphans"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::system("start the shim's runtime"))?;
    runtime.block_on(serve(spec))
}

async fn serve(spec: ShimSpec) -> Result<(), Error> {
    let _ = std::fs::remove_file(&spec.socket);
    let listener = UnixListener::bind(&spec.socket).map_err(Error::file("listen at", &spec.socket))?;
    std::fs::set_permissions(&spec.socket, std::fs::Permissions::from_mode(0o600))
        .map_err(Error::file("set rights of", &spec.socket))?;
    let session = start(&spec)?;
    // An agent that died meanwhile hears nothing; the next one finds the socket.
    let _ = writeln!(io::stdout(), "{READY}").and_then(|()| io::stdout().flush());
    let server = server::Server::new(Arc::clone(&session.output), session.terminal);
    let stop = server.stop_requests();
    let serving = tokio::spawn(Arc::clone(&server).accept(listener));
    let exit = ending::wait(session.child, stop, &session.output, &spec.exec.cgroups).await;
    let exit =
        ending::settle((&spec.folder, spec.key.generation), exit, session.drained, &session.output).await;
    server.end(exit).await;
    serving.abort();
    // Its listener is gone with it: nobody is taken and then left in the middle of a word.
    let _ = serving.await;
    let _ = std::fs::remove_file(&spec.socket);
    server.rest().await;
    Ok(())
}

struct Session {
    output: Arc<Output>,
    terminal: Terminal,
    child: ending::Children,
    drained: tokio::sync::oneshot::Receiver<()>,
}

fn start(spec: &ShimSpec) -> Result<Session, Error> {
    let pty = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::Refused(format!("cannot make a terminal: {error}"))
    };
    let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).map_err(|error| pty(error.into()))?;
    if let (Some(uid), Some(name)) = (spec.exec.uid, pair.master.tty_name()) {
        // Programs that open their terminal by name need to own it.
        unistd::chown(&name, Some(uid.into()), None)
            .map_err(Error::system("hand the terminal to the session's user"))?;
    }
    let reader = pair.master.try_clone_reader().map_err(|error| pty(error.into()))?;
    let writer = pair.master.take_writer().map_err(|error| pty(error.into()))?;
    let mut command = CommandBuilder::new(&spec.program);
    let exec = serde_json::to_string(&spec.exec).map_err(|error| pty(error.into()))?;
    command.args(["session-exec", &exec]);
    command.env_clear();
    for (name, value) in &spec.environment {
        // Under another name until every right is given up: the loader of a program that is still root must not see
        // an LD_PRELOAD that somebody asked for.
        command.env(crate::exec::carried(name), value);
    }
    command.cwd("/");
    let child = pair.slave.spawn_command(command).map_err(|error| pty(error.into()))?;
    drop(pair.slave);
    let pid = child.process_id().ok_or_else(|| Error::Refused("the program has no process".into()))?;
    let output = Arc::new(Output::new(size.cols, size.rows, Duration::from_millis(spec.hold_ms)));
    let screen = Arc::clone(&output);
    std::thread::spawn(move || screen.follow_screen());
    let drained = read_all(reader, Arc::clone(&output));
    let terminal = Terminal::new(pair.master, writer);
    Ok(Session { output, terminal, child: ending::Children::reap(pid), drained })
}

/// Moves the program's output into the ring on a thread of its own; tells when there is no more.
fn read_all(mut reader: Box<dyn Read + Send>, output: Arc<Output>) -> tokio::sync::oneshot::Receiver<()> {
    let (done, drained) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; wire::CHUNK];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => output.append(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = done.send(());
    });
    drained
}
