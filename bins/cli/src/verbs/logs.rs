//! `logs`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::follow;
use crate::{args::LogArgs, context::Context, lookup, output};

pub(super) async fn logs(context: &Context, words: LogArgs) -> anyhow::Result<ExitCode> {
    let session = lookup::find(&context.client, &words.session.session).await?;
    if words.states {
        let history = context.client.session_history(session.id).await?;
        context.output.answer(&history, || output::states(&history.events))?;
        return Ok(ExitCode::SUCCESS);
    }
    let json = context.output.json;
    let write = |offset: u64, bytes: &[u8]| {
        if json {
            let text = String::from_utf8_lossy(bytes);
            return output::json_line(&serde_json::json!({"offset": offset, "text": text}));
        }
        write_raw(bytes)
    };
    if words.follow {
        follow::to_the_end(context, session.id, words.after, write).await?;
    } else {
        follow::so_far(context, session.id, words.after, write).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a session's bytes as they are.
pub(super) fn write_raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}
