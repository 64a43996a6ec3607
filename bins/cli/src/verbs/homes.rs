//! `homes`.

use std::process::ExitCode;

use tidegate_client::HomePage;

use crate::{args::HomeVerb, context::Context, output};

/// Most homes that are listed at once.
const MOST: usize = 100_000;

pub(super) async fn homes(context: &Context, verb: HomeVerb) -> anyhow::Result<ExitCode> {
    match verb {
        HomeVerb::List { all } => list(context, all).await?,
        HomeVerb::Remove { ids } => {
            for id in ids {
                let answer = context.client.delete_home(id).await?;
                let what = if answer.command_id.is_some() {
                    "is being deleted: it counts until its agent has done it"
                } else if answer.home.deleting_at.is_some() {
                    "is being deleted already"
                } else {
                    "is off the books: its agent is gone"
                };
                context.output.answer(&answer, || format!("{id} {what}"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(context: &Context, all: bool) -> anyhow::Result<()> {
    let mut page = context.client.homes(None).await?;
    while all && page.homes.len() < MOST {
        let Some(cursor) = page.next_cursor.take() else { break };
        let HomePage { homes, next_cursor, .. } = context.client.homes(Some(&cursor)).await?;
        // A cursor that leads nowhere must not be followed for ever.
        if homes.is_empty() {
            break;
        }
        page.homes.extend(homes);
        page.next_cursor = next_cursor;
    }
    context.output.answer(&page, || output::homes(&page.homes))?;
    if page.next_cursor.is_some() {
        context.output.note(&format!("{} of {}; --all shows all", page.homes.len(), page.total));
    }
    Ok(())
}
