//! `run`.

use std::{io::IsTerminal, process::ExitCode};

use anyhow::bail;
use tidegate_client::{Error, StatusCode};
use tidegate_model::{Session, SessionState, StreamKind, StreamMode};

use super::{apps, attach, device, follow, logs};
use crate::{
    args::{RunApplication, RunFlags, RunWhat},
    context::Context,
    exit,
    output::plain,
    progress,
    signals::Signals,
    terminal::{self, Left, Viewer},
};

/// Most bytes of output in a JSON answer: its end, as much as an agent keeps.
const OUTPUT: usize = 1 << 20;

/// How one stays with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Somebody types.
    Shell,
    /// A program prints, and leaves a code.
    Command,
    /// It is looked at in a browser.
    Browser,
}

/// A session that was asked for, and how.
#[derive(Clone, Copy)]
struct What<'a> {
    kind: Kind,
    flags: &'a RunFlags,
}

pub(super) async fn run(context: &Context, what: RunWhat) -> anyhow::Result<ExitCode> {
    let created = context.client.create_session(&what.request()).await?.session;
    let kind = match &what {
        RunWhat::Shell(_) => Kind::Shell,
        RunWhat::Command { .. } => Kind::Command,
        RunWhat::Desktop { .. } | RunWhat::Web { .. } => Kind::Browser,
    };
    with(context, What { kind, flags: what.flags() }, created).await
}

/// Starts a session of an application; of a template of the catalog where no application is called so.
pub(super) async fn application(context: &Context, words: RunApplication) -> anyhow::Result<ExitCode> {
    let (client, name, flags) = (&context.client, &words.application, &words.flags);
    let found = apps::launchable(client, name).await?;
    let request = found.map_or_else(|| flags.of_template(name), |id| flags.of_application(id));
    let created = match client.create_session(&request).await {
        Ok(accepted) => accepted.session,
        Err(Error::Api(refusal)) if found.is_none() && refusal.status == StatusCode::NOT_FOUND => bail!(
            "nothing that you may start is called `{name}`: see `tidegate apps list --mine`, or run shell, command, desktop or web"
        ),
        Err(error) => return Err(error.into()),
    };
    let kind = match created.protocol {
        StreamKind::Terminal => Kind::Command,
        StreamKind::Vnc | StreamKind::Http => Kind::Browser,
    };
    with(context, What { kind, flags }, created).await
}

/// Stays with a session that was asked for, as far as the flags say so.
async fn with(context: &Context, what: What<'_>, created: Session) -> anyhow::Result<ExitCode> {
    let flags = what.flags;
    let created = recorded(context, flags, created).await?;
    if flags.detach {
        let text = || format!("{} {} is {}", created.id, plain(&created.name), created.state);
        context.output.answer(&created, text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let code = stay(context, what, &created).await;
    if flags.rm {
        // Said beside the program's own exit code: the session's end is asked for, not waited for.
        if let Err(error) = context.client.terminate_session(created.id).await {
            context.output.note(&format!("session {} could not be ended: {error}", created.name));
        }
    }
    code
}

/// Has its terminal recorded where that was asked for. A session that cannot be is not wanted.
async fn recorded(context: &Context, flags: &RunFlags, created: Session) -> anyhow::Result<Session> {
    let (client, Some(handle)) = (&context.client, &flags.record) else { return Ok(created) };
    match client.record_session(created.id, handle).await {
        Ok(recorded) => Ok(recorded),
        Err(error) => {
            let ended = match client.terminate_session(created.id).await {
                Ok(_) => "and was ended".to_owned(),
                Err(error) => format!("and could not be ended: {error}"),
            };
            Err(anyhow::Error::new(error)
                .context(format!("session {} cannot be recorded, {ended}", plain(&created.name))))
        }
    }
}

/// Waits for the session and stays with it until it ends or is left.
async fn stay(context: &Context, what: What<'_>, created: &Session) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let running = |now: &Session| !matches!(now.state, SessionState::Pending);
    let session = tokio::select! {
        session = progress::wait_for(&context.client, context.output, created.id, running) => session?,
        signal = signals.next() => return attach::leave(context, created, Left::Signal(signal)),
    };
    drop(signals);
    match what.kind {
        Kind::Shell if context.output.json => {
            context.output.answer(&session, String::new)?;
            if session.state == SessionState::Failed {
                attach::of_ended(&session)
            } else {
                Ok(ExitCode::SUCCESS)
            }
        }
        Kind::Browser => watch_in_browser(context, what, &session).await,
        Kind::Command if context.output.json => collect(context, &session).await,
        Kind::Command if !terminal::is_interactive() => print(context, &session).await,
        Kind::Shell | Kind::Command => view(context, what, &session).await,
    }
}

/// Waits until there is something to see, says where, and opens it where that was asked for.
async fn watch_in_browser(context: &Context, what: What<'_>, session: &Session) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let ready = |now: &Session| now.streaming_ready;
    let session = tokio::select! {
        session = progress::wait_for(&context.client, context.output, session.id, ready) => session?,
        signal = signals.next() => return attach::leave(context, session, Left::Signal(signal)),
    };
    if session.state.is_final() {
        return after_the_end(context, &session).await;
    }
    let page = context.client.page(session.id);
    context.output.answer(&serde_json::json!({"session": session, "page": page}), || {
        format!("{} is ready: {page}", plain(&session.name))
    })?;
    if what.flags.open {
        device::open_browser(&page);
    }
    Ok(ExitCode::SUCCESS)
}

/// Attaches; what ended too fast for that is shown from its log.
async fn view(context: &Context, what: What<'_>, session: &Session) -> anyhow::Result<ExitCode> {
    let keys = &what.flags.resume.detach_key;
    if session.state == SessionState::Running {
        if std::io::stdin().is_terminal() {
            context.output.note(&format!("session {}; {keys} leaves it", session.name));
        }
        let viewer = Viewer { id: session.id, name: &session.name, mode: StreamMode::Control, keys };
        let left = terminal::attach(&context.client, &viewer).await?;
        return match left {
            Left::Ended(ended) if ended.state.is_final() => after_the_end(context, &ended).await,
            left => attach::leave(context, session, left),
        };
    }
    after_the_end(context, session).await
}

async fn after_the_end(context: &Context, session: &Session) -> anyhow::Result<ExitCode> {
    if session.exit_code().is_some() {
        follow::so_far(context, session.id, 0, |_, bytes| logs::write_raw(bytes)).await?;
    }
    attach::of_ended(session)
}

/// Writes the program's output as it comes.
async fn print(context: &Context, session: &Session) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let end = follow::to_the_end(context, session.id, 0, |_, bytes| logs::write_raw(bytes));
    tokio::select! {
        end = end => attach::of_ended(&end?),
        signal = signals.next() => attach::leave(context, session, Left::Signal(signal)),
    }
}

/// Waits for the program's end and answers with everything at once.
async fn collect(context: &Context, session: &Session) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut output = Vec::new();
    let keep_end = |_: u64, bytes: &[u8]| {
        output.extend_from_slice(bytes);
        let over = output.len().saturating_sub(OUTPUT);
        output.drain(..over);
        Ok(())
    };
    let ended = tokio::select! {
        ended = follow::to_the_end(context, session.id, 0, keep_end) => ended?,
        signal = signals.next() => return Ok(exit::of_signal(signal)),
    };
    let text = String::from_utf8_lossy(&output);
    let answer = serde_json::json!({"session": ended, "exitCode": ended.exit_code(), "output": text});
    context.output.answer(&answer, String::new)?;
    attach::of_ended(&ended)
}
