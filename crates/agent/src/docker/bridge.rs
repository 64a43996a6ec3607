//! `session-container`: below a shim, between its PTY and a container's terminal. It ends when the container's program
//! does, with its exit code, and not when the engine is away for a while. It alone asks for the program's start, and never
//! for a second one while the first may have happened.

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use bollard::exec::CreateExecOptions;
use rustix::termios;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    LOOK,
    container::{Standing, UNKNOWN_CODE, body_of, ended_at, standing},
    engine::{Engine, Resized, Terminal, Version},
    evidence, patiently,
};
use crate::{Error, files::write_private};

/// How often an engine that is away is tried again.
const AWAY: Duration = Duration::from_millis(500);
/// How long an engine that took a request to start and does not answer may leave the container as it was, until it
/// counts as not having heard of it. While it is at work on a container it says nothing about it.
const UNHEARD: Duration = Duration::from_secs(10);
/// How long an engine may take to know the exit code of a shell whose terminal has ended.
const TOLD: Duration = Duration::from_secs(5);
/// Bytes read at once.
const CHUNK: usize = 32 * 1024;
/// Pieces of what is typed that may wait.
const TYPED: usize = 16;

/// What a bridge is told, as JSON in its only argument: nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bridge {
    /// The engine's socket.
    pub(super) socket: PathBuf,
    /// The version of its API.
    pub(super) api: Version,
    /// The container.
    pub(super) container: String,
    /// What it bridges to.
    pub(super) role: Role,
}

/// What is on the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub(super) enum Role {
    /// The container's own program.
    Main {
        /// Whether the bridge starts it once it is attached, so that nothing it prints is lost.
        starts: bool,
        /// Where it writes down why nobody can know how the program ended, or whether it ran.
        lost: PathBuf,
    },
    /// A shell beside it.
    Shell,
}

/// Runs `session-container`.
pub fn session_container(spec: &str) -> ExitCode {
    let Ok(bridge) = serde_json::from_str::<Bridge>(spec) else {
        eprintln!("tidegate: session-container is started by the agent, not by hand\r");
        return ExitCode::from(126);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tidegate: cannot start: {error}\r");
            return ExitCode::from(126);
        }
    };
    let code = runtime.block_on(run(&bridge)).unwrap_or_else(|refusal| refusal.tell(&bridge.role));
    // The thread that reads what is typed waits for more, and need not be waited for.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Why there is no exit code of the program.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// The program was not started; the code says so as a shell would.
    Exit(u8, String),
    /// Nobody can know.
    Lost(String),
}

impl Refusal {
    fn tell(self, role: &Role) -> u8 {
        let (code, sentence) = match self {
            Self::Exit(code, sentence) => (code, sentence),
            Self::Lost(sentence) => {
                if let Role::Main { lost, .. } = role
                    && let Err(error) = write_private(lost, sentence.as_bytes())
                {
                    eprintln!("tidegate: {}\r", error.chain());
                }
                (u8::MAX, sentence)
            }
        };
        eprintln!("tidegate: {sentence}\r");
        code
    }
}

async fn run(bridge: &Bridge) -> Result<u8, Refusal> {
    // What is typed goes on as it is: the container's own terminal does the rest.
    raw_mode().map_err(|error| Refusal::Exit(126, format!("cannot prepare the terminal: {error}")))?;
    let engine =
        Engine::open(&bridge.socket, bridge.api).map_err(|error| Refusal::Exit(126, error.chain()))?;
    let mut typed = typed();
    match bridge.role {
        Role::Main { starts, .. } => main_program(&engine, &bridge.container, starts, &mut typed).await,
        Role::Shell => shell(&engine, &bridge.container, &mut typed).await,
    }
}

