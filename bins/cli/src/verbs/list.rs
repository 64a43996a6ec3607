//! `ls`.

use std::process::ExitCode;

use tidegate_client::SessionPage;
use tidegate_model::SessionFilter;

use super::apps;
use crate::{args::ListArgs, context::Context, output};

/// Most sessions that are listed at once.
const MOST: usize = 100_000;

pub(super) async fn list(context: &Context, words: ListArgs) -> anyhow::Result<ExitCode> {
    let ListArgs { user, state, tag, agent, application, shared, all } = words;
    let application = match application {
        Some(text) => Some(apps::id(&context.client, &text).await?),
        None => None,
    };
    let filter = SessionFilter { user, state, tag, agent, application, shared };
    let page = if all {
        let sessions = context.client.all_sessions(&filter, MOST).await?;
        SessionPage { total: sessions.len() as u64, sessions, next_cursor: None, total_is_exact: true }
    } else {
        context.client.sessions(&filter, 100, None).await?
    };
    context.output.answer(&page, || output::sessions(&page.sessions))?;
    if page.next_cursor.is_some() {
        let about = if page.total_is_exact { "" } else { "more than " };
        context.output.note(&format!("{} of {about}{}; --all shows all", page.sessions.len(), page.total));
    }
    Ok(ExitCode::SUCCESS)
}
