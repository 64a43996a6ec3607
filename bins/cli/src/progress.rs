//! The line that moves while a session is waited for.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_client::{Client, Error};
use tidegate_model::{Session, SessionId};

use crate::output::{Output, plain};

/// Waits until `enough` says so or the session's state is final, with a line on standard error where a person looks.
pub(crate) async fn wait_for(
    client: &Client,
    output: Output,
    id: SessionId,
    enough: impl Fn(&Session) -> bool,
) -> Result<Session, Error> {
    let line = line(output);
    let session = client
        .wait_for(id, enough, |session| {
            line.set_message(format!("session {} is {}", plain(&session.name), session.state));
        })
        .await;
    line.finish_and_clear();
    session
}

fn line(output: Output) -> ProgressBar {
    let shown = !output.json && std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let line = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        line.set_style(style);
    }
    line.enable_steady_tick(Duration::from_millis(100));
    line
}
