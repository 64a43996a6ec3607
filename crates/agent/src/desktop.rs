//! `session-desktop`: an X server that is watched by RFB, and what runs on it. It runs as the session's user, holds both
//! together, and ends with either. The server listens on a Unix socket alone, in a folder that is the user's own.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::{
        fs::OpenOptionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::RngExt;

/// What runs on a desktop where nothing was asked for: the first that is installed.
const MANAGERS: &[&str] = &["openbox-session", "openbox", "icewm-session", "fluxbox", "jwm", "twm", "xterm"];
/// How long the X server may take to go.
const GRACE: Duration = Duration::from_secs(2);

/// Runs `session-desktop`: `socket` is where RFB is served, `argv` what runs on the desktop.
pub fn session_desktop(socket: &Path, argv: &[String]) -> ExitCode {
    match run(socket, argv) {
        Ok(code) => ExitCode::from(code),
        Err((code, sentence)) => {
            eprintln!("tidegate: {sentence}\r");
            ExitCode::from(code)
        }
    }
}

type Refusal = (u8, String);

fn run(socket: &Path, argv: &[String]) -> Result<u8, Refusal> {
    let server = installed("Xvnc").ok_or_else(|| {
        let sentence =
            "this agent has no Xvnc: install the package tigervnc-standalone-server on its machine";
        (127, sentence.to_owned())
    })?;
    let cookie = socket.with_file_name("xauthority");
    write_cookie(&cookie).map_err(|error| (126, format!("cannot write {}: {error}", cookie.display())))?;
    let (mut server, display) = start_server(&server, socket, &cookie)?;
    let wanted = match argv.first() {
        Some(_) => argv.to_vec(),
        None => vec![manager()?],
    };
    let ended = Command::new(&wanted[0])
        .args(&wanted[1..])
        .env("DISPLAY", &display)
        .env("XAUTHORITY", &cookie)
        .status()
        .map_err(|error| (127, format!("cannot run {}: {error}", wanted[0])));
    stop(&mut server);
    let ended = ended?;
    let code = ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

fn manager() -> Result<String, Refusal> {
    let found = MANAGERS.iter().find(|name| installed(name).is_some());
    found.map(|name| (*name).to_owned()).ok_or_else(|| {
        let sentence =
            "this agent has no window manager: install one, such as the package openbox, on its machine";
        (127, sentence.to_owned())
    })
}

/// The secret that whoever opens a window has to know: other users of the machine can reach the display's socket. Written
/// as Xau(3) has it: one entry that is good for any display.
fn write_cookie(path: &Path) -> io::Result<()> {
    const ANY: u16 = 0xffff;
    const NAME: &[u8] = b"MIT-MAGIC-COOKIE-1";
    let secret: [u8; 16] = rand::rng().random();
    let mut entry = ANY.to_be_bytes().to_vec();
    for part in [&b""[..], b"", NAME, &secret] {
        entry.extend(u16::try_from(part.len()).unwrap_or(0).to_be_bytes());
        entry.extend(part);
    }
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&entry)
}

/// Starts the X server; answers it and its display once programs can open windows.
fn start_server(program: &Path, socket: &Path, cookie: &Path) -> Result<(Child, String), Refusal> {
    let mut command = Command::new(program);
    command
        .args(["-displayfd", "1", "-rfbport", "-1", "-rfbunixmode", "0600", "-rfbunixpath"])
        .arg(socket)
        .args(["-SecurityTypes", "None", "-AlwaysShared", "-AcceptSetDesktopSize", "-geometry", "1280x800"])
        .args(["-depth", "24", "-nolisten", "tcp", "-desktop", "Tidegate", "-auth"])
        .arg(cookie)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    let mut server = command.spawn().map_err(|error| (126, format!("cannot run Xvnc: {error}")))?;
    let mut number = String::new();
    if let Some(output) = server.stdout.take() {
        let mut lines = BufReader::new(output);
        lines.read_line(&mut number).map_err(|error| (126, format!("cannot hear from Xvnc: {error}")))?;
        // It may go on talking.
        thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
    }
    let number = number.trim();
    if number.is_empty() {
        stop(&mut server);
        return Err((126, "Xvnc ended at once; what it said stands above".to_owned()));
    }
    Ok((server, format!(":{number}")))
}

/// Ends the server, gently first.
fn stop(server: &mut Child) {
    let pid = Pid::from_raw(server.id().cast_signed());
    let _ = kill(pid, Signal::SIGTERM);
    let mut waited = Duration::ZERO;
    while matches!(server.try_wait(), Ok(None)) && waited < GRACE {
        let step = Duration::from_millis(20);
        thread::sleep(step);
        waited += step;
    }
    let _ = server.kill();
    let _ = server.wait();
}
