//! Used by a person: a terminal on both ends.

use std::io::{Read, Write};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::{sync::mpsc, task};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::{
    Fake, Reply, Request,
    fake::{login, session},
    terminal::{Step, terminal},
};

/// The program on a terminal of its own.
struct Person {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    screen: mpsc::UnboundedReceiver<Vec<u8>>,
    seen: String,
    before: String,
}

impl Person {
    fn start(server: &Fake, home: &std::path::Path, words: &[&str]) -> Self {
        let size = PtySize { rows: 33, cols: 101, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(words);
        command.env("TIDEGATE_URL", server.url.as_str());
        command.env("XDG_CONFIG_HOME", home);
        let before = settings(&*pair.master);
        let child = pair.slave.spawn_command(command).unwrap();
        let mut output = pair.master.try_clone_reader().unwrap();
        let (send, screen) = mpsc::unbounded_channel();
        task::spawn_blocking(move || {
            let mut buffer = [0; 4_096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                if send.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let keys = pair.master.take_writer().unwrap();
        // The slave end stays open in the child alone: its end is this terminal's end.
        drop(pair.slave);
        Self { child, master: pair.master, keys, screen, seen: String::new(), before }
    }

    /// Waits until the screen has shown `text`.
    async fn sees(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let bytes =
                self.screen.recv().await.unwrap_or_else(|| panic!("{text:?} is not in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits for the program's end: exit code, and whether the terminal is as it was.
    async fn leaves(mut self) -> (u32, bool) {
        while self.screen.recv().await.is_some() {}
        let code = self.child.wait().unwrap().exit_code();
        (code, settings(&*self.master) == self.before)
    }
}

fn settings(terminal: &dyn MasterPty) -> String {
    format!(
        "{:?}",
        terminal.get_termios().map(|termios| (
            termios.local_flags,
            termios.input_flags,
            termios.output_flags
        ))
    )
}

async fn shell_server(steps: Vec<Step>) -> Fake {
    Fake::start(move |request: &Request| match request.line.as_str() {
        "POST /api/v1/auth/login" => Reply::ok(&login("first")),
        line if line.ends_with("/terminal") => terminal(steps.clone()),
        _ => Reply::ok(&session("running")),
    })
    .await
}

/// Logs in as a person does, at the prompt.
async fn logged_in(server: &Fake, home: &std::path::Path) {
    let mut person = Person::start(server, home, &["login", "--username", "alice"]);
    person.sees("Password for alice: ").await;
    person.types("tidewater gatx\x7fe\r");
    person.sees("logged in to").await;
    assert!(!person.seen.contains("tidewater"), "{:?}", person.seen);
    assert_eq!(person.leaves().await, (0, true));
    assert_eq!(server.seen()[0].body, r#"{"username":"alice","password":"tidewater gate"}"#);
}

const ATTACH: &[&str] = &["attach", "01970000-0000-7000-8000-000000000001"];

#[tokio::test]
async fn the_detach_key_leaves_the_session_and_gives_the_terminal_back() {
    let home = tempfile::tempdir().unwrap();
    let said = Message::binary(&b"\x1b[?1049h\x1b[?25lan editor"[..]);
    let server = shell_server(vec![Step::Say(said), Step::Hear("hello"), Step::Wait]).await;
    logged_in(&server, home.path()).await;
    let mut person = Person::start(&server, home.path(), ATTACH);
    person.sees("an editor").await;
    assert_ne!(settings(&*person.master), person.before, "raw mode");
    person.types("hello\x1d");
    person.sees("calm-harbour goes on").await;
    assert!(person.seen.contains("\x1b[?25h\x1b[?1049l"), "{:?}", person.seen);
    assert_eq!(person.leaves().await, (0, true));
}

#[tokio::test]
async fn a_signal_gives_the_terminal_back_too() {
    let home = tempfile::tempdir().unwrap();
    let server = shell_server(vec![Step::Say(Message::binary(&b"ready"[..])), Step::Wait]).await;
    logged_in(&server, home.path()).await;
    let mut person = Person::start(&server, home.path(), ATTACH);
    person.sees("ready").await;
    let id = person.child.process_id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(person.leaves().await, (143, true));
}

#[tokio::test]
async fn a_lost_connection_keeps_what_is_typed_for_the_next_one() {
    let home = tempfile::tempdir().unwrap();
    let mut attached = 0;
    let server = Fake::start(move |request: &Request| match request.line.as_str() {
        "POST /api/v1/auth/login" => Reply::ok(&login("first")),
        line if line.ends_with("/terminal") => {
            attached += 1;
            match attached {
                1 => {
                    terminal(vec![Step::Say(Message::binary(&b"first"[..])), Step::Close(CloseCode::Restart)])
                }
                _ => terminal(vec![
                    Step::Say(Message::binary(&b"second"[..])),
                    Step::Hear("exit\r"),
                    Step::Say(Message::text(r#"{"type":"exit","code":5}"#)),
                    Step::Close(CloseCode::Normal),
                ]),
            }
        }
        _ => Reply::ok(&session("running")),
    })
    .await;
    logged_in(&server, home.path()).await;
    let mut person = Person::start(&server, home.path(), ATTACH);
    person.sees("attaching again; ctrl-] leaves").await;
    person.sees("second").await;
    person.types("exit\r");
    assert_eq!(person.leaves().await, (5, true));
}
