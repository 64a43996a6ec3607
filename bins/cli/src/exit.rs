//! How the program ends: exit codes and the sentence that goes with a failure.

use std::{
    error::Error as _,
    io::{self, Write},
    process::ExitCode,
};

use tidegate_client::{Error, PipeError};

use crate::output;

/// Something did not work.
pub(crate) const FAILURE: u8 = 1;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;
/// It is not there, or not for the caller.
pub(crate) const REFUSED: u8 = 3;
/// Nobody answered: whether it happened is not known.
pub(crate) const NO_ANSWER: u8 = 4;
/// It is too large, or no room is left for it.
pub(crate) const NO_ROOM: u8 = 5;
/// There was nothing to read.
pub(crate) const NOTHING: u8 = 6;
/// Something did not work while running somebody else's program, whose own codes are 0 to 124 and 126 to 255.
pub(crate) const RUN_FAILURE: u8 = 125;
/// What a shell calls a program that wrote into a closed pipe.
const BROKEN_PIPE: u8 = 141;

/// The exit code of a session's program as one of ours.
pub(crate) fn of_program(code: i32) -> ExitCode {
    // What does not fit in eight bits must not look like success.
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The exit code after a signal, as shells write it.
pub(crate) fn of_signal(signal: i32) -> ExitCode {
    of_program(128_i32.saturating_add(signal))
}

/// Writes what went wrong and what to do.
pub(crate) fn report(error: &anyhow::Error, json: bool, code: u8) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::from(BROKEN_PIPE);
    }
    let line = if json { as_json(error).to_string() } else { format!("tidegate: {}", sentence(error)) };
    // Nobody may be there to be told; the code says it, too.
    drop(writeln!(io::stderr(), "{line}"));
    ExitCode::from(code)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn sentence(error: &anyhow::Error) -> String {
    let mut text = format!("{error:#}");
    if let Some(Error::NotLoggedIn(_) | Error::LoginEnded) = of_api(error) {
        text.push_str(" with `tidegate login`");
    }
    if of_api(error).is_some_and(mentions_certificate) {
        text.push_str("; if the server signs its own certificates, name its CA with --ca-file");
    }
    output::plain(&text)
}

/// What the control plane, or the way to it, had to do with it.
fn of_api(error: &anyhow::Error) -> Option<&Error> {
    error.downcast_ref::<Error>().or_else(|| error.downcast_ref::<PipeError>()?.of_api())
}

fn mentions_certificate(error: &Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.to_string().contains("certificate") {
            return true;
        }
        source = error.source();
    }
    false
}

fn as_json(error: &anyhow::Error) -> serde_json::Value {
    let refusal = of_api(error).and_then(Error::api);
    let message = sentence(error);
    match refusal {
        Some(refusal) => serde_json::json!({"error": {
            "code": refusal.code, "message": message, "fields": refusal.fields, "requestId": refusal.request_id,
        }}),
        None => serde_json::json!({"error": {"code": "E_CLIENT", "message": message}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do() {
        let error = anyhow::Error::new(Error::LoginEnded);
        assert_eq!(sentence(&error), "the login has ended: log in again with `tidegate login`");
    }

    #[test]
    fn a_failure_is_an_object_of_one_shape_in_json() {
        let error = as_json(&anyhow::anyhow!("no session is called x"));
        assert_eq!(error["error"]["code"], "E_CLIENT");
        assert_eq!(error["error"]["message"], "no session is called x");
    }

    #[test]
    fn words_of_the_server_cannot_move_the_cursor() {
        assert_eq!(sentence(&anyhow::anyhow!("gone\x1b[2J")), "gone\u{fffd}[2J");
    }
}
