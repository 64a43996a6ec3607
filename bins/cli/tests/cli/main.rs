//! The program itself, against a server that answers from a script.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod apps;
mod audit;
mod catalog;
// The client's own script server: one of them is enough.
mod devices;
mod events;
#[path = "../../../../crates/client/tests/client/fake.rs"]
#[expect(dead_code, reason = "the client's tests need more of it")]
mod fake;
mod groups;
mod homes;
mod keys;
mod messages;
mod people;
mod person;
mod plugins;
mod program;
mod readers;
mod shared_terminal;
mod sharing;
mod sources;
mod terminal;
mod users;

use fake::{Fake, Reply, Request};

const SESSION: &str = "/api/v1/sessions/01970000-0000-7000-8000-000000000001";

/// A session that ended with this exit code.
fn ended(code: i32) -> String {
    let mut session = fake::session("terminated");
    session["platformMetadata"]["exitCode"] = code.into();
    session.to_string()
}

/// Runs the program to its end: standard output, standard error, exit code.
async fn run(server: &Fake, words: &[&str]) -> (String, String, i32) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(words)
        .env("TIDEGATE_URL", server.url.as_str())
        .env("TIDEGATE_TOKEN", "first")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}
