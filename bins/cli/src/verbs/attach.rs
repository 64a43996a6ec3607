//! `attach`.

use std::process::ExitCode;

use anyhow::bail;
use tidegate_model::{Handle, Session, SessionState, Source, StreamMode};

use super::terminals;
use crate::{
    args::AttachArgs,
    context::Context,
    exit, lookup,
    output::plain,
    terminal::{self, Left, Viewer},
};

pub(super) async fn attach(context: &Context, words: AttachArgs) -> anyhow::Result<ExitCode> {
    if context.output.json {
        bail!("a terminal has no JSON: leave --json out, or read `tidegate logs --json`");
    }
    let session = match meant(context, &words).await? {
        Meant::Session(session) => *session,
        Meant::Source(source) => return terminals::attach(context, &source, &words).await,
    };
    if matches!(session.state, SessionState::Hibernated | SessionState::Hibernating) {
        bail!("session {} is {}: wake it with `tidegate wake {0}`", session.name, session.state);
    }
    let only_shared = session.shared.is_some_and(|shared| shared.mode == StreamMode::View);
    if only_shared && !words.view {
        context.output.note("this session is shared with you to watch: what you type does nothing");
    }
    let mode = if words.view || only_shared { StreamMode::View } else { StreamMode::Control };
    let viewer = Viewer { id: session.id, name: &session.name, mode, keys: &words.resume.detach_key };
    let left = terminal::attach(&context.client, &viewer).await?;
    leave(context, &session, left)
}

/// What a name means.
enum Meant {
    Session(Box<Session>),
    Source(Box<Source>),
}

/// A session's whole name or id comes first, then a source's handle, then the beginning of a session's id.
async fn meant(context: &Context, words: &AttachArgs) -> anyhow::Result<Meant> {
    let (client, text) = (&context.client, words.what.as_str());
    let handle = text.parse::<Handle>();
    if words.source {
        let handle = handle.map_err(|error| anyhow::anyhow!("a handle {error}"))?;
        return Ok(Meant::Source(Box::new(client.source(&handle).await?)));
    }
    let session = lookup::find(client, text).await;
    if let Ok(session) = &session
        && (session.name == text || session.id.to_string() == text.to_ascii_lowercase())
    {
        return Ok(Meant::Session(Box::new(session.clone())));
    }
    if let Ok(handle) = handle {
        match client.source(&handle).await {
            Ok(source) => return Ok(Meant::Source(Box::new(source))),
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    session.map(|session| Meant::Session(Box::new(session)))
}

/// The exit code of a session that was left, and a word on what became of it.
pub(super) fn leave(context: &Context, session: &Session, left: Left) -> anyhow::Result<ExitCode> {
    let goes_on = || {
        let name = plain(&session.name);
        context.output.note(&format!("session {name} goes on; `tidegate attach {name}` comes back to it"));
    };
    match left {
        Left::Exited(code) => Ok(exit::of_program(code)),
        Left::Detached => {
            goes_on();
            Ok(ExitCode::SUCCESS)
        }
        Left::Signal(signal) => {
            goes_on();
            Ok(exit::of_signal(signal))
        }
        Left::Ended(session) => of_ended(&session),
    }
}

/// The exit code that an ended session left.
pub(super) fn of_ended(session: &Session) -> anyhow::Result<ExitCode> {
    match (session.exit_code(), session.state) {
        (Some(code), state) if state.is_final() => Ok(exit::of_program(code)),
        (_, state) => {
            let reason =
                session.state_reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let hint = if matches!(state, SessionState::Hibernated | SessionState::Hibernating) {
                format!(": wake it with `tidegate wake {}`", session.name)
            } else {
                String::new()
            };
            bail!("session {} is {state}{reason} and left no exit code{hint}", session.name)
        }
    }
}
