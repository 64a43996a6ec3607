//! Runs a program to its end and turns a failure into words. Never shows what the program was fed.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::Context;
use crate::{Error, Result};

/// How much of a program's output an error carries.
const SHOWN: usize = 2000;

/// Runs `command` with `input` and returns what it wrote to its standard output.
/// Dropping the future kills the program.
pub(crate) async fn run(program: &'static str, mut command: Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let path = Path::new(program);
    let mut child = command.spawn().context("run", path)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // a program that ends early says why in its output, which tells more than a broken pipe
            stdin.write_all(input.as_bytes()).await.ok();
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.context("wait for", path)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::Program {
        program,
        status: output.status.to_string(),
        output: tail(text.trim(), SHOWN).to_owned(),
    })
}

/// The last `limit` bytes of a text, from a whole character on.
pub(crate) fn tail(text: &str, limit: usize) -> &str {
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
