//! `stop`.

use std::process::ExitCode;

use tidegate_model::{Session, SessionState};

use crate::{args::StopArgs, context::Context, exit, lookup, output::plain, progress};

pub(super) async fn stop(context: &Context, words: StopArgs) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut stopped = Vec::new();
    for name in &words.sessions {
        match stop_one(context, name, words.no_wait).await {
            Ok(session) => stopped.push(session),
            // One that cannot be stopped is no reason to leave the others.
            Err(error) => code = exit::report(&error, context.output.json, exit::FAILURE),
        }
    }
    let lines = || {
        let line =
            |session: &Session| format!("{} {} is {}", session.id, plain(&session.name), session.state);
        stopped.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    context.output.answer(&serde_json::json!({"sessions": stopped}), lines)?;
    Ok(code)
}

async fn stop_one(context: &Context, name: &str, no_wait: bool) -> anyhow::Result<Session> {
    let found = lookup::find(&context.client, name).await?;
    let session = context.client.terminate_session(found.id).await?.session;
    if no_wait || session.state.is_final() {
        return Ok(session);
    }
    let ended = |now: &Session| now.state != SessionState::Terminating && now.state.is_final();
    Ok(progress::wait_for(&context.client, context.output, session.id, ended).await?)
}
