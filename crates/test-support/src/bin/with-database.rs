//! `with-database COMMAND [ARGUMENT…]`: runs a command with one private PostgreSQL for all the tests it runs.
#![expect(clippy::print_stderr, reason = "what a command line tool has to say")]

use std::process::ExitCode;

use tidegate_test_support::{PrivateCluster, URL_VARIABLE};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-database COMMAND [ARGUMENT…]");
        return ExitCode::from(2);
    };
    let cluster = PrivateCluster::start().await;
    let mut command = Command::new(program);
    command.args(arguments).env(URL_VARIABLE, cluster.superuser_url());
    let code = run(command).await;
    cluster.stop().await;
    code
}

/// Runs the command to its end, or to the first signal.
async fn run(mut command: Command) -> ExitCode {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        eprintln!("with-database: signals cannot be listened to");
        return ExitCode::FAILURE;
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("with-database: the command did not start: {error}");
            return ExitCode::from(127);
        }
    };
    let ended = tokio::select! {
        ended = child.wait() => ended,
        _ = interrupt.recv() => child.wait().await,
        _ = terminate.recv() => match child.kill().await {
            Ok(()) => child.wait().await,
            Err(error) => Err(error),
        },
    };
    let code = ended.ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(1))
}