async fn main_program(
    engine: &Engine,
    name: &str,
    starts: bool,
    typed: &mut mpsc::Receiver<Vec<u8>>,
) -> Result<u8, Refusal> {
    let (mut starts, mut history) = (starts, !starts);
    let resized = Resized::Container(name.to_owned());
    // Whether an engine was asked to start it and did not answer, and whether one was away since it was.
    let (mut in_doubt, mut was_away) = (false, false);
    loop {
        match engine.attach(name, history).await {
            Ok(terminal) => {
                let started = if starts { engine.start(name).await } else { Ok(()) };
                match started {
                    Ok(()) => {
                        carry(engine, terminal, &resized, typed).await;
                        // What was printed before is here already.
                        (starts, history, in_doubt) = (false, false, false);
                    }
                    Err(Error::Away { .. }) => {
                        (in_doubt, was_away) = (true, true);
                        // An engine that lives may be at work on it. One that does not has left the terminal, too.
                        tokio::select! {
                            () = carry(engine, terminal, &resized, typed) => {}
                            () = unheard(engine, name) => {}
                        }
                    }
                    Err(error) if is_left_over(&error) => in_doubt = true,
                    Err(error) => return Err(not_started(&error)),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            Err(_) => {
                was_away = true;
                sleep(AWAY).await;
            }
        }
        match look(engine, name, &mut was_away).await? {
            Now::Ended(code) => return exit_code(code, was_away),
            // Started by an engine that did not live to say so: what it printed since has not been seen.
            Now::Begun if starts => (starts, history, in_doubt) = (false, true, false),
            Now::NotBegun if in_doubt => {
                make_again(engine, name).await?;
                (in_doubt, was_away) = (false, false);
            }
            Now::Begun | Now::NotBegun => {}
        }
    }
}

fn gone() -> Refusal {
    Refusal::Exit(137, "the container is gone".to_owned())
}

/// Waits until an engine that took a request long ago says that it has done nothing about it.
async fn unheard(engine: &Engine, name: &str) {
    loop {
        sleep(UNHEARD).await;
        let found = engine.inspect(name).await;
        if found.is_ok_and(|found| found.as_ref().map(standing) == Some(Standing::Created)) {
            return;
        }
    }
}

/// Whether an engine that died in the middle of a start left something that it knows nothing of when it is back, and that
/// keeps it from ever starting the container: then it is for another one.
fn is_left_over(error: &Error) -> bool {
    let sentence = error.chain();
    sentence.ends_with("id already in use")
        || (sentence.contains(": task ") && sentence.ends_with(": already exists"))
}

/// Makes a container again whose start nobody answered for, if nothing of its program can have run. Another one, because
/// an engine that died in the middle of a start may have left what keeps it from ever starting this one.
async fn make_again(engine: &Engine, name: &str) -> Result<(), Refusal> {
    // No exit code: nothing that has one has run.
    let failed = |error: Error| Refusal::Lost(format!("the container was not made again: {}", error.chain()));
    // Asked to end in between, it ends after it: a container that it only just asked for would be nobody's.
    let told = [SignalKind::hangup(), SignalKind::terminate()].map(signal);
    let found = patiently(|| engine.inspect(name)).await.map_err(failed)?.ok_or_else(gone)?;
    if let Some(reason) = patiently(|| evidence::of(engine, &found)).await.map_err(failed)?.reason() {
        return Err(Refusal::Lost(reason));
    }
    let body = body_of(found).map_err(failed)?;
    let again = async || {
        engine.remove(name).await?;
        engine.create(name, body.clone()).await
    };
    patiently(again).await.map_err(failed)?;
    for mut told in told.into_iter().flatten() {
        tokio::spawn(async move {
            if told.recv().await.is_some() {
                std::process::exit(129);
            }
        });
    }
    Ok(())
}

/// Where a container is that was asked for.
enum Now {
    NotBegun,
    Begun,
    Ended(i32),
}

/// As a shell says it: 127 where there is no such program, 126 where it cannot be run.
fn not_started(error: &Error) -> Refusal {
    let sentence = error.chain();
    // What is missing is not the program.
    if sentence.contains("mount source") {
        return Refusal::Lost(format!("the home is not where the engine kept it: {sentence}"));
    }
    let missing = ["no such file", "not found in $PATH", "executable file not found"];
    let code = if missing.iter().any(|text| sentence.contains(text)) { 127 } else { 126 };
    Refusal::Exit(code, sentence)
}

/// The program's exit code, unless it is what an engine says that was away when the program ended.
fn exit_code(code: i32, was_away: bool) -> Result<u8, Refusal> {
    if was_away && code == UNKNOWN_CODE {
        return Err(Refusal::Lost(super::END_UNSEEN.to_owned()));
    }
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Looks at the container; while nobody can say, it is asked again.
async fn look(engine: &Engine, name: &str, was_away: &mut bool) -> Result<Now, Refusal> {
    loop {
        match engine.inspect(name).await {
            Ok(Some(found)) => {
                let killed = found.state.as_ref().and_then(|state| state.oom_killed).unwrap_or(false);
                match standing(&found) {
                    Standing::Exited { code, .. } => {
                        // It was killed, and came back before anybody asked it.
                        *was_away |= ended_at(&found).is_none();
                        if killed {
                            eprintln!("tidegate: the session used more memory than it was granted\r");
                        }
                        return Ok(Now::Ended(code));
                    }
                    Standing::Created => return Ok(Now::NotBegun),
                    Standing::Running | Standing::Paused => return Ok(Now::Begun),
                    // Nobody but a person removes it below its bridge.
                    Standing::Leaving => return Err(gone()),
                }
            }
            Ok(None) => return Err(gone()),
            Err(_) => {
                *was_away = true;
                sleep(AWAY).await;
            }
        }
    }
}

async fn shell(engine: &Engine, name: &str, typed: &mut mpsc::Receiver<Vec<u8>>) -> Result<u8, Refusal> {
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(true),
        env: Some(vec!["TERM=xterm-256color".to_owned()]),
        cmd: Some(
            ["/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash -l || exec sh -l"]
                .map(str::to_owned)
                .to_vec(),
        ),
        ..CreateExecOptions::default()
    };
    let made = engine.api().create_exec(name, options).await;
    let refused = |sentence| Refusal::Exit(126, sentence);
    let id = made.map_err(|error| refused(format!("no shell in the container: {error}")))?.id;
    let terminal = engine.start_exec(&id).await.map_err(|error| refused(format!("no shell: {error}")))?;
    carry(engine, terminal, &Resized::Exec(id.clone()), typed).await;
    shell_code(engine, &id).await
}

/// The exit code of a shell whose terminal has ended. The engine may learn of its end a little later, and one that was
/// killed meanwhile knows of no shell.
async fn shell_code(engine: &Engine, id: &str) -> Result<u8, Refusal> {
    let unknown = |why: &str| Refusal::Lost(format!("nobody knows how the shell ended: {why}"));
    let until = Instant::now() + TOLD;
    loop {
        let found = patiently(|| engine.inspect_exec(id)).await.map_err(|error| unknown(&error.chain()))?;
        match (found.running, found.exit_code) {
            (Some(false), Some(code)) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            _ if Instant::now() > until => return Err(unknown("its terminal ended before it")),
            _ => sleep(LOOK).await,
        }
    }
}

/// Moves bytes both ways until the container's side ends.
async fn carry(engine: &Engine, terminal: Terminal, resized: &Resized, typed: &mut mpsc::Receiver<Vec<u8>>) {
    let (mut from_container, mut to_container) = tokio::io::split(terminal);
    let outward = async {
        let (mut screen, mut buffer) = (tokio::io::stdout(), vec![0; CHUNK]);
        while let Ok(length @ 1..) = from_container.read(&mut buffer).await {
            let written = async {
                screen.write_all(&buffer[..length]).await?;
                screen.flush().await
            };
            if written.await.is_err() {
                return;
            }
        }
    };
    let inward = async {
        while let Some(bytes) = typed.recv().await {
            if to_container.write_all(&bytes).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let sizes = async {
        let Ok(mut changed) = signal(SignalKind::window_change()) else {
            return std::future::pending().await;
        };
        loop {
            if let Ok(size) = termios::tcgetwinsize(io::stdout()) {
                engine.resize(resized, size.ws_col, size.ws_row).await;
            }
            changed.recv().await;
        }
    };
    tokio::select! {
        () = outward => {}
        () = inward => {}
        () = sizes => {}
    }
}

/// What is typed, read on a thread that lives as long as the process.
fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (sender, typed) = mpsc::channel(TYPED);
    std::thread::spawn(move || {
        let (mut keys, mut buffer) = (io::stdin().lock(), vec![0; CHUNK]);
        while let Ok(length @ 1..) = io::Read::read(&mut keys, &mut buffer) {
            if sender.blocking_send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    typed
}

fn raw_mode() -> io::Result<()> {
    let terminal = io::stdin();
    let mut modes = termios::tcgetattr(&terminal)?;
    modes.make_raw();
    Ok(termios::tcsetattr(&terminal, termios::OptionalActions::Now, &modes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_says_that_does_not_know_is_no_exit_code() {
        assert_eq!(exit_code(7, true), Ok(7));
        assert_eq!(exit_code(255, false), Ok(255), "a program may end so");
        assert!(matches!(exit_code(255, true), Err(Refusal::Lost(_))));
    }
}
