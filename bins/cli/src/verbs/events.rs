//! `events`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use tidegate_client::EventQuery;
use tidegate_model::{Change, Event};

use crate::{
    args::EventArgs,
    context::Context,
    lookup,
    output::{self, plain},
};

/// Writes a line for each event, until somebody ends it or the server refuses.
pub(super) async fn events(context: &Context, words: EventArgs) -> anyhow::Result<ExitCode> {
    let session = match words.session {
        Some(text) => Some(lookup::find(&context.client, &text).await?.id),
        None => None,
    };
    let query = EventQuery { session, kinds: words.kinds, after: words.after };
    let mut events = context.client.events(query).await?;
    loop {
        let event = events.next().await?;
        if context.output.json {
            output::json_line(&event)?;
        } else {
            let mut out = io::stdout().lock();
            writeln!(out, "{}", line(&event))?;
            out.flush()?;
        }
    }
}

/// An event for people.
fn line(event: &Event) -> String {
    let reason = |reason: &Option<String>| {
        reason.as_ref().map(|reason| format!(" ({})", plain(reason).replace('\n', " "))).unwrap_or_default()
    };
    let what = match &event.change {
        Change::Session(change) => {
            let from = change.from_state.map(|state| format!("{state} \u{2192} ")).unwrap_or_default();
            format!(
                "{} of {}: {from}{}{}",
                plain(&change.name),
                plain(&change.user),
                change.to_state,
                reason(&change.reason)
            )
        }
        Change::Command(change) => {
            let session = change.session_id.map(|id| format!(" for session {id}")).unwrap_or_default();
            format!(
                "{}{session} on {}: {}{}",
                change.action,
                change.agent_id,
                change.status,
                reason(&change.reason)
            )
        }
        Change::Agent(change) if change.removed => format!("{}: removed", change.agent_id),
        Change::Agent(change) => {
            format!("{}: {}, {}", change.agent_id, change.status, change.approval_status)
        }
        Change::Reset(reset) => plain(&reset.reason),
    };
    format!("{}  {}  {:<7}  {what}", output::time(event.at), event.id, event.change.as_str())
}
