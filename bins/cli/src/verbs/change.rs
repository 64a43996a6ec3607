//! `hibernate` and `wake`.

use std::process::ExitCode;

use anyhow::bail;
use tidegate_client::Accepted;
use tidegate_model::{Session, SessionState};

use crate::{args::ChangeArgs, context::Context, lookup, output::plain, progress};

pub(super) async fn hibernate(context: &Context, words: ChangeArgs) -> anyhow::Result<ExitCode> {
    let session = lookup::find(&context.client, &words.session.session).await?;
    let accepted = context.client.hibernate_session(session.id).await?;
    finish(context, accepted, words.no_wait, SessionState::Hibernating, SessionState::Hibernated).await
}

pub(super) async fn wake(context: &Context, words: ChangeArgs) -> anyhow::Result<ExitCode> {
    let session = lookup::find(&context.client, &words.session.session).await?;
    let accepted = context.client.wake_session(session.id).await?;
    finish(context, accepted, words.no_wait, SessionState::Waking, SessionState::Running).await
}

/// Waits until the session has left `on_the_way`, and fails where it did not arrive.
async fn finish(
    context: &Context,
    accepted: Accepted,
    no_wait: bool,
    on_the_way: SessionState,
    wanted: SessionState,
) -> anyhow::Result<ExitCode> {
    let mut session = accepted.session;
    if !no_wait && session.state == on_the_way {
        let done = |now: &Session| now.state != on_the_way;
        session = progress::wait_for(&context.client, context.output, session.id, done).await?;
    }
    if session.state != wanted && session.state != on_the_way {
        let reason = session.state_reason.as_deref().unwrap_or("no reason was given");
        bail!("session {} is {} instead of {wanted}: {reason}", session.id, session.state);
    }
    let text = || format!("{} {} is {}", session.id, plain(&session.name), session.state);
    context.output.answer(&session, text)?;
    Ok(ExitCode::SUCCESS)
}
